//! Prints how long rows take from one daemon's source to another's destination:
//! `cargo run -p testkit --example latency -- sqlite postgres 100 10`, rows a second and seconds last.

use std::time::Duration;

use testkit::{
    Broker,
    scenario::latency::{From, To, Way, latency},
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, rate, seconds] = arguments.as_slice() else {
        anyhow::bail!("sqlite|file sqlite|postgres RATE SECONDS");
    };
    let way = Way {
        from: if from == "file" { From::File } else { From::Sqlite },
        to: if to == "postgres" { To::Postgres } else { To::Sqlite },
        rate: rate.parse()?,
        lasts: Duration::from_secs(seconds.parse()?),
    };
    let found = latency(Broker::embedded(false), way);
    let ms = |share| found.quantile(share).as_secs_f64() * 1e3;
    println!(
        "{from} -> {to} at {:.0} rows/s: p50 {:.1} ms, p99 {:.1}, p99.9 {:.1}, most {:.1}; CPU gateway {:.2} s, hub {:.2} s; \
         peak {} and {} KiB; {} rows",
        found.rate,
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0),
        found.cpu.0.as_secs_f64(),
        found.cpu.1.as_secs_f64(),
        found.peaks_kib.0,
        found.peaks_kib.1,
        found.rows.len(),
    );
    Ok(())
}
