//! Ten connectors at once in one daemon: everything arrives, and what the daemon takes stays within its limit.

use testkit::footprint::{self, Load};

#[test]
fn ten_connectors_in_one_daemon() {
    let figure = footprint::ten_connectors(Load::SMALL).expect("all rows arrive");
    println!("{figure}");
    assert!(figure.holds(), "{figure}");
}
