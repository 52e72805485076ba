//! Ports that are free. Says so when the wished one is taken.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::{Context, Result, bail};

/// How many ports are tried.
const TRIES: u16 = 100;

/// `wish`, or the next free port after it.
pub fn free_from(wish: &str, what: &str) -> Result<String> {
    let address = wish
        .to_socket_addrs()
        .with_context(|| format!("'{wish}' is not an address"))?
        .next();
    let address = address.with_context(|| format!("'{wish}' is not an address"))?;
    for offset in 0..TRIES {
        let Some(port) = address.port().checked_add(offset) else {
            break;
        };
        let candidate = SocketAddr::new(address.ip(), port);
        if TcpListener::bind(candidate).is_ok() {
            if offset > 0 {
                eprintln!("port {} is taken: {what} listens on {port} instead", address.port());
            }
            return Ok(candidate.to_string());
        }
    }
    bail!(
        "no free port for {what} between {} and {}",
        address.port(),
        address.port().saturating_add(TRIES)
    )
}
