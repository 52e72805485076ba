//! The broker's certificate as this host sees it: whether it is trusted, whether it is for this name, and for how long it still is good.
//! Speaks to the broker up to the end of the handshake, and shows it nothing of the operator.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_link::{BusAddress, Protocol, Tls};
use rustls::{CertificateError, ClientConnection, pki_types::ServerName};

use super::{Report, Verdict};
use crate::render;

/// One that ends sooner than this is worth a warning, in seconds: a month.
const SOON_S: i64 = 30 * 86_400;
/// Longest first line of a NATS server.
const INFO_BYTES_MAX: usize = 64 * 1024;

const CHECK: &str = "tls";

/// What is wrong, and how to mend it.
type Wrong = (String, String);

/// Looks at the certificate of a broker that is reached with TLS.
pub async fn look(address: BusAddress, ca: Option<Vec<u8>>, timeout: Duration, report: &mut Report) {
    let of = address.host().to_string();
    let looked = tokio::task::spawn_blocking(move || probe(&address, ca.as_deref(), timeout)).await;
    let found = looked.unwrap_or_else(|error| Err((error.to_string(), String::new())));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match found {
        Ok(until) => good_until(&of, until, i64::try_from(now.as_secs()).unwrap_or(i64::MAX), report),
        Err((found, remedy)) => report.add(CHECK, Verdict::Failed, found, remedy),
    }
}

/// Says how long it is good; `None`: it does not say.
fn good_until(of: &str, until_unix_s: Option<i64>, now_unix_s: i64, report: &mut Report) {
    let Some(until) = until_unix_s else {
        report.good(CHECK, format!("{of} shows a certificate that is trusted"));
        return;
    };
    let date: String = render::clock_time(until.saturating_mul(1_000))
        .chars()
        .take(10)
        .collect();
    let found = format!("{of} shows a certificate that is trusted, good until {date}");
    match until - now_unix_s < SOON_S {
        true => report.add(
            CHECK,
            Verdict::Warning,
            found,
            "renew the broker's certificate before then: daemons lose the bus when it ends",
        ),
        false => report.good(CHECK, found),
    }
}

/// Shakes hands; until when the broker's certificate is good, in seconds since 1970.
fn probe(address: &BusAddress, ca: Option<&[u8]>, timeout: Duration) -> Result<Option<i64>, Wrong> {
    let host = address.host();
    let failed = |what: &str, error: &dyn std::fmt::Display, remedy: &str| {
        (format!("{host}: {what}: {error}"), remedy.to_string())
    };
    let trust = |error: bus_link::TlsError| failed("whom to trust", &error, "enrol again, or install ca-certificates");
    let tls = ca.map_or_else(|| Ok(Tls::default()), Tls::from_ca_der).map_err(trust)?;
    let config = tls.client_config().map_err(trust)?;
    let unreached = |error: &dyn std::fmt::Display| {
        failed(
            "not reached",
            error,
            "see that the broker runs, and that this host reaches it",
        )
    };
    let mut found = (host, address.port())
        .to_socket_addrs()
        .map_err(|error| unreached(&error))?;
    let socket = found.next().ok_or_else(|| unreached(&"the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&socket, timeout).map_err(|error| unreached(&error))?;
    let patient = stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| stream.set_write_timeout(Some(timeout)));
    patient.map_err(|error| unreached(&error))?;
    if address.protocol() == Protocol::Nats {
        // It says who it is before it speaks TLS.
        greeting(&mut stream)
            .map_err(|error| failed("no NATS server answers", &error, "see the address and its port"))?;
    }
    let name = ServerName::try_from(host.to_string())
        .map_err(|error| failed("no name of a certificate", &error, "enrol with the broker's name"))?;
    let mut connection =
        ClientConnection::new(config, name).map_err(|error| failed("TLS", &error, "see the broker's settings"))?;
    shake(&mut connection, &mut stream).map_err(|error| refused(host, &error))?;
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    Ok(shown.and_then(|certificate| not_after(certificate)))
}

fn greeting(stream: &mut impl Read) -> io::Result<()> {
    let mut byte = [0];
    for _ in 0..INFO_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(());
        }
    }
    Err(io::Error::other("its first line does not end"))
}

fn shake(connection: &mut ClientConnection, stream: &mut (impl Read + Write)) -> io::Result<()> {
    while connection.is_handshaking() {
        connection.complete_io(stream)?;
    }
    Ok(())
}

