//! What devices speak: syslog over TCP, whose messages a thread sends, and Modbus, played by another. Plain sockets.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::free_port;

use super::{LOOK, Lines, Race, into_file, memchr_lines, out, timed, until};

/// Units behind one address, and values of each that are asked for one by one.
const UNITS: u8 = 240;
const POINTS: u16 = 16;
/// Addresses between two of these.
const APART: u16 = 10;
/// Bytes of a question, and of an answer with one value of two registers.
const QUESTION_BYTES: usize = 12;
const ANSWER_BYTES: usize = 13;
const SOON: Duration = Duration::from_secs(20);

/// The races: `rows` messages, and so many looks at a unit.
pub(super) fn races<'a>(rows: u64, looks: u64) -> Vec<Race<'a>> {
    vec![
        Race {
            name: "syslog source",
            note: "a socket and its lines, split at their spaces; RFC 5424 over one connection",
            rows,
            ours: Box::new(move |dir| syslog(dir, rows)),
            bare: Box::new(move |dir| timed(|| bare_syslog(&out(dir), rows))),
        },
        Race {
            name: "modbus source",
            note: "a socket; a record is a unit with sixteen values, each a question and its answer",
            rows: looks,
            ours: Box::new(move |dir| modbus(dir, looks)),
            bare: Box::new(move |dir| timed(|| bare_modbus(&out(dir), looks))),
        },
    ]
}

fn syslog(dir: &Path, rows: u64) -> Result<f64> {
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let destination = into_file(&out(dir)).replace("\"in\"", "\"slim\"");
    let text = format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"syslog\"\ntcp = \"{addr}\"\n\n[transforms.slim]\ntype = \"select\"\n\
         from = \"in\"\ncolumns = [\"time_text\", \"host\", \"app\", \"message\"]\n{destination}"
    );
    let sender = std::thread::spawn(move || send(addr, rows));
    let last = format!("reading {rows} of the plant\"");
    let seconds = until(dir, &text, &out(dir), |end| end.contains(&last))?;
    sender.join().ok().context("the sender has panicked")??;
    let found = memchr_lines(&out(dir))?;
    ensure!(found == rows, "{found} of {rows} lines");
    Ok(seconds)
}

/// Sends so many messages to who listens there or soon will.
fn send(addr: SocketAddr, rows: u64) -> Result<()> {
    let give_up = Instant::now() + SOON;
    let stream = loop {
        match TcpStream::connect(addr) {
            Err(_) if Instant::now() < give_up => std::thread::sleep(LOOK),
            tried => break tried?,
        }
    };
    let mut out = BufWriter::with_capacity(1 << 16, stream);
    for id in 1..=rows {
        writeln!(
            out,
            "<134>1 2026-01-31T10:00:00Z press bench 1 - - reading {id} of the plant"
        )?;
    }
    Ok(out.flush()?)
}

fn bare_syslog(out: &Path, rows: u64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let sender = std::thread::spawn(move || send(addr, rows));
    let mut messages = BufReader::with_capacity(1 << 16, listener.accept()?.0);
    let (mut out, mut message, mut found) = (Lines::create(out)?, String::new(), 0);
    while messages.read_line(&mut message)? > 0 {
        // Priority and version, time, host, app, process, id, data, text.
        let parts: Vec<&str> = message.trim_end().splitn(8, ' ').collect();
        let [head, time, host, app, _, _, _, text] = parts[..] else {
            anyhow::bail!("not a message: {message}");
        };
        ensure!(
            head.starts_with('<') && head.ends_with(">1"),
            "not a message: {message}"
        );
        out.push_value(&serde_json::json!({"time_text": time, "host": host, "app": app, "message": text}))?;
        message.clear();
        found += 1;
    }
    sender.join().ok().context("the sender has panicked")??;
    ensure!(found == rows, "{found} of {rows} messages");
    out.finish()
}

/// The units, at one connection after the other: every value is the number of the question on its connection.
fn units() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    // Ends with the connection, which the one who asks closes; there is one for each listener.
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let (mut question, mut number) = ([0; QUESTION_BYTES], 0_u32);
        let answered = stream.set_nodelay(true).and_then(|()| {
            loop {
                stream.read_exact(&mut question)?;
                number += 1;
                let [a, b, .., unit, function, _, _, _, _] = question;
                let [e, f, g, h] = number.to_be_bytes();
                stream.write_all(&[a, b, 0, 0, 0, 7, unit, function, 4, e, f, g, h])?;
            }
        });
        // That is how it ends.
        drop::<std::io::Result<()>>(answered);
    });
    Ok(addr)
}

fn modbus(dir: &Path, looks: u64) -> Result<f64> {
    let addr = units()?;
    let points: String = (0..POINTS)
        .map(|point| {
            let address = point * APART;
            format!("    {{ name = \"p{point}\", table = \"holding\", address = {address}, type = \"u32\" }},\n")
        })
        .collect();
    let ids: Vec<String> = (1..=UNITS).map(|unit| unit.to_string()).collect();
    let text = format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"modbus\"\nhost = \"127.0.0.1\"\nport = {}\nunits = [{}]\n\
         interval_ms = 10\npoints = [\n{points}]\n{}",
        addr.port(),
        ids.join(", "),
        into_file(&out(dir))
    );
    let last = format!("\"p{}\":", POINTS - 1);
    let is_done = |end: &str| {
        let numbers = end.rsplit(last.as_str()).next().unwrap_or_default();
        let number = numbers.split(|c: char| !c.is_ascii_digit()).next();
        number.and_then(|number| number.parse::<u64>().ok()) >= Some(looks * u64::from(POINTS))
    };
    let seconds = until(dir, &text, &out(dir), is_done)?;
    let found = memchr_lines(&out(dir))?;
    ensure!(found >= looks, "{found} of {looks} lines");
    Ok(seconds)
}

fn bare_modbus(out: &Path, looks: u64) -> Result<()> {
    let mut stream = TcpStream::connect(units()?)?;
    stream.set_nodelay(true)?;
    let (mut out, mut number) = (Lines::create(out)?, 0_u16);
    for look in 0..looks {
        let unit = (look % u64::from(UNITS)) as u8 + 1;
        let mut row = serde_json::Map::new();
        for point in 0..POINTS {
            number = number.wrapping_add(1);
            let ([a, b], [c, d]) = (number.to_be_bytes(), (point * APART).to_be_bytes());
            stream.write_all(&[a, b, 0, 0, 0, 6, unit, 3, c, d, 0, 2])?;
            let mut answer = [0; ANSWER_BYTES];
            stream.read_exact(&mut answer)?;
            let [e, f, .., function, _, w, x, y, z] = answer;
            ensure!([e, f] == [a, b] && function == 3, "another answer");
            row.insert(format!("p{point}"), u32::from_be_bytes([w, x, y, z]).into());
        }
        row.insert("unit".to_string(), unit.into());
        out.push_value(&row.into())?;
    }
    out.finish()
}
