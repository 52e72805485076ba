//! Ports that stay ours. Never hands out a port twice, nor to two test processes at once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port while its server is
/// down, and above the well-known ones.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port on 127.0.0.1 nobody listens on, reserved for this process until it ends.
///
/// The reservation is an abstract Unix socket named after the port: the kernel drops it with the process, however it
/// dies, so a server may be stopped and started again on the same port without another test slipping in.
#[must_use]
pub fn free_port() -> u16 {
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

    let start = RandomState::new().build_hasher().finish();
    for step in 0..u64::from(COUNT) {
        let port = FIRST + u16::try_from((start.wrapping_add(step)) % u64::from(COUNT)).expect("less than COUNT");
        let name = SocketAddr::from_abstract_name(format!("mycelial-testkit-port-{port}")).expect("a short name");
        let Ok(reservation) = UnixListener::bind_addr(&name) else {
            continue;
        };
        // Bound on every address: a server on 0.0.0.0 counts as taken, and so does one on 127.0.0.1.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err() {
            continue;
        }
        RESERVED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(reservation);
        return port;
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn never_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn can_be_listened_on() {
        let port = free_port();
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        drop(first);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("and free again after its server stopped");
    }
}
