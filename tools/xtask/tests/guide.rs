//! The guide to a connector is true: what it says is done, word for word, in a crate of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The content of the code blocks that open so, one after the other.
fn blocks(guide: &str, opening: &str) -> String {
    let fence = format!("```{opening}\n");
    let blocks = guide.split(&fence).skip(1);
    let text: String = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!text.is_empty(), "the guide has no `{opening}` block");
    text
}

/// Cargo without a network, with what it builds kept from one time to the next.
fn cargo(root: &Path, dir: &Path, arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", root.join("target/guide"))
        .output()
        .unwrap();
    let (said, trouble) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{arguments:?}: {said}\n{trouble}");
    said.into_owned()
}

#[test]
fn a_connector_in_thirty_minutes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap();
    let guide = fs::read_to_string(root.join("docs/CONNECTOR.md")).unwrap();
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("own-connectors");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = blocks(&guide, "toml").replace("MYCELIAL", &root.display().to_string());
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), blocks(&guide, "rust")).unwrap();
    // The versions that are here already.
    fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();

    let command = blocks(&guide, "sh");
    let arguments: Vec<&str> = command
        .trim()
        .strip_prefix("cargo xtask ")
        .unwrap()
        .split_whitespace()
        .collect();
    let begun = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .arg("--crate")
        .arg(&dir)
        .output()
        .unwrap();
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let tested = cargo(&root, &dir, &["test"]);
    assert!(tested.contains("2 passed"), "{tested}");

    fs::write(dir.join("src/notebook.rs"), blocks(&guide, "rust notebook.rs")).unwrap();
    let lib = fs::read_to_string(dir.join("src/lib.rs")).unwrap();
    let source_only = lib.replace("        notebook::SINK,\n", "");
    assert_ne!(lib, source_only);
    fs::write(dir.join("src/lib.rs"), source_only).unwrap();
    let tested = cargo(&root, &dir, &["test"]);
    assert!(tested.contains("2 passed"), "{tested}");
}
