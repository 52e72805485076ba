//! Listens, and hands each connection to `mqtt5`. Decides nothing about users (see `gate`) and parses no packet.
//!
//! mqtt5 has a server loop of its own; it is not used, because one client that starts a TLS handshake and falls silent
//! stops it from accepting any other, and because it goes on without a TLS port it could not open.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mqtt5::{
    MqttError,
    broker::{
        AuthProvider, BrokerConfig, DynamicStorage, FileBackend, ResourceLimits, ResourceMonitor, StorageBackend as _,
        client_handler::ClientHandler, router::MessageRouter, storage::QueueLimits, sys_topics::BrokerStats,
        tls_acceptor::TlsStreamWrapper, transport::BrokerTransport,
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{
    Config, ConfigError, LANE_FRAMES, PACKET_BYTES_MAX, SUBSCRIPTIONS_MAX, WINDOW_FRAMES,
    config::CLIENTS_MAX,
    gate::{Doorkeeper, Gate},
    tls,
};

/// How long a client may take for the TLS handshake. (mqtt5 gives it ten seconds more for CONNECT.)
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often expired sessions and empty queues are thrown away.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The file beside the secret in which the plane says who was taken out of the fleet.
const REVOKED: &str = "revoked";
/// How often it is looked at.
const REVOKED_EVERY: Duration = Duration::from_millis(500);
/// Most bytes of it that are read.
const REVOKED_BYTES_MAX: u64 = 1 << 20;
/// How long a kept session waits for its client.
const SESSION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long connections may take to end when the broker stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file it needs cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}: {}", bind_problem(error))]
    Bind {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The data directory is another broker's, or cannot be written.
    #[error("cannot keep sessions (`data_dir`)")]
    Storage(#[source] MqttError),
}

fn bind_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is taken\n  hint: stop the other program (another broker?) or choose another port in `listen`"
                .into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address\n  hint: 0.0.0.0 and [::] mean all it has".into()
        }
        io::ErrorKind::PermissionDenied => "not allowed\n  hint: ports below 1024 need a privilege".into(),
        _ => error.to_string(),
    }
}

/// A broker that serves until it is stopped. Dropping it stops it too, without waiting for anything.
pub struct Handle {
    plain: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    stop: broadcast::Sender<()>,
    slots: Arc<Semaphore>,
    slots_max: usize,
    tasks: Vec<JoinHandle<()>>,
    storage: Option<Arc<DynamicStorage>>,
}

impl Handle {
    /// Where it listens without TLS; with the real port where the configuration said 0.
    pub fn plain(&self) -> &[SocketAddr] {
        &self.plain
    }

    /// Where it listens with TLS.
    pub fn tls(&self) -> &[SocketAddr] {
        &self.tls
    }

    /// Connections there are, those included that have not said who they are.
    pub fn connections(&self) -> usize {
        self.slots_max - self.slots.available_permits()
    }

    /// Stops listening, ends all connections, and writes down what is to be kept. Takes five seconds at most.
    pub async fn stop(self) {
        // An error means that nobody is left to be told.
        drop(self.stop.send(()));
        for task in self.tasks {
            if let Err(error) = task.await {
                warn!(%error, "a listener ended badly");
            }
        }
        let all = u32::try_from(self.slots_max).unwrap_or(u32::MAX);
        if timeout(STOP_MAX, self.slots.acquire_many(all)).await.is_err() {
            let left = self.slots_max - self.slots.available_permits();
            warn!(left, "connections that did not end in time are cut");
        }
        if let Some(storage) = self.storage
            && let Err(error) = storage.shutdown().await
        {
            warn!(%error, "sessions were not written to the data directory");
        }
    }
}

