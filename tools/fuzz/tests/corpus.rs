//! Every file that the fuzzer found worth keeping, and every one that ever broke something, through the same functions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

#[test]
fn nothing_in_the_corpora_breaks_anything() {
    for (name, feed) in fuzz::TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has hardly any corpus");
        for file in files {
            println!("{}", file.display());
            feed(&std::fs::read(&file).unwrap());
        }
    }
}
