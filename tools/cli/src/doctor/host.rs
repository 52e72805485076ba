//! This host, as far as the operator's keys need it: who else can read them, and whether there is room to keep them.

use std::path::Path;

use super::{Report, Verdict};
use crate::render;

/// With less room than this, in bytes, the keys' files soon cannot be replaced.
const ROOM_BYTES_MIN: u64 = 16 << 20;

/// Looks at the directory of the keys.
pub fn look(dir: &Path, report: &mut Report) {
    #[cfg(unix)]
    {
        rights(dir, report);
        room(dir, report);
    }
    #[cfg(not(unix))]
    report.good("rights", format!("{}: as the system gives them", dir.display()));
}

/// Only the operator may read what is in it.
#[cfg(unix)]
fn rights(dir: &Path, report: &mut Report) {
    use std::os::unix::fs::PermissionsExt as _;
    const OTHERS: u32 = 0o077;
    let mut open = Vec::new();
    let found = std::fs::read_dir(dir).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // It is empty.
            if name != "lock" && entry.metadata()?.permissions().mode() & OTHERS != 0 {
                open.push(name);
            }
        }
        Ok(())
    });
    if let Err(error) = found {
        let remedy = format!("make it yours: chown -R $USER {}", dir.display());
        report.add("rights", Verdict::Failed, format!("{}: {error}", dir.display()), remedy);
        return;
    }
    open.sort();
    match open.as_slice() {
        [] => report.good("rights", "the keys are for their owner's eyes only"),
        open => report.add(
            "rights",
            Verdict::Failed,
            format!("others may use {}", open.join(", ")),
            format!(
                "chmod -R go= {0}; if somebody may have read them, become another operator, and: mycelial operator revoke",
                dir.display()
            ),
        ),
    }
}

#[cfg(unix)]
fn room(dir: &Path, report: &mut Report) {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => said_of_room(disk.f_bavail.saturating_mul(disk.f_frsize), report),
        Err(error) => report.add(
            "room",
            Verdict::Warning,
            format!("{}: {error}", dir.display()),
            "see whether the disk is there",
        ),
    }
}

#[cfg(unix)]
fn said_of_room(free_bytes: u64, report: &mut Report) {
    let free = format!("{} are free where the keys are", render::bytes(free_bytes));
    match free_bytes < ROOM_BYTES_MIN {
        true => report.add("room", Verdict::Warning, free, "make room on that disk"),
        false => report.good("room", free),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn keys_that_others_may_read_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("keys", 0o600);
        put("lock", 0o644);
        let said = || {
            let mut report = Report::default();
            rights(dir.path(), &mut report);
            report.text()
        };
        assert!(said().starts_with("ok    rights"), "{}", said());
        put("keys.copy", 0o640);
        put("membership", 0o602);
        let text = said();
        assert!(
            text.contains("FAIL  rights") && text.contains("keys.copy, membership"),
            "{text}"
        );
        assert!(text.contains("do: chmod -R go= "), "{text}");
        let mut report = Report::default();
        rights(&dir.path().join("none"), &mut report);
        assert!(report.text().contains("do: make it yours"), "{}", report.text());
    }

    #[test]
    fn little_room_is_told() {
        let mut report = Report::default();
        said_of_room(ROOM_BYTES_MIN - 1, &mut report);
        said_of_room(1 << 30, &mut report);
        room(Path::new("/nowhere/at/all"), &mut report);
        let text = report.text();
        assert!(text.contains("WARN  room") && text.contains("do: make room"), "{text}");
        assert!(text.contains("ok    room         1.0 GiB are free"), "{text}");
        assert!(text.contains("do: see whether the disk is there"), "{text}");
    }
}
