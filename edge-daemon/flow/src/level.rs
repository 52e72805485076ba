//! Brings the leaves of a pipe to one mark before anything is read, so that the source goes on from one place for all of
//! them. They differ after a crash between two writes, after damage to one, and when one is new.

use crate::{
    Fault,
    backoff::Backoff,
    levelling::{Standing, levelling, order},
    pipe::{Leaf, Opened},
    runner::{End, Outcome, Surroundings},
    sink::{Delivery, Tally, Watermark},
    work::empty_batch,
};

/// Opens every leaf and brings all of them to one mark. Returns where the source goes on, and each leaf's mark.
/// [`End::Behind`]: one of them stands somewhere else now, and all of this has to begin anew.
pub(crate) async fn level(leaves: &[Leaf], around: &Surroundings) -> Result<(Watermark, Vec<Watermark>), End> {
    let mut standings = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        standings.push(until_it_works(leaf, around, Step::Look).await?);
    }
    if leaves.is_empty() {
        let cause = "a pipe needs at least one destination".to_string();
        return Err(Outcome::Failed(cause).into());
    }
    let levelling = levelling(&standings);
    if levelling.is_damage {
        // It gets what it lost once more, and so do its siblings: the only way that loses nothing.
        tracing::error!("a destination lost records that it had confirmed: they are read again for all of them");
    }
    for index in order(&standings) {
        let (leaf, from, to) = (&leaves[index], standings[index].mark.seq, levelling.to.seq);
        if from != to {
            tracing::info!(node = leaf.node, from, to, "brought to where its siblings are");
            let step = if levelling.rewinds {
                Step::Rewind(&levelling.to)
            } else {
                Step::Advance(&levelling.to)
            };
            standings[index] = until_it_works(leaf, around, step).await?;
        }
    }
    for (leaf, standing) in leaves.iter().zip(&standings) {
        let mut opened = leaf.sink.0.lock().await;
        opened.sink.begin(&leaf.stream, &standing.mark);
        opened.sink.recovered();
    }
    Ok((
        levelling.to,
        standings.into_iter().map(|standing| standing.mark).collect(),
    ))
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// Only see where it is.
    Look,
    /// Undo what is above a mark, then make sure that it is there.
    Rewind(&'a Watermark),
    /// Move on to a mark, without records.
    Advance(&'a Watermark),
}

async fn until_it_works(leaf: &Leaf, around: &Surroundings, step: Step<'_>) -> Result<Standing, End> {
    let mut backoff = Backoff::default();
    loop {
        let mut opened = leaf.sink.claim().await;
        let found = do_step(&mut opened, leaf, around, step).await;
        if found.is_err() {
            opened.close().await;
        }
        opened.done();
        // Others may have their turn while this one waits.
        drop(opened);
        match found {
            Ok(standing) => {
                leaf.meter.set(&standing.mark, 0);
                return Ok(standing);
            }
            Err(fault) => {
                let has_moved = matches!(fault, Fault::Moved { .. });
                around.recover(&leaf.node, fault, &mut backoff).await?;
                if has_moved {
                    return Err(End::Behind);
                }
            }
        }
    }
}

async fn do_step(opened: &mut Opened, leaf: &Leaf, around: &Surroundings, step: Step<'_>) -> Result<Standing, Fault> {
    let mut mark = open_leaf(opened, leaf, around).await?;
    if let Step::Rewind(to) = step
        && mark.seq > to.seq
    {
        opened.sink.rewind(&leaf.stream, to.seq).await?;
        mark = open_leaf(opened, leaf, around).await?;
    }
    // Also after going back: of marks without records a spool keeps only some, so it may have gone too far. Left there,
    // the next crash would take its siblings back there too, although what they have may have gone out by then.
    if let Step::Rewind(to) | Step::Advance(to) = step
        && mark.seq < to.seq
    {
        opened.sink.write(&[only_a_mark(leaf, to)]).await?;
        opened.sink.commit().await?;
        mark = open_leaf(opened, leaf, around).await?;
    }
    Ok(Standing {
        mark,
        gone_out: opened.sink.gone_out(&leaf.stream).await?,
    })
}

fn only_a_mark(leaf: &Leaf, mark: &Watermark) -> Delivery {
    Delivery {
        stream: leaf.stream,
        seq: mark.seq,
        position: mark.position.clone(),
        batch: empty_batch(),
        tally: Tally::default(),
        bytes: 0,
    }
}

/// Opens a leaf's sink if it is not, and reads the lineage's watermark.
pub(crate) async fn open_leaf(opened: &mut Opened, leaf: &Leaf, around: &Surroundings) -> Result<Watermark, Fault> {
    if !opened.is_open {
        opened.sink.open().await?;
        opened.is_open = true;
    }
    let mark = if opened.sink.keeps_watermark() {
        opened.sink.watermark(&leaf.stream).await
    } else {
        around.checkpoints.load(&leaf.stream).await
    };
    Ok(mark?.unwrap_or_default())
}
