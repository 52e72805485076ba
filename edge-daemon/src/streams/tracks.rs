//! Live data first: a sink over two streams that take turns. After an outage one of them has the backlog, and the other takes
//! what is produced now and sends first. Each record goes into exactly one of them; [`stream::tracks`] decides into which.
//! Deletes nothing, and knows no frames.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use async_trait::async_trait;
use bus_schema::{id::StreamId, message::Resume};
use flow::{Counts, Delivery, Fault, Position, Rejected, Sink, Tally, Watermark};
use stream::tracks::{self, Behind, Found, Track, TrackPosition, Verdict};

use super::{
    append::{Appending, Elder, FULL_WAIT},
    outgoing::{Outgoing, View},
};

/// Two streams of one edge.
pub struct Tracks {
    outs: [Arc<Outgoing>; 2],
    /// Up to where each of them was appended.
    appended: [u64; 2],
    /// Which life of each of them the pipe knows of.
    lives: Option<[u64; 2]>,
}

/// What a track takes of the room that both have.
struct Backlog {
    out: Arc<Outgoing>,
    quota_bytes: u64,
}

impl Backlog {
    /// What it leaves to the other one.
    fn leaves(&self) -> u64 {
        self.quota_bytes.saturating_sub(self.out.view().state.disk_bytes)
    }
}

impl Elder for Backlog {
    fn give_way(&self) -> Result<Option<u64>, Fault> {
        let gave = self.out.give_up_oldest()?;
        Ok(gave.then(|| self.leaves()))
    }
}

fn newest(view: &View) -> u64 {
    view.state.mark.as_ref().map_or(0, |mark| mark.root_seq)
}

/// A track as its turn is decided. One whose backlog is through has no outage behind it any more.
fn track(out: &Outgoing, view: &View) -> Track {
    let track = Track {
        newest: newest(view),
        held_bytes: view.state.held_payload_bytes,
        is_drained: view.state.watermark_seq + 1 >= view.state.next_seq && view.book.owed == 0,
        had_outage: out.had_outage.load(Ordering::Relaxed),
        moves: out.moves.load(Ordering::Relaxed),
    };
    if track.has_caught_up() {
        out.had_outage.store(false, Ordering::Relaxed);
    }
    track
}

/// A track as its mark is judged, with what the consumer told of it, if it asked.
fn found(view: &View, told: Option<&Option<Resume>>) -> Found {
    let View {
        state, book, lineage, ..
    } = view;
    let here = Found {
        epoch: lineage.epoch,
        asks: false,
        last_seq: state.next_seq - 1,
        newest: newest(view),
        behind: book.behind,
        ended: book.ended,
        given: book.given,
        was_copy: lineage.was_copy,
    };
    let Some(told) = told else { return here };
    let mark = told.as_ref().and_then(|resume| resume.mark.as_ref());
    Found {
        asks: true,
        newest: mark.map_or(0, |mark| mark.root_seq),
        behind: mark.and_then(|mark| TrackPosition::decode(&mark.position).behind),
        ended: told.as_ref().map(Behind::of),
        ..here
    }
}

/// The counts of two tracks together.
fn both(first: Counts, second: Counts) -> Counts {
    Counts {
        dead: first.dead + second.dead,
        dropped: first.dropped + second.dropped,
        duplicates: first.duplicates + second.duplicates,
        unconfirmed: first.unconfirmed + second.unconfirmed,
        gaps: first.gaps + second.gaps,
        replay: first.replay.max(second.replay),
        filtered: first.filtered + second.filtered,
    }
}

/// Runs what takes time on the disk.
async fn on_disk<T: Send + 'static>(run: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(run).await;
    done.map_err(|error| Fault::retry(error.to_string()))?
}

impl Tracks {
    /// The sink of an edge's two streams.
    pub fn sink(outs: [Arc<Outgoing>; 2]) -> Box<dyn Sink> {
        for (out, other) in [(&outs[0], &outs[1]), (&outs[1], &outs[0])] {
            // Each is in one sink, which is made once.
            let _is_new = out.other.set(Arc::downgrade(other));
        }
        Box::new(Self {
            outs,
            appended: [0; 2],
            lives: None,
        })
    }

    fn views(&self) -> [View; 2] {
        self.outs.each_ref().map(|out| out.view())
    }

