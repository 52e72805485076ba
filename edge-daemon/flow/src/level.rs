//! Brings the leaves of a pipe to one mark before anything is read, so that the source goes on from one place for all of
//! them. They differ after a crash between two writes, after damage to one, and when one is new.

use crate::{
    Fault,
    backoff::Backoff,
    pipe::{Leaf, Opened},
    runner::{Outcome, Surroundings},
    sink::{Delivery, Tally, Watermark},
    work::empty_batch,
};

/// Where one leaf stands. A seq of 0: it never had anything.
struct Standing {
    mark: Watermark,
    /// What may have gone out already cannot be taken back.
    gone_out: u64,
}

/// What has to be done. Pure.
#[derive(Debug, PartialEq, Eq)]
struct Levelling {
    /// Where all of them go.
    to: Watermark,
    /// Those above it are taken back; without this, it is above all of them.
    rewinds: bool,
    /// One of them lost what it had confirmed.
    is_damage: bool,
}

fn levelling(standings: &[Standing]) -> Levelling {
    let begun = || {
        standings
            .iter()
            .map(|standing| &standing.mark)
            .filter(|mark| mark.seq > 0)
    };
    let Some(lowest) = begun().min_by_key(|mark| mark.seq) else {
        // Several that begin get a mark of their own first: one without any is then known to be new, and not to have
        // missed the very first batch because of a crash.
        let seq = u64::from(standings.len() > 1);
        return Levelling {
            to: Watermark {
                seq,
                ..Watermark::default()
            },
            rewinds: false,
            is_damage: false,
        };
    };
    let floor = standings.iter().map(|standing| standing.gone_out).max().unwrap_or(0);
    if floor <= lowest.seq {
        return Levelling {
            to: lowest.clone(),
            rewinds: true,
            is_damage: false,
        };
    }
    let highest = begun().map(|mark| mark.seq).max().unwrap_or(0).max(floor);
    Levelling {
        to: Watermark {
            seq: highest + 1,
            ..lowest.clone()
        },
        rewinds: false,
        is_damage: true,
    }
}

/// Opens every leaf and brings all of them to one mark. Returns where the source goes on, and each leaf's mark.
pub(crate) async fn level(leaves: &[Leaf], around: &Surroundings) -> Result<(Watermark, Vec<Watermark>), Outcome> {
    let mut standings = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        standings.push(until_it_works(leaf, around, Step::Look).await?);
    }
    if leaves.is_empty() {
        return Err(Outcome::Failed("a pipe needs at least one destination".to_string()));
    }
    let levelling = levelling(&standings);
    if levelling.is_damage {
        // It gets what it lost once more, and so do its siblings: the only way that loses nothing.
        tracing::error!("a destination lost records that it had confirmed: they are read again for all of them");
    }
    // From the highest down: a crash meanwhile leaves the lowest where it is, and all of this begins anew.
    let mut order: Vec<usize> = (0..leaves.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(standings[*index].mark.seq));
    for index in order {
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
    for leaf in leaves {
        leaf.sink.0.lock().await.sink.recovered();
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

async fn until_it_works(leaf: &Leaf, around: &Surroundings, step: Step<'_>) -> Result<Standing, Outcome> {
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
            Err(fault) => around.recover(&leaf.node, fault, &mut backoff).await?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    #[test]
    fn leaves_meet_where_nothing_is_lost() {
        // (mark, gone out) of each leaf; where to: (seq, by going back, damage, whose position)
        for (leaves, (seq, rewinds, is_damage, position)) in [
            // A single one is where it is.
            (vec![(0, 0)], (0, false, false, 0)),
            (vec![(7, 6)], (7, true, false, 7)),
            // Several that begin.
            (vec![(0, 0), (0, 0)], (1, false, false, 0)),
            // A crash while they began: the one without a mark joins the other.
            (vec![(1, 0), (0, 0)], (1, true, false, 1)),
            // A crash between two writes.
            (vec![(3, 1), (1, 0)], (1, true, false, 1)),
            (vec![(9, 7), (7, 5), (8, 7)], (7, true, false, 7)),
            // A new one beside old ones starts with them, not at the beginning.
            (vec![(9, 8), (0, 0)], (9, true, false, 9)),
            (vec![(9, 8), (0, 0), (8, 5)], (8, true, false, 8)),
            // Damage: one is behind what another has sent, or knows that it lost something.
            (vec![(9, 8), (5, 4)], (10, false, true, 5)),
            (vec![(9, 8), (8, 9)], (10, false, true, 8)),
            (vec![(4, 5)], (6, false, true, 4)),
        ] {
            let mark = |seq: u64| Watermark {
                seq,
                position: Position::new(vec![seq as u8]),
                ..Watermark::default()
            };
            let standings: Vec<_> = leaves
                .iter()
                .map(|(seq, gone_out)| Standing {
                    mark: mark(*seq),
                    gone_out: *gone_out,
                })
                .collect();
            let found = levelling(&standings);
            assert_eq!(
                (found.to.seq, found.rewinds, found.is_damage),
                (seq, rewinds, is_damage),
                "{leaves:?}"
            );
            let expected = if position == 0 {
                Position::default()
            } else {
                mark(position).position
            };
            assert_eq!(found.to.position, expected, "{leaves:?}");
        }
    }
}
