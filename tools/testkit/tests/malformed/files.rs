//! Files that are not what they should be: databases, the plane's store, a spool.

use std::{fs, path::Path};

use testkit::{shop, temp_dir};

use crate::{Case, SOON, check, program, text};

fn workflow(dir: &Path, source: &str, destination: &str) -> std::path::PathBuf {
    let file = dir.join("copy.toml");
    let toml =
        format!("name = \"copy\"\n\n[sources.in]\n{source}\n\n[destinations.out]\nfrom = \"in\"\n{destination}\n");
    fs::write(&file, toml).unwrap();
    file
}

fn sqlite(path: &str, table: &str) -> String {
    format!("type = \"sqlite\"\npath = \"{path}\"\ntable = \"{table}\"")
}

#[test]
fn databases_that_are_none() {
    let dir = temp_dir("malformed-db");
    let dir = dir.path();
    let words = "these are words, and no database. ".repeat(200);
    fs::write(dir.join("words.db"), &words).unwrap();
    fs::write(dir.join("lines.jsonl"), "{\"id\": 1}\n").unwrap();
    fs::create_dir(dir.join("folder.db")).unwrap();
    let lines = "type = \"file\"\npath = \"lines.jsonl\"\nformat = \"json_lines\"\nmode = \"once\"";
    for (what, source, destination, says) in [
        (
            "source: words",
            sqlite("words.db", "t"),
            "type = \"stdout\"".to_string(),
            ["in: ", "words.db is not a SQLite database"],
        ),
        (
            "source: a directory",
            sqlite("folder.db", "t"),
            "type = \"stdout\"".to_string(),
            ["in: ", "folder.db is a directory, not a database"],
        ),
        (
            "destination: words",
            lines.to_string(),
            sqlite("words.db", "t"),
            ["out: ", "words.db is not a SQLite database"],
        ),
        (
            "destination: a directory",
            lines.to_string(),
            sqlite("folder.db", "t"),
            ["out: ", "folder.db is a directory, not a database"],
        ),
    ] {
        let file = workflow(dir, &source, &destination);
        check(vec![Case::new(
            what,
            program("myceliald", &["run", text(&file)]),
            1,
            &says,
        )]);
    }
    assert_eq!(
        fs::read_to_string(dir.join("words.db")).unwrap(),
        words,
        "the file is left alone"
    );
    // Mended, the same workflow goes on.
    fs::remove_dir(dir.join("folder.db")).unwrap();
    let file = workflow(dir, lines, &sqlite("folder.db", "t"));
    program("myceliald", &["run", text(&file)]).run(SOON).ok();
    assert_eq!(shop::count(&dir.join("folder.db"), "t"), 1);
}

#[test]
fn what_may_still_come_is_waited_for() {
    let dir = temp_dir("malformed-wait");
    let dir = dir.path();
    let file = workflow(dir, &sqlite("late.db", shop::TABLE), &sqlite("copy.db", "copied"));
    let mut run = program("myceliald", &["run", text(&file)]).spawn();
    run.wait_for_log("there is no file", SOON);
    rusqlite::Connection::open(dir.join("late.db"))
        .unwrap()
        .execute_batch("CREATE TABLE other (a)")
        .unwrap();
    run.wait_for_log("no table", SOON);
    shop::create(&dir.join("late.db")).unwrap();
    shop::add(&dir.join("late.db"), 100).unwrap();
    testkit::wait_ok("the rows", SOON, || {
        match shop::compare(&dir.join("late.db"), &dir.join("copy.db"), "copied") {
            Ok(100) => Ok(()),
            Ok(rows) => Err(format!("{rows} rows")),
            Err(error) => Err(error.to_string()),
        }
    });
    assert!(run.term_and_wait(SOON).success());
}

#[test]
fn a_plane_whose_store_is_none() {
    let dir = temp_dir("malformed-store");
    let dir = text(dir.path());
    program("mycelial-plane", &["init", "--dir", dir]).run(SOON).ok();
    let store = Path::new(dir).join("plane.db");
    let words = "no database ".repeat(1_000);
    fs::write(&store, &words).unwrap();
    let says = ["plane.db is not a usable database"];
    check(vec![
        Case::new(
            "run",
            program("mycelial-plane", &["run", "--dir", dir, "--http", "127.0.0.1:0"]),
            1,
            &says,
        ),
        Case::new("login", program("mycelial-plane", &["login", "--dir", dir]), 1, &says),
        Case::new(
            "token",
            program("mycelial-plane", &["token", "--dir", dir, "--role", "daemon"]),
            1,
            &says,
        ),
    ]);
    assert_eq!(fs::read_to_string(&store).unwrap(), words, "the file is left alone");
}

/// Two destinations make two buffers. Full because one destination is not there yet, then damaged: what is still at the
/// source comes again, and nothing is lost in silence.
#[test]
fn a_spool_that_is_none() {
    for (what, below, said) in [
        ("segments", "0", "a damaged part of the buffer was set aside"),
        ("everything", "", "the producer lost its buffer and starts anew"),
    ] {
        let dir = temp_dir("malformed-spool");
        let dir = dir.path();
        let source = dir.join("shop.db");
        shop::create(&source).unwrap();
        shop::add(&source, 1_000).unwrap();
        let file = workflow(
            dir,
            &format!("{}\ncursor = \"id\"", sqlite("shop.db", shop::TABLE)),
            &format!(
                "{}\n\n[destinations.late]\nfrom = \"in\"\n{}",
                sqlite("copy.db", "copied"),
                sqlite("later/late.db", "copied")
            ),
        );
        let state = dir.join("state");
        let run = || program("myceliald", &["run", text(&file), "--state", text(&state)]).spawn();
        let arrived = |copy: &str| {
            let what = format!("{what}: every row in {copy}");
            testkit::wait_ok(&what, SOON, || {
                match shop::compare(&source, &dir.join(copy), "copied") {
                    Ok(1_000) => Ok(()),
                    Ok(rows) => Err(format!("{rows} rows")),
                    Err(error) => Err(error.to_string()),
                }
            });
        };
        let mut first = run();
        first.wait_for_log("there is no directory", SOON);
        arrived("copy.db");
        first.kill9();
        let streams: Vec<_> = fs::read_dir(state.join("streams")).unwrap().flatten().collect();
        assert_eq!(streams.len(), 2);
        for stream in streams {
            damage(&stream.path().join("spool"), below);
        }
        fs::create_dir(dir.join("later")).unwrap();
        let mut second = run();
        arrived("later/late.db");
        arrived("copy.db");
        second.wait_for_log(said, SOON);
        assert!(second.term_and_wait(SOON).success());
        assert!(!second.log().contains("does not balance"), "{}", second.log());
    }
}

/// Overwrites with words every file in the folders whose name begins so, and for "" all the others too.
fn damage(dir: &Path, below: &str) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let is_meant = entry.file_name().to_string_lossy().starts_with(below);
        if is_meant && entry.path().is_dir() {
            damage(&entry.path(), "");
        } else if is_meant {
            fs::write(entry.path(), "garbage ".repeat(100)).unwrap();
        }
    }
}
