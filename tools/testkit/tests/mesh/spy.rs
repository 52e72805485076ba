//! A stranger at the broker who subscribes to everything, and keeps every byte the broker gives it. Speaks just enough of
//! each protocol to be let in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two tries to connect, and two looks at whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// MQTT 3.1.1: CONNECT as `spy`, clean session, no keep-alive; SUBSCRIBE to `#` at QoS 0.
const MQTT_HELLO: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03spy\x82\x06\x00\x01\x00\x01#\x00";
/// NATS: a client that hears everything.
const NATS_HELLO: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB > 1\r\n";
const NATS_PING: &[u8] = b"PING\r\n";

/// It listens until dropped, and connects again whenever the broker comes back.
pub struct Spy {
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Spy {
    /// Listens to `#`.
    pub fn on_mqtt(broker: SocketAddr) -> Self {
        Self::start(broker, MQTT_HELLO)
    }

    /// Listens to `>`.
    pub fn on_nats(broker: SocketAddr) -> Self {
        Self::start(broker, NATS_HELLO)
    }

    fn start(broker: SocketAddr, hello: &'static [u8]) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicBool>::default());
        let (seeing, stopping) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                // Fails while the broker is away.
                let _ = listen(broker, hello, &seeing, &stopping);
                thread::sleep(POLL);
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Everything it was given so far.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(broker: SocketAddr, hello: &[u8], seen: &Mutex<Vec<u8>>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(broker)?;
    socket.set_read_timeout(Some(POLL))?;
    socket.write_all(hello)?;
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let bytes = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => &buffer[..count],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        // Sent alone, between messages.
        if bytes.ends_with(NATS_PING) {
            socket.write_all(b"PONG\r\n")?;
        }
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
    }
    Ok(())
}
