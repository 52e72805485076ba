//! What becomes of a stream's numbering after a loss: the epoch that follows, and how far back it goes when its siblings have
//! less. Pure.

/// Of an epoch, the bits that count those begun within one start of the daemon.
const EPOCHS_PER_BOOT_BITS: u32 = 16;

/// The next epoch of a stream: above every one that is known, and above all that an earlier start of the daemon can have
/// begun, also when what told of them is lost.
pub fn next_epoch(boot: u64, known: u64) -> u64 {
    (boot << EPOCHS_PER_BOOT_BITS).max(known.saturating_add(1))
}

/// Where a roll-back of a spool would lead. The numbers are the root's seqs of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To where it was asked, or to an older mark with no frames in between (0: before the first mark).
    Whole(u64),
    /// Only further: the mark that was asked for is lost to damage, and with it which frames belong to it.
    Further(u64),
    /// Nowhere: what was delivered or given up is in the way, or every mark that is old enough is gone.
    Barred,
}

/// How a stream goes back to where a sibling is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// There.
    To,
    /// Further; the siblings follow, or all of them read again what it lost.
    Further,
    /// It begins anew where its consumer is: what it would have to take back may have been sent.
    Anew,
    /// Not at all, for nobody would give it again: everybody goes on above what it holds.
    Stays,
}

/// Decides it. `gone`: the root's seq up to which frames may have left; `given_up`: records that only the mark accounts for;
/// `replays`: the source can read again from a position.
pub fn back(way: Way, gone: u64, given_up: u64, replays: bool) -> Back {
    match way {
        // Before its first mark there is no account of what was given up.
        Way::Whole(0) if given_up > 0 && !replays => Back::Stays,
        Way::Whole(_) => Back::To,
        // Without a mark it would pass for a new one, which begins where its siblings are.
        Way::Further(found) if replays && found > 0 && gone <= found => Back::Further,
        Way::Further(_) | Way::Barred if replays => Back::Anew,
        Way::Further(_) | Way::Barred => Back::Stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_start_repeats_an_epoch_of_another() {
        // (boot, known, next)
        for (boot, known, next) in [
            (1, 0, 1 << 16),
            // Begun anew while it runs.
            (1, 1 << 16, (1 << 16) + 1),
            // What told of that is lost, but the daemon has started since.
            (2, 0, 2 << 16),
            (2, (1 << 16) + 1, 2 << 16),
            // The consumer knows a newer one: this is a copy of old files.
            (2, 9 << 16, (9 << 16) + 1),
        ] {
            assert_eq!(next_epoch(boot, known), next, "{boot} {known}");
        }
    }

    #[test]
    fn a_stream_goes_back_only_where_nothing_is_lost_or_doubled() {
        // (way, may have left up to, given up, the source can read again, what is done)
        for (way, gone, given_up, replays, expected) in [
            (Way::Whole(7), 7, 3, true, Back::To),
            (Way::Whole(7), 7, 3, false, Back::To),
            (Way::Whole(0), 0, 3, true, Back::To),
            (Way::Whole(0), 0, 0, false, Back::To),
            (Way::Whole(0), 0, 3, false, Back::Stays),
            (Way::Further(5), 5, 0, true, Back::Further),
            // What lies between may be on its way.
            (Way::Further(5), 6, 0, true, Back::Anew),
            (Way::Further(0), 0, 0, true, Back::Anew),
            (Way::Barred, 0, 0, true, Back::Anew),
            (Way::Further(5), 5, 0, false, Back::Stays),
            (Way::Barred, 5, 0, false, Back::Stays),
        ] {
            assert_eq!(back(way, gone, given_up, replays), expected, "{way:?} {gone} {replays}");
        }
    }
}
