//! One end of a stream forgets. A gateway that lost its buffer, or got an older copy of it back, begins a new epoch and goes
//! on where the hub is; a destination that lost its memory is told what it cannot know. Nothing is lost or doubled.

#![cfg(target_os = "linux")]

use std::{fs, path::Path, process::Command, time::Duration};

use testkit::{
    Broker, Fleet, Proc,
    scenario::{COPY, all_arrive, balanced, shop_workflow},
    shop, wait_ok, wait_until,
};

const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const ROWS: u64 = 3_000;

struct Mesh {
    fleet: Fleet,
    gateway: Proc,
    hub: Proc,
}

impl Mesh {
    /// A gateway and a hub between which the first rows have moved.
    fn start(workflow: impl Fn(&Fleet) -> String) -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        let (gateway, hub) = (fleet.daemon("gateway", None), fleet.daemon("hub", None));
        let source = fleet.dir().join("shop.db");
        shop::create(&source).expect("a database");
        shop::add(&source, ROWS).expect("rows");
        fleet.apply("shop", &workflow(&fleet));
        Self { fleet, gateway, hub }
    }

    fn add(&self) -> u64 {
        shop::add(&self.fleet.dir().join("shop.db"), ROWS).expect("rows")
    }

    /// The only stream's directory on the gateway.
    fn stream_dir(&self) -> std::path::PathBuf {
        let streams = fs::read_dir(self.fleet.dir().join("gateway/streams")).expect("streams");
        let dirs: Vec<_> = streams.flatten().map(|entry| entry.path()).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs[0].clone()
    }

    /// Waits until the gateway has buffered everything up to this row.
    fn buffered(&self, rows: u64) {
        // While the hub is away the plane still hears the gateway.
        wait_until("the gateway to buffer the rows", SOON, || {
            let ledgers = self.fleet.ledgers();
            ledgers.iter().any(|(_, ledger)| ledger.produced >= rows).then_some(())
        });
    }

    /// Starts the gateway, which is down, with an older copy of the stream's files.
    fn put_back(&mut self, copy: &Path, stream: &Path) {
        fs::remove_dir_all(stream).expect("the stream can be removed");
        copy_tree(copy, stream);
        self.restart_gateway();
    }

    fn restart_gateway(&mut self) {
        self.gateway = self.fleet.daemon("gateway", None);
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .args(["-a"])
        .arg(from)
        .arg(to)
        .status()
        .expect("cp runs");
    assert!(done.success(), "cannot copy {} to {}", from.display(), to.display());
}

#[test]
fn a_gateway_that_lost_its_buffer_goes_on_where_the_hub_is() {
    for lost in ["spool", "lineage", "both"] {
        let mut mesh = Mesh::start(shop_workflow);
        all_arrive("the first rows", &mesh.fleet, ROWS);
        mesh.hub.kill9();
        let rows = mesh.add();
        mesh.buffered(rows);
        mesh.gateway.kill9();
        let stream = mesh.stream_dir();
        match lost {
            "spool" => fs::remove_dir_all(stream.join(lost)).expect("the buffer can be removed"),
            "lineage" => fs::write(stream.join(lost), b"no key").expect("the key can be damaged"),
            _ => fs::remove_dir_all(&stream).expect("both can be removed"),
        }
        mesh.restart_gateway();
        if lost == "both" {
            // It passes for a new stream, reads from the beginning, and learns from the hub that it is none.
            mesh.buffered(rows);
        } else {
            mesh.gateway.wait_for_log("begins a new epoch", SOON);
        }
        mesh.hub = mesh.fleet.daemon("hub", None);
        mesh.gateway.wait_for_log("begins a new epoch", SOON);
        mesh.gateway.wait_for_log("goes on from where the consumer is", SOON);
        // Also while the source gives nothing new.
        all_arrive(&format!("what was there, without the {lost}"), &mesh.fleet, rows);
        let rows = mesh.add();
        all_arrive(&format!("every row once, without the {lost}"), &mesh.fleet, rows);
        // What the old epoch delivered is in the account as well.
        balanced(&mesh.fleet, 1, rows);
        assert!(mesh.gateway.term_and_wait(STOP).success());
        assert!(mesh.hub.term_and_wait(STOP).success());
    }
}