    /// One of them has begun anew since the pipe last asked where they stand.
    fn replaced(&self) -> Fault {
        Fault::Moved {
            cause: format!("a buffer of {} was replaced", self.outs[0].spec.edge),
        }
    }

    /// After a loss: makes sure that the newer mark stands on what is really there.
    async fn settle(&self) -> Result<(), Fault> {
        if !self.outs[0].replays {
            // Nothing comes again from such a source, so there is nowhere to go back to.
            return Ok(());
        }
        let told = [self.outs[0].told().await?, self.outs[1].told().await?];
        let views = self.views();
        let found = [found(&views[0], told[0].as_ref()), found(&views[1], told[1].as_ref())];
        let forgets = match tracks::verdict(&found) {
            Verdict::Holds => None,
            Verdict::Forget(track) if told[track].is_some() => Some(track),
            Verdict::Forget(track) => {
                let out = Arc::clone(&self.outs[track]);
                let why = "its other track lost records that were read before what this one has: they are read again";
                on_disk(move || out.start_over(0, false, why)).await?;
                return Err(Fault::retry(format!(
                    "{} lost a buffer and begins anew",
                    self.outs[0].spec.edge
                )));
            }
            Verdict::Ask(track) => {
                let out = Arc::clone(&self.outs[track]);
                on_disk(move || out.ask()).await?;
                return Err(Fault::retry(format!("{} lost a buffer", self.outs[track].spec.edge)));
            }
        };
        for (track, told) in told.into_iter().enumerate() {
            let Some(resume) = told else { continue };
            let out = Arc::clone(&self.outs[track]);
            let holds = forgets != Some(track);
            on_disk(move || out.with_store(|store| out.go_on_from(store, resume.as_ref(), holds))).await?;
        }
        Ok(())
    }

    /// Lets each of them know who sends first.
    fn lead(&self, leader: usize) {
        for (track, out) in self.outs.iter().enumerate() {
            out.yields.store(track != leader, Ordering::Relaxed);
        }
    }

    /// Appends to the track whose turn it is.
    async fn append(&mut self, deliveries: &[Delivery]) -> Result<Result<Vec<Rejected>, String>, Fault> {
        let views = self.views();
        let lives = views.each_ref().map(|view| view.life);
        if self.lives != Some(lives) {
            return Err(self.replaced());
        }
        let states = [track(&self.outs[0], &views[0]), track(&self.outs[1], &views[1])];
        let (was, now) = (tracks::current(states.map(|track| track.newest)), tracks::turn(&states));
        let other = &views[1 - now];
        let begins = (was != now).then_some(Behind {
            epoch: other.lineage.epoch,
            seq: other.state.next_seq - 1,
            told: other.book.told,
        });
        let out = Arc::clone(&self.outs[now]);
        let backlog = Backlog {
            quota_bytes: out.spec.spool.quota_bytes,
            out: Arc::clone(&self.outs[1 - now]),
        };
        let (owned, life) = (deliveries.to_vec(), lives[now]);
        let append = move || {
            out.with_store(|store| {
                // Looked at while the store is held: nobody can replace the buffer in between.
                if out.view().life != life {
                    return Ok(None);
                }
                if begins.is_some() {
                    backlog.out.give_turn(store.lineage.epoch)?;
                }
                store.spool()?.set_quota(backlog.leaves());
                let dead = store.book.counts.dead;
                let appended = out.append(store, &owned, begins, &backlog);
                if let Ok((_, rejected)) = &appended {
                    let sum = |of: fn(&Tally) -> u64| owned.iter().map(|delivery| of(&delivery.tally)).sum::<u64>();
                    let dead = dead + sum(|tally| tally.dead) + rejected.len() as u64;
                    let elsewhere = sum(|tally| tally.revived).saturating_sub(dead);
                    if elsewhere > 0 {
                        // The records are durable by now: this must not make it look otherwise.
                        if let Err(fault) = backlog.out.revived_elsewhere(elsewhere) {
                            tracing::warn!(edge = backlog.out.spec.edge, %fault, "its dead letters count too many by those revived");
                        }
                    }
                }
                Ok(Some(appended))
            })
        };
        let appended = on_disk(append).await?;
        match appended.ok_or_else(|| self.replaced())? {
            Ok((last, rejected)) => {
                if begins.is_some() {
                    let edge = &self.outs[now].spec.edge;
                    tracing::info!(
                        edge,
                        "live data goes before the backlog of {}",
                        self.outs[1 - now].spec.edge
                    );
                }
                self.appended[now] = last;
                self.lead(now);
                Ok(Ok(rejected))
            }
            Err(Appending::Fault(fault)) => Err(fault),
            Err(Appending::Full(cause)) => Ok(Err(cause)),
        }
    }
}

