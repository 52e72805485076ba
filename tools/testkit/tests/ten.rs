//! Ten connectors at once in one daemon: everything arrives. The limit of what it takes of memory is for programs as they are
//! released, and `cargo xtask footprint` keeps it.

use testkit::footprint::{self, Load};

#[test]
fn ten_connectors_in_one_daemon() {
    let figure = footprint::ten_connectors(Load::SMALL).expect("all rows arrive");
    println!("{figure}");
    assert!(figure.bytes > 0, "{figure}");
}