/// Opens every listener of the configuration, or none, and serves in tasks of the current runtime.
pub async fn serve(config: Config) -> Result<Handle, ServeError> {
    let secret = config.secret()?;
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let plain = bind(&config.listen).await?;
    let secured = bind(config.tls.as_ref().map_or(&[], |tls| &tls.listen)).await?;

    let storage = open_storage(&config).await?;
    let slots_max = config.max_clients.min(CLIENTS_MAX);
    let gate = Arc::new(Gate::new(config.fleet, config.plane, secret, slots_max));
    let revoked = config.secret_file.with_file_name(REVOKED);
    gate.revoke(read_revoked(&revoked).unwrap_or_default());
    let shared = Arc::new(Shared::new(&config, gate, storage.clone()));
    if storage.is_some() {
        let recovered = shared
            .router
            .recover_sessions(session_seconds())
            .await
            .map_err(ServeError::Storage)?;
        info!(recovered, "sessions");
    }

    let (stop, _) = broadcast::channel(1);
    let slots = Arc::new(Semaphore::new(slots_max));
    let mut handle = Handle {
        plain: addresses(&plain),
        tls: addresses(&secured),
        stop,
        slots,
        slots_max,
        tasks: Vec::new(),
        storage,
    };
    let plain = plain.into_iter().map(|listener| (listener, None));
    let secured = secured.into_iter().map(|listener| (listener, acceptor.clone()));
    for (listener, acceptor) in plain.chain(secured) {
        let port = Port {
            listener,
            acceptor,
            shared: Arc::clone(&shared),
            slots: Arc::clone(&handle.slots),
            stop: handle.stop.clone(),
        };
        handle.tasks.push(tokio::spawn(port.accept()));
    }
    let watching = watch_revoked(revoked, Arc::clone(&shared.gate), handle.stop.subscribe());
    handle.tasks.push(tokio::spawn(watching));
    handle.tasks.push(tokio::spawn(sweep(shared, handle.stop.subscribe())));
    Ok(handle)
}

async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ServeError::Bind { address, error })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect()
}

async fn open_storage(config: &Config) -> Result<Option<Arc<DynamicStorage>>, ServeError> {
    let Some(dir) = &config.data_dir else { return Ok(None) };
    let files = FileBackend::with_queue_limits(dir, queue_limits(config))
        .await
        .map_err(ServeError::Storage)?;
    Ok(Some(Arc::new(DynamicStorage::File(files))))
}

fn queue_limits(config: &Config) -> QueueLimits {
    // Bytes decide. Small messages have an overhead that mqtt5 counts as well, so this many never fit.
    QueueLimits {
        max_messages: config.max_queued_bytes_per_client / 64,
        max_bytes: config.max_queued_bytes_per_client,
    }
}

fn session_seconds() -> u32 {
    u32::try_from(SESSION_MAX.as_secs()).unwrap_or(u32::MAX)
}

/// What every connection is served with.
struct Shared {
    config: Arc<BrokerConfig>,
    router: Arc<MessageRouter>,
    gate: Arc<Gate>,
    storage: Option<Arc<DynamicStorage>>,
    stats: Arc<BrokerStats>,
    monitor: Arc<ResourceMonitor>,
}

impl Shared {
    fn new(config: &Config, gate: Arc<Gate>, storage: Option<Arc<DynamicStorage>>) -> Self {
        let doorkeeper = Arc::new(Doorkeeper);
        let router = match &storage {
            Some(storage) => MessageRouter::with_storage(Arc::clone(storage)),
            None => MessageRouter::new(),
        };
        let router = router
            .with_fallback_queue_limits(queue_limits(config))
            .with_event_handler(doorkeeper.clone());
        // No rates: the semaphore counts connections, and streams have credit.
        let limits = ResourceLimits {
            max_message_rate_per_client: 0,
            max_bandwidth_per_client: 0,
            ..ResourceLimits::default()
        };
        Self {
            config: Arc::new(protocol(doorkeeper)),
            router: Arc::new(router),
            gate,
            storage,
            stats: Arc::new(BrokerStats::new()),
            monitor: Arc::new(ResourceMonitor::new(limits)),
        }
    }
}

/// The protocol's limits. Several defaults would let one client hold gigabytes: 10,000 messages in a lane, 65,535 topic
/// aliases, 65,535 messages of QoS 2 half received.
fn protocol(doorkeeper: Arc<Doorkeeper>) -> BrokerConfig {
    BrokerConfig {
        bind_addresses: Vec::new(),
        max_packet_size: PACKET_BYTES_MAX,
        session_expiry_interval: SESSION_MAX,
        maximum_qos: 1,
        topic_alias_maximum: 0,
        retain_available: false,
        shared_subscription_available: false,
        max_subscriptions_per_client: SUBSCRIPTIONS_MAX,
        client_channel_capacity: LANE_FRAMES,
        max_outbound_inflight: WINDOW_FRAMES,
        sys_topics_enabled: false,
        event_handler: Some(doorkeeper),
        ..BrokerConfig::default()
    }
}