/// Why no hands were shaken.
fn refused(host: &str, error: &io::Error) -> Wrong {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let (what, remedy) = match cause {
        Some(rustls::Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "its certificate has expired".to_string(),
                "renew the broker's certificate; or is this host's clock right?".to_string(),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "its certificate is not valid yet".to_string(),
                "set this host's clock".to_string(),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "its certificate is for other names".to_string(),
                format!("make one for '{host}', or give members the address that it is for: public in plane.toml"),
            ),
            // One of the same name with another key signs what the fleet's cannot verify.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "its certificate is of an authority that the fleet does not know".to_string(),
                "give the broker a certificate of the authority that the plane was made with, or enrol again with the new one"
                    .to_string(),
            ),
            other => (format!("its certificate: {other}"), "look at the broker's certificate".to_string()),
        },
        _ => (
            format!("no TLS: {error}"),
            "see that this is the broker's port for TLS, and its log".to_string(),
        ),
    };
    (format!("{host}: {what}"), remedy)
}

/// Tag, content and what follows of the first element of DER.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The end of a certificate's validity, in seconds since 1970: the second time of the fifth field, see RFC 5280, 4.1.
fn not_after(certificate: &[u8]) -> Option<i64> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if element(fields)?.0 == VERSION {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    unix_s(tag, std::str::from_utf8(time).ok()?)
}

/// A UTCTime or GeneralizedTime. Dates to days as in Howard Hinnant's "chrono-compatible low-level date algorithms",
/// days_from_civil.
fn unix_s(tag: u8, text: &str) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text
        .strip_suffix('Z')
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let two = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + two(4)? * 3_600 + two(6)? * 60 + two(8)?)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use testkit::Mosquitto;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn der(path: impl AsRef<std::path::Path>) -> Vec<u8> {
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    }

    #[test]
    fn times_of_certificates() {
        for (tag, text, seconds) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "500101000000Z", Some(-631_152_000)),
            (0x18, "20240229120000Z", Some(1_709_208_000)),
            (0x18, "40960101000000Z", Some(67_090_118_400)),
            (0x17, "20240229120000Z", None),
            (0x18, "20241329120000Z", None),
            (0x18, "2024022912000\u{e9}", None),
            (0x17, "", None),
        ] {
            assert_eq!(unix_s(tag, text), seconds, "{text}");
        }
    }

    #[test]
    fn ends_of_certificates() {
        let day = Duration::from_secs(86_400);
        let tls = testkit::Tls::valid(day, 10 * day);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let certificate = der(&tls.server().cert);
        let left = not_after(&certificate).unwrap() - now;
        assert!((9 * 86_400..=10 * 86_400 + 5).contains(&left), "{left}");
        for cut in 0..certificate.len().min(200) {
            assert_eq!(not_after(&certificate[..cut]), None, "{cut}");
        }
        let mut report = Report::default();
        good_until("hub", Some(now + left), now, &mut report);
        good_until("hub", Some(now + 2 * SOON_S), now, &mut report);
        let text = report.text();
        assert!(
            text.contains("WARN  tls") && text.contains("do: renew the broker's"),
            "{text}"
        );
        assert!(text.contains("ok    tls"), "{text}");
    }

    #[test]
    fn what_a_broker_shows() {
        let tls = testkit::Tls::new();
        let broker = Mosquitto::builder().tls(&tls).start();
        let address: BusAddress = broker.url().parse().unwrap();
        let ca = der(tls.ca());
        assert!(probe(&address, Some(&ca), PATIENCE).unwrap().is_some());
        let stranger = der(testkit::Tls::new().ca());
        let (found, remedy) = probe(&address, Some(&stranger), PATIENCE).unwrap_err();
        assert!(
            found.contains("does not know") && remedy.contains("authority"),
            "{found}: {remedy}"
        );
        let plain = Mosquitto::start();
        let port = plain.url().rsplit(':').next().unwrap().to_string();
        let address: BusAddress = format!("mqtts://localhost:{port}").parse().unwrap();
        let (found, remedy) = probe(&address, Some(&ca), PATIENCE).unwrap_err();
        assert!(
            found.contains("no TLS") && remedy.contains("port for TLS"),
            "{found}: {remedy}"
        );
    }

    #[test]
    fn each_refusal_has_a_remedy() {
        for (wrong, found, remedy) in [
            (CertificateError::Expired, "expired", "renew"),
            (CertificateError::NotValidYet, "not valid yet", "clock"),
            (CertificateError::NotValidForName, "other names", "make one for 'hub'"),
            (CertificateError::Revoked, "its certificate", "look at"),
        ] {
            let error = io::Error::other(rustls::Error::InvalidCertificate(wrong));
            let (said, mend) = refused("hub", &error);
            assert!(said.contains(found) && mend.contains(remedy), "{said}: {mend}");
        }
    }
}
