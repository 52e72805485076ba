//! The one thread that touches the disk: store and home are moved in, jobs come over a bounded queue. Decides nothing.

use std::{path::Path, thread::JoinHandle};

use bus_link::home::{Home, HomeError, Membership};
use bus_schema::{
    id::NodeId,
    member::{GroupKey, Roster, Signed},
};
use tokio::sync::{mpsc, oneshot};

use crate::store::{Store, history::History};

/// Jobs waiting for the disk.
const JOBS_MAX: usize = 64;

/// What the disk thread holds.
#[derive(Debug)]
pub struct Files {
    /// The store.
    pub store: Store,
    /// The history of metrics.
    pub history: History,
    /// The plane's own keys and membership.
    pub home: Home,
    /// As last saved in `home`.
    pub membership: Membership,
}

impl Files {
    /// Keeps a newer roster beside the keys: with it, a lost store can be made again.
    pub fn save_roster(&mut self, roster: Signed<Roster>) -> Result<(), HomeError> {
        self.membership.roster = roster;
        self.home.save_membership(&self.membership)
    }
}

impl Files {
    /// Keeps a newer roster and a new group key beside the keys, at once: from now on there is no way back.
    pub fn save_roster_and_group(&mut self, roster: Signed<Roster>, group: GroupKey) -> Result<(), HomeError> {
        let before = self.membership.clone();
        (self.membership.roster, self.membership.group) = (roster, group);
        let saved = self.home.save_membership(&self.membership);
        if saved.is_err() {
            self.membership = before;
        }
        saved
    }
}

/// Tells the embedded broker who was taken out of the fleet: a node id a line, in a file beside its secret.
pub fn save_revoked(path: &Path, revoked: &[NodeId]) -> std::io::Result<()> {
    let text: String = revoked.iter().map(|node| format!("{node}\n")).collect();
    if revoked.is_empty() && !path.exists() || std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, path)
}

type Job = Box<dyn FnOnce(&mut Files) + Send>;

/// The disk thread has ended: the plane is shutting down, or the disk has failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is closed")]
pub struct Closed;

/// Access to the disk thread. Clones share it; it ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
}

impl Disk {
    /// Starts the thread. Join it to be sure that everything is written.
    pub fn start(mut files: Files) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, mut incoming) = mpsc::channel::<Job>(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("disk".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                while let Some(job) = incoming.blocking_recv() {
                    job(&mut files);
                }
            })?;
        Ok((Self { jobs }, thread))
    }

    /// Runs a job and waits for what it returns. Jobs run in the order given.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Files) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |files| {
            let _ = done.send(job(files));
        });
        self.jobs.send(job).await.map_err(|_| Closed)?;
        result.await.map_err(|_| Closed)
    }
}