/// One listener.
struct Port {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    stop: broadcast::Sender<()>,
}

impl Port {
    async fn accept(self) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.recv() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection (is the limit of open files too low for `max_clients`?)");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                warn!(%peer, "connection refused: there are `max_clients` already");
                continue;
            };
            tokio::spawn(self.client(stream, peer, slot));
        }
    }

    /// One connection, from here to its end.
    fn client(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (acceptor, shared) = (self.acceptor.clone(), Arc::clone(&self.shared));
        let mut stop = self.stop.subscribe();
        async move {
            let transport = tokio::select! {
                transport = transport(stream, acceptor) => transport,
                _ = stop.recv() => return,
            };
            match transport {
                Ok(transport) => {
                    let Shared {
                        config,
                        router,
                        gate,
                        storage,
                        stats,
                        monitor,
                    } = &*shared;
                    let (end, ended) = broadcast::channel(1);
                    let handler = ClientHandler::new(
                        transport,
                        peer,
                        Arc::clone(config),
                        Arc::clone(router),
                        Arc::clone(gate) as Arc<dyn AuthProvider>,
                        storage.clone(),
                        Arc::clone(stats),
                        Arc::clone(monitor),
                        ended,
                    );
                    // Boxed: mqtt5's future is several kilobytes.
                    let mut running = Box::pin(handler.run());
                    let done = tokio::select! {
                        done = &mut running => done,
                        _ = stop.recv() => {
                            let _ = end.send(());
                            running.await
                        }
                        () = gate.until_revoked(peer) => {
                            info!(%peer, "put out: it was taken out of the fleet");
                            let _ = end.send(());
                            running.await
                        }
                    };
                    if let Some(client) = gate.left(peer) {
                        // What it had subscribed to must not be kept for it.
                        router.unregister_client(&client).await;
                    }
                    match done {
                        Ok(()) => debug!(%peer, "connection ended"),
                        Err(error) if error.is_normal_disconnect() => debug!(%peer, "connection ended"),
                        // The gate has said why.
                        Err(MqttError::AuthenticationFailed) => {}
                        Err(error) => warn!(%peer, "connection ended: {error}"),
                    }
                }
                Err(error) => warn!(%peer, "TLS handshake failed: {error}"),
            }
            drop(slot);
        }
    }
}

async fn transport(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<BrokerTransport> {
    // Frames are written whole; waiting to fill a segment only delays acknowledgements.
    stream.set_nodelay(true)?;
    match acceptor {
        None => Ok(BrokerTransport::tcp(stream)),
        Some(acceptor) => {
            let stream = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await??;
            Ok(BrokerTransport::tls(TlsStreamWrapper::new(stream)))
        }
    }
}

/// The users that were taken out of the fleet: a node id a line, as the plane writes them. `None`: it cannot be read now.
fn read_revoked(path: &Path) -> Option<HashSet<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        // Nobody ever was.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(HashSet::new()),
        Err(error) => {
            warn!(%error, path = %path.display(), "cannot read who was taken out of the fleet");
            return None;
        }
    };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, REVOKED_BYTES_MAX), &mut text).ok()?;
    Some(
        text.lines()
            .map(|line| line.trim().to_string())
            .filter(|line| !line.is_empty())
            .collect(),
    )
}

/// Looks at the list of those that were taken out of the fleet, until told to stop.
async fn watch_revoked(path: PathBuf, gate: Arc<Gate>, mut stop: broadcast::Receiver<()>) {
    let mut tick = interval(REVOKED_EVERY);
    let mut known = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.recv() => return,
        }
        // A look at the file's date is a microsecond; reading it, when it has changed, is a few.
        let looks = std::fs::metadata(&path)
            .ok()
            .map(|data| (data.modified().ok(), data.len()));
        if looks == known {
            continue;
        }
        if let Some(revoked) = read_revoked(&path) {
            gate.revoke(revoked);
            known = looks;
        }
    }
}

/// Throws away what has expired, until told to stop.
async fn sweep(shared: Arc<Shared>, mut stop: broadcast::Receiver<()>) {
    let mut tick = interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.recv() => return,
        }
        if let Some(storage) = &shared.storage
            && let Err(error) = storage.cleanup_expired().await
        {
            warn!(%error, "cannot clean the data directory");
        }
        shared.router.sweep_sessions().await;
    }
}
