//! The demonstration's shop: fills a SQLite database, keeps writing to it, and compares it with its copy.
//! `cargo xtask up` runs it; the tests use the library behind it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, bail};
use testkit::shop;

const USAGE: &str = "\
usage: shop fill DB ROWS          create the table and add rows
       shop write DB ROWS_PER_S   add rows until stdin ends
       shop compare DB COPY TABLE compare row by row; prints the number of rows
       shop count DB TABLE        print the number of rows";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["fill", db, rows] => {
            let db = PathBuf::from(db);
            shop::create(&db)?;
            println!("{}", shop::add(&db, rows.parse()?)?);
        }
        ["write", db, rate] => {
            let stop = Arc::new(AtomicBool::new(false));
            let stopping = Arc::clone(&stop);
            // Whoever started this closes its end, by asking or by dying.
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                stopping.store(true, Ordering::Relaxed);
            });
            println!("{}", shop::write_until(&PathBuf::from(db), rate.parse()?, &stop)?);
        }
        ["compare", db, copy, table] => println!("{}", shop::compare(&PathBuf::from(db), &PathBuf::from(copy), table)?),
        ["count", db, table] => println!("{}", shop::count(&PathBuf::from(db), table)),
        _ => bail!(USAGE),
    }
    Ok(())
}
