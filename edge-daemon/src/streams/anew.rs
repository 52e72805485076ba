//! A stream whose buffer or key is lost, or came back older: begins a new epoch, and asks its consumer how far the source was
//! read. Sends nothing, and decides nothing about the other track.

use std::sync::{Arc, Weak, atomic::Ordering};

use bus_schema::message::Resume;
use flow::Fault;
use spool::Mark;
use stream::{
    lineage::next_epoch,
    tracks::{self, Behind, TrackPosition},
};

use super::outgoing::{
    Bookmark, Left, Lineage, Outgoing, Store, lock, make_lineage, read_book, replace_spool, save_lineage, spool_fault,
};

impl Outgoing {
    /// After a loss: waits a while for the consumer to say how far the source was read, and keeps the answer.
    pub(super) async fn recall(self: &Arc<Self>) -> Result<(), Fault> {
        let Some(resume) = self.told().await? else {
            return Ok(());
        };
        let this = Arc::clone(self);
        let keep = move || this.with_store(|store| this.go_on_from(store, resume.as_ref(), true));
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|error| Fault::retry(error.to_string()))?
    }

    /// After a loss: waits a while for the consumer to say where the epoch before this one ended. `None` when nothing is
    /// asked.
    pub(super) async fn told(&self) -> Result<Option<Option<Resume>>, Fault> {
        let lineage = self.view().lineage;
        if !lineage.asks {
            return Ok(None);
        }
        let mut answer = self.answer.subscribe();
        let wait = answer.wait_for(|answer| answer.as_ref().is_some_and(|(epoch, _)| *epoch == lineage.epoch));
        let heard = tokio::time::timeout(flow::READ_WAIT_MAX * 4, wait).await;
        match heard.map(|heard| heard.map(|answer| answer.clone())) {
            Ok(Ok(heard)) => Ok(Some(heard.and_then(|(_, resume)| resume))),
            _ => Err(Fault::retry(format!(
                "{} lost its buffer: waiting for the consumer to say how far it came",
                self.spec.edge
            ))),
        }
    }

    /// Keeps what the consumer said. `holds`: its mark of the source counts. Blocks.
    pub(super) fn go_on_from(&self, store: &mut Store, resume: Option<&Resume>, holds: bool) -> Result<(), Fault> {
        if !store.lineage.asks {
            // Settled meanwhile.
            return Ok(());
        }
        let mark = resume.and_then(|resume| resume.mark.as_ref()).filter(|_| holds);
        tracing::warn!(
            edge = self.spec.edge,
            root_seq = mark.map(|mark| mark.root_seq),
            "the source goes on from where the consumer is"
        );
        // Even when the consumer has nothing: a stream without any mark would pass for a new one, which begins where its
        // siblings are.
        let (root_seq, position) = mark.map_or((1, &[][..]), |mark| (mark.root_seq, &mark.position));
        let TrackPosition { position, behind } = TrackPosition::decode(position);
        let book = Bookmark {
            position,
            // What came after this mark was in the buffer that is lost; the pipe's other streams may have sent theirs, and
            // must not go back behind it.
            gone: root_seq + 1,
            behind,
            ended: resume.map(Behind::of),
            told: mark.map(tracks::print),
            ..store.book.clone()
        };
        let mark = Mark {
            root_seq,
            position: bus_schema::encode(&book),
        };
        let spool = store.spool()?;
        // A crash may have come between this and the lineage: then it is kept already.
        if spool.state().mark.is_none_or(|kept| kept.root_seq < mark.root_seq) {
            let appended = spool.append(&[], &mark);
            appended.map_err(|error| spool_fault(&self.spec, error))?;
            store.book = book;
        }
        let lineage = Lineage {
            asks: false,
            begun: true,
            ..store.lineage.clone()
        };
        save_lineage(&self.home, &self.spec, &lineage)?;
        store.lineage = lineage;
        Ok(())
    }

    /// This track lost every trace of itself, and its twin knows that there was something: it asks the consumer. Blocks.
    pub(super) fn ask(&self) -> Result<(), Fault> {
        self.with_store(|store| {
            let lineage = Lineage {
                asks: true,
                begun: true,
                is_first: false,
                ..store.lineage.clone()
            };
            save_lineage(&self.home, &self.spec, &lineage)?;
            store.lineage = lineage;
            Ok(())
        })
    }

    /// This buffer cannot go on: it was restored from an older copy, or what was found of the stream is not all there was.
    /// What it holds is set aside, and the source goes on from where the consumer is, in an epoch above its own and `known`.
    /// Blocks.
    pub(super) fn start_over(&self, known: u64, was_copy: bool, why: &str) -> Result<(), Fault> {
        self.with_store(|store| self.replace(store, known, was_copy, why))
    }

    /// The same with the other track, if there is one: an older copy is one of both, and the other may not notice. Blocks.
    pub(super) fn start_both_over(&self, known: u64, why: &str) -> Result<(), Fault> {
        // First: a crash in between leaves this one to notice again.
        if let Some(other) = self.other.get().and_then(Weak::upgrade) {
            let there = other.view();
            // An attempt that failed on this one need not do it to the other once more.
            let is_done = there.lineage.was_copy && there.state.watermark_seq == 0;
            if !is_done {
                other.start_over(0, true, why)?;
            }
        }
        self.start_over(known, true, why)
    }

    /// The same, under the lock of the store.
    pub(super) fn replace(&self, store: &mut Store, known: u64, was_copy: bool, why: &str) -> Result<(), Fault> {
        let epoch = next_epoch(self.secure.epoch(), store.lineage.epoch.max(known));
        let mut lineage = Lineage {
            clears: true,
            was_copy,
            ..make_lineage(epoch, self.replays)?
        };
        tracing::error!(
            edge = self.spec.edge,
            before = store.lineage.epoch,
            epoch = lineage.epoch,
            why,
            "the stream begins a new epoch"
        );
        let gone = store.book.gone.max(self.gone.load(Ordering::Relaxed));
        save_lineage(&self.home, &self.spec, &lineage)?;
        // Without one, an earlier attempt came only half-way.
        let kept = || lock(&self.view).state.clone();
        let state = store.spool.take().map_or_else(kept, |spool| spool.state());
        let left = Left { gone, state: &state };
        let spool = replace_spool(&self.home, &self.budget, &self.spec, &left, self.replays)?;
        lineage.clears = false;
        save_lineage(&self.home, &self.spec, &lineage)?;
        store.book = read_book(&spool.state());
        store.lineage = lineage;
        lock(&self.recent).clear();
        self.sent.store(0, Ordering::Relaxed);
        // In one: what an earlier life appended must not be released any more, and nobody may take the old account for that
        // of the new life.
        let mut view = lock(&self.view);
        view.life += 1;
        view.state = spool.state();
        view.book = store.book.clone();
        view.lineage = store.lineage.clone();
        store.spool = Some(spool);
        self.gone.store(0, Ordering::Relaxed);
        self.released.send_replace(0);
        drop(view);
        // For the courier, if it was not the one.
        self.acked.notify_one();
        Ok(())
    }
}