#[test]
fn a_buffer_from_an_older_copy_is_noticed() {
    let mut mesh = Mesh::start(shop_workflow);
    all_arrive("the first rows", &mesh.fleet, ROWS);
    assert!(mesh.gateway.term_and_wait(STOP).success());
    let (stream, copy) = (mesh.stream_dir(), mesh.fleet.dir().join("older"));
    copy_tree(&stream, &copy);
    mesh.restart_gateway();
    let rows = mesh.add();
    all_arrive("the next rows", &mesh.fleet, rows);
    balanced(&mesh.fleet, 1, rows);
    mesh.gateway.kill9();
    mesh.put_back(&copy, &stream);
    mesh.gateway.wait_for_log("it is an older copy", SOON);
    let rows = mesh.add();
    all_arrive("every row, once", &mesh.fleet, rows);
    // The copy is of an epoch that the hub has seen the end of, now.
    mesh.gateway.kill9();
    mesh.put_back(&copy, &stream);
    mesh.gateway.wait_for_log("the consumer knows a newer epoch", SOON);
    let rows = mesh.add();
    all_arrive("every row, once, after a copy of an older epoch", &mesh.fleet, rows);
    balanced(&mesh.fleet, 1, rows);
    assert!(mesh.gateway.term_and_wait(STOP).success());
    assert!(mesh.hub.term_and_wait(STOP).success());
}

/// An older copy that fills up beyond what the hub has and is then restarted: from seqs alone nobody could tell.
#[test]
fn an_older_copy_that_filled_up_again_is_noticed() {
    let mut mesh = Mesh::start(shop_workflow);
    all_arrive("the first rows", &mesh.fleet, ROWS);
    assert!(mesh.gateway.term_and_wait(STOP).success());
    let (stream, copy) = (mesh.stream_dir(), mesh.fleet.dir().join("older"));
    copy_tree(&stream, &copy);
    mesh.restart_gateway();
    let rows = mesh.add();
    all_arrive("the next rows", &mesh.fleet, rows);
    mesh.hub.kill9();
    mesh.gateway.kill9();
    mesh.put_back(&copy, &stream);
    for _ in 0..2 {
        let rows = mesh.add();
        mesh.buffered(rows);
    }
    mesh.gateway.kill9();
    mesh.restart_gateway();
    mesh.hub = mesh.fleet.daemon("hub", None);
    mesh.gateway.wait_for_log("it is an older copy", SOON);
    let rows = mesh.add();
    all_arrive("every row, once", &mesh.fleet, rows);
    balanced(&mesh.fleet, 1, rows);
    assert!(mesh.gateway.term_and_wait(STOP).success());
    assert!(mesh.hub.term_and_wait(STOP).success());
}

/// A destination that keeps no watermark of its own, on a hub that loses its checkpoints: what came before is known by the
/// producer's word alone, and the ledger says so.
#[test]
fn a_hub_that_forgot_says_so_in_the_ledger() {
    let mut mesh = Mesh::start(shop_workflow);
    all_arrive("the first rows", &mesh.fleet, ROWS);
    balanced(&mesh.fleet, 1, ROWS);
    mesh.hub.kill9();
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(mesh.fleet.dir().join(format!("copy.db{end}")));
    }
    mesh.hub = mesh.fleet.daemon("hub", None);
    let rows = mesh.add();
    let copy = mesh.fleet.dir().join("copy.db");
    // The gateway had heard of all or some of it, and sends the rest again: the new file has that and what came after.
    wait_ok("a ledger that tells what is not confirmed", SOON, || {
        let text = mesh.fleet.cli(&["ledger", "-o", "json"])?;
        let streams: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let stream = &streams[0];
        let ledger = &stream["ledger"];
        let unconfirmed = ledger["unconfirmed"].as_u64().unwrap_or(0);
        let told = ledger["produced"] == rows && ledger["delivered"] == rows && (1..=ROWS).contains(&unconfirmed);
        let there = copy.exists() && shop::count(&copy, COPY) == rows - unconfirmed;
        (told && there && stream["balances"] == true).then_some(()).ok_or(text)
    });
    assert!(mesh.gateway.term_and_wait(STOP).success());
    assert!(mesh.hub.term_and_wait(STOP).success());
}
