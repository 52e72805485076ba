//! Where the plane is: on which bus, and in which directory. What somebody needs for commands on its machine; no secret.

use bus_schema::member::Invitation;
use serde::Serialize;

use super::{
    ask::{Answer, Ask, json},
    table::{Endpoint, by, viewer},
};
use crate::permission::Reach::Whole;

/// What is known of the plane's surroundings as long as it runs.
#[derive(Debug)]
pub struct About {
    /// How daemons without an enrolment string of their own find the fleet.
    pub door: Invitation,
    /// Whether the broker is the embedded one.
    pub embedded: bool,
    /// The plane's directory.
    pub dir: String,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/surroundings",
            viewer(Whole),
            "The bus the plane is on, and its directory",
            by!(surroundings),
        )
        .answers::<Surroundings>(),
    ]
}

/// Where the plane is.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Surroundings {
    /// Bus addresses as members see them.
    bus: Vec<String>,
    /// Whether the broker is the embedded one, which knows the access list by itself.
    embedded: bool,
    /// The plane's directory on its machine.
    dir: String,
}

async fn surroundings(ask: Ask) -> Answer {
    let About { door, embedded, dir } = &ask.web.about;
    json(Surroundings {
        bus: door.bus.clone(),
        embedded: *embedded,
        dir: dir.clone(),
    })
}
