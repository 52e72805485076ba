//! Where the leaves of a pipe meet before anything is read, after a crash between two writes, damage to one, or when one is
//! new. Pure: `level` looks and does, this decides.

use crate::sink::Watermark;

/// Where one leaf stands. A seq of 0: it never had anything.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its watermark.
    pub mark: Watermark,
    /// What may have gone out already cannot be taken back.
    pub gone_out: u64,
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Levelling {
    /// Where all of them go.
    pub to: Watermark,
    /// Those above it are taken back; without this, it is above all of them.
    pub rewinds: bool,
    /// One of them lost what it had confirmed.
    pub is_damage: bool,
}

/// In which order it is done, by index: from the highest down, and the lowest last. A crash meanwhile leaves the lowest where
/// it is, and all of this begins anew. One that never had anything is no lower than any: it goes first.
pub fn order(standings: &[Standing]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..standings.len()).collect();
    // 0 becomes the greatest.
    order.sort_by_key(|index| std::cmp::Reverse(standings[*index].mark.seq.wrapping_sub(1)));
    order
}

/// Decides it.
pub fn levelling(standings: &[Standing]) -> Levelling {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    #[test]
    fn the_lowest_is_moved_last() {
        for (seqs, expected) in [
            (vec![3, 9, 5], vec![1, 2, 0]),
            (vec![8, 0], vec![1, 0]),
            (vec![0, 8, 9], vec![0, 2, 1]),
        ] {
            let standing = |seq: &u64| Standing {
                mark: Watermark {
                    seq: *seq,
                    ..Watermark::default()
                },
                gone_out: 0,
            };
            let standings: Vec<_> = seqs.iter().map(standing).collect();
            assert_eq!(order(&standings), expected, "{seqs:?}");
        }
    }

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