#[async_trait]
impl Sink for Tracks {
    async fn open(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        if self.has_moved() {
            // Told once: what was decided by the old one's place must be decided anew.
            self.lives = None;
            return Err(self.replaced());
        }
        self.settle().await?;
        let views = self.views();
        let lives = views.each_ref().map(|view| view.life);
        if *self.lives.get_or_insert(lives) != lives {
            self.lives = None;
            return Err(self.replaced());
        }
        let now = tracks::current(views.each_ref().map(newest));
        let [first, second] = views.each_ref();
        let delivered = |view: &View| view.state.produced_records + view.book.dropped + view.book.counts.unconfirmed;
        Ok(views[now].state.mark.as_ref().map(|mark| Watermark {
            seq: mark.root_seq,
            position: Position::new(views[now].book.position.clone()),
            delivered: delivered(first) + delivered(second),
            counts: both(first.book.counts, second.book.counts),
        }))
    }

    async fn gone_out(&mut self, _: &StreamId) -> Result<u64, Fault> {
        let gone = |out: &Arc<Outgoing>| out.view().book.gone.max(out.gone.load(Ordering::Relaxed));
        let gone = gone(&self.outs[0]).max(gone(&self.outs[1]));
        let views = self.views();
        let tracks = views.each_ref().map(|view| found(view, None));
        let is_lost = !self.outs[0].replays && tracks::has_lost_a_turn(&tracks);
        // Behind what is lost nobody goes back.
        let lost = tracks.iter().map(|track| track.newest + 1).max().filter(|_| is_lost);
        Ok(gone.max(lost.unwrap_or(0)))
    }

    fn has_moved(&self) -> bool {
        let lives = self.views().map(|view| view.life);
        self.lives.is_some_and(|known| known != lives)
    }

    fn refuses(&self, deliveries: &[Delivery]) -> Vec<Rejected> {
        self.outs[0].refuses(deliveries)
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let give_up = Instant::now() + FULL_WAIT;
        loop {
            let cause = match self.append(deliveries).await? {
                Ok(rejected) => return Ok(rejected),
                Err(cause) => cause,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let edge = &self.outs[0].spec.edge;
                return Err(Fault::retry(format!("the buffer of {edge} is full, waiting: {cause}")));
            }
            tokio::select! {
                () = self.outs[0].trimmed.notified() => {}
                () = self.outs[1].trimmed.notified() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        crash_point::at!(OutgoingBeforeRelease);
        let lives = self
            .lives
            .filter(|_| !self.has_moved())
            .ok_or_else(|| self.replaced())?;
        for (track, out) in self.outs.iter().enumerate() {
            if !out.release(lives[track], self.appended[track]) {
                return Err(self.replaced());
            }
        }
        crash_point::at!(OutgoingAfterRelease);
        Ok(())
    }

    async fn rewind(&mut self, _: &StreamId, seq: u64) -> Result<(), Fault> {
        // The newer one first: a crash in between leaves the older one where it is, and all of this begins anew.
        let now = tracks::current(self.views().each_ref().map(newest));
        for track in [now, 1 - now] {
            let (out, life) = (Arc::clone(&self.outs[track]), self.lives.map(|lives| lives[track]));
            let go_back = move || {
                out.with_store(|store| {
                    let is_same = Some(out.view().life) == life;
                    if is_same { out.go_back(store, seq) } else { Ok(()) }
                })
            };
            on_disk(go_back).await?;
        }
        Ok(())
    }

    fn recovered(&mut self) {
        self.appended = std::array::from_fn(|track| {
            let life = self.lives.map(|lives| lives[track]);
            self.outs[track].let_all_go(life)
        });
        self.lead(tracks::current(self.views().each_ref().map(newest)));
    }
}
