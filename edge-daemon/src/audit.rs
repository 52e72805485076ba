//! The daemon's own audit: what it was told and given, by whom, and what came of it, as a chain of hashes. One small file, never
//! in memory for longer than it takes; what is too old is cut off, and the chain goes on from the hash that is kept.

use bus_link::home::{Home, HomeError};
use bus_schema::audit::{AUDIT_PAGE_MAX, AuditCall, AuditEntry, AuditEvent, AuditHead, AuditOutcome, AuditPage};

/// The file in the member's directory.
const FILE: &str = "audit";
/// Most entries that are kept: less than 100 KB.
const ENTRIES_MAX: usize = 400;
/// So many are cut off at a time.
const CUT: usize = 40;
/// Of them, those that came to nothing: who may nothing could push out what others did.
const REFUSED_MAX: usize = 100;

/// The file: the place after which the chain begins, and the chain.
type Kept = (AuditHead, Vec<AuditEntry>);

/// Only what is damaged is begun anew: what cannot be read just now must not be written over.
fn load(home: &Home) -> Result<Kept, HomeError> {
    match home.load_or_set_aside(FILE) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| bus_schema::decode(&bytes)).unwrap_or_default()),
        Err(error @ HomeError::Damaged { .. }) => {
            tracing::error!(%error, "the audit is lost; it begins anew");
            Ok(Kept::default())
        }
        Err(error) => Err(error),
    }
}

fn head(kept: &Kept) -> AuditHead {
    kept.1.last().map_or_else(|| kept.0.clone(), AuditHead::from)
}

/// Appends an entry. Durable before it returns.
pub fn append(home: &Home, event: AuditEvent) -> Result<(), HomeError> {
    let mut kept = load(home)?;
    let is_done = |event: &AuditEvent| event.outcome == AuditOutcome::Done;
    let refused = kept.1.iter().filter(|entry| !is_done(&entry.event)).count();
    if !is_done(&event) && refused >= REFUSED_MAX {
        tracing::warn!(
            who = event.who,
            action = event.action,
            "refused; the audit has many such entries already"
        );
        return Ok(());
    }
    let entry = head(&kept).next(event);
    kept.1.push(entry);
    if kept.1.len() > ENTRIES_MAX
        && let Some(last) = kept.1.drain(..CUT).next_back()
    {
        kept.0 = AuditHead::from(&last);
    }
    home.store(FILE, &bus_schema::encode(&kept))
}

/// Answers whoever asks for entries.
pub fn page(home: &Home, call: &AuditCall) -> AuditPage {
    let kept = load(home).unwrap_or_else(|error| {
        tracing::error!(%error, "the audit cannot be read now");
        Kept::default()
    });
    let head = head(&kept);
    let (cut, all) = kept;
    let entries = match call {
        AuditCall::Chain { after } => {
            let following = all.into_iter().filter(|entry| entry.number > *after);
            following.take(usize::from(AUDIT_PAGE_MAX)).collect()
        }
        AuditCall::Search { before, most, wish } => {
            let earlier = |entry: &AuditEntry| *before == 0 || entry.number < *before;
            let wanted = all
                .into_iter()
                .rev()
                .filter(|entry| earlier(entry) && entry.event.matches(wish));
            wanted.take(usize::from((*most).min(AUDIT_PAGE_MAX))).collect()
        }
    };
    AuditPage { cut, entries, head }
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::{AuditFault, AuditWish};

    use super::*;

    fn event(n: usize) -> AuditEvent {
        AuditEvent::new(n as i64, "anna", "bus", "restart", &format!("shop-{n}"))
    }

    fn check(page: &AuditPage) -> Result<(), AuditFault> {
        let mut from = page.cut.clone();
        page.entries.iter().try_for_each(|entry| from.take(entry))?;
        from.ends(&page.head)
    }

    fn whole(home: &Home) -> AuditPage {
        let mut whole = page(home, &AuditCall::Chain { after: 0 });
        while let Some(after) = whole.entries.last().map(|entry| entry.number) {
            let more = page(home, &AuditCall::Chain { after });
            if more.entries.is_empty() {
                break;
            }
            whole.entries.extend(more.entries);
        }
        whole
    }

    #[test]
    fn it_lasts_is_bounded_and_its_chain_holds() {
        let dir = testkit::temp_dir("audit");
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(check(&whole(&home)), Ok(()), "an empty one");
        for n in 1..=ENTRIES_MAX + 5 {
            append(&home, event(n)).unwrap();
        }
        let whole = whole(&home);
        assert_eq!(check(&whole), Ok(()));
        assert_eq!(
            (whole.cut.number, whole.head.number),
            (CUT as u64, ENTRIES_MAX as u64 + 5)
        );
        assert!(std::fs::metadata(dir.path().join(FILE)).unwrap().len() < 100_000);
        for spoil in [0, 1, 2] {
            let mut spoilt = whole.clone();
            match spoil {
                0 => spoilt.entries[7].event.who = "bert".to_string(),
                1 => drop(spoilt.entries.remove(7)),
                _ => spoilt.entries.swap(7, 8),
            }
            assert!(check(&spoilt).is_err(), "{spoil}");
        }
        let wish = AuditWish {
            search: "shop-40".to_string(),
            ..AuditWish::default()
        };
        let search = AuditCall::Search {
            before: 0,
            most: 2,
            wish,
        };
        let found: Vec<u64> = page(&home, &search).entries.iter().map(|entry| entry.number).collect();
        assert_eq!(found, [405, 404]);
        // Who may nothing pushes nothing out.
        let refused = || event(1).but(AuditOutcome::Refused, "no");
        (0..ENTRIES_MAX).for_each(|_| append(&home, refused()).unwrap());
        let kept = page(&home, &AuditCall::Chain { after: 0 });
        assert!(kept.head.number <= (ENTRIES_MAX + 5 + REFUSED_MAX) as u64);
        #[cfg(unix)]
        {
            // What cannot be read now (here: a link to itself) is not written over.
            let (file, away) = (dir.path().join(FILE), dir.path().join("away"));
            std::fs::rename(&file, &away).unwrap();
            std::os::unix::fs::symlink(&file, &file).unwrap();
            append(&home, event(1)).unwrap_err();
            std::fs::rename(&away, &file).unwrap();
            assert_eq!(page(&home, &AuditCall::Chain { after: 0 }).head, kept.head);
        }
        // A file that is damaged is set aside; whoever remembers the chain sees that it began anew.
        std::fs::write(dir.path().join(FILE), b"rubbish").unwrap();
        append(&home, event(1)).unwrap();
        assert_eq!(page(&home, &AuditCall::Chain { after: 0 }).head.number, 1);
    }
}
