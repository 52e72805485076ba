//! `cargo run -p fuzz --example seeds`: writes first inputs into the corpora, from the golden bytes of the wire and the
//! workflows of the guide. To be run again when the wire has changed.

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let dir = home.join("corpus").join(target);
        fs::create_dir_all(&dir)?;
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        fs::write(dir.join(format!("seed-{name}")), bytes)
    };
    let golden = fs::read_to_string(home.join("../../bus-schema/tests/golden.txt"))?;
    for (name, hex) in golden.lines().filter_map(|line| line.split_once(" = ")) {
        let bytes = unhex(hex);
        let after = |first: u8| [&[first], bytes.as_slice()].concat();
        let kind = name
            .strip_prefix("message ")
            .and_then(|rest| rest.split('.').next()?.parse::<u8>().ok());
        match kind {
            Some(kind) => write("messages", name, &after(kind))?,
            None if name.contains("envelope") => write("envelope", name, &after(0))?,
            None if name.starts_with("batch") => {
                write("batch", name, &bytes)?;
                write("streams", name, &after(0))?;
            }
            None => write("messages", name, &bytes)?,
        }
        if kind == Some(11) {
            write("streams", name, &frames(&bytes))?;
        }
    }
    for n in 0..4_u8 {
        write("envelope", &format!("plaintext-{n}"), &[n * 60 + 1; 40])?;
        for what in 0..6 {
            write("segment", &format!("{n}-{what}"), &[n, what, n, 9, n * 40, 0, 0, 77, 3])?;
        }
    }
    for (name, text) in WORKFLOWS {
        write("workflow", name, text.as_bytes())?;
    }
    Ok(())
}

/// The same frame three times, the second time out of its place.
fn frames(payload: &[u8]) -> Vec<u8> {
    use bus_schema::message::{Body, Exchange, Frame, Message};
    let body = Body {
        kind: Frame::KIND,
        ver: Frame::VER,
        exchange: Exchange::OneWay,
        correlation: 0,
        part: 0,
        parts: 1,
        payload,
    };
    let plaintext = body.encode();
    let mut out = vec![1];
    for jump in [1, 3, 1] {
        out.push(jump);
        out.extend((plaintext.len() as u16).to_le_bytes());
        out.extend(&plaintext);
    }
    out
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) * 16 + digit(pair[1]))
        .collect()
}

const WORKFLOWS: &[(&str, &str)] = &[
    (
        "one-daemon",
        "name = \"a\"\n\n[sources.db]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"a.db\"\n\n[destinations.out]\ntype = \"sqlite\"\ndaemon = \"gateway\"\nfrom = [\"db\"]\npath = \"b.db\"\nmode = \"append\"\n",
    ),
    (
        "two-daemons",
        "name = \"a\"\n\n[sources.db]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"a.db\"\nrows = 10\n\n[transforms.some]\ntype = \"filter\"\ndaemon = \"gateway\"\nfrom = [\"db\"]\nexpression = \"a > 1\"\n\n[destinations.out]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = [\"some\"]\npath = \"b.db\"\n",
    ),
    (
        "mistakes",
        "name = \"a b\"\n[sources.db]\ntype = \"sqlit\"\ndaemon = \"nowhere\"\npaht = 1\n[destinations.out]\ntype = \"stdout\"\nfrom = [\"db\", \"out\"]\n",
    ),
];
