//! The live picture for web pages: made at most once a second, once for all of them, and not at all while nobody looks.

use std::sync::Arc;

use bus_schema::api::{DaemonView, PlaneInfo, StreamView, WorkflowView};
use serde::Serialize;
use tokio::sync::watch;

use crate::domain::{Now, State};

/// Everything a page shows that moves.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The plane's wall clock, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The plane, in short.
    pub info: PlaneInfo,
    /// All daemons.
    pub daemons: Vec<DaemonView>,
    /// All workflows.
    pub workflows: Vec<WorkflowView>,
    /// All stream accounts.
    pub streams: Vec<StreamView>,
}

/// Where the picture is shown, as JSON.
#[derive(Debug, Clone)]
pub struct Live {
    shown: Arc<watch::Sender<Arc<str>>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            shown: Arc::new(watch::Sender::new(Arc::from(""))),
        }
    }
}

impl Live {
    /// Looks at the picture from now on. It is empty until the first one is made.
    pub fn look(&self) -> watch::Receiver<Arc<str>> {
        self.shown.subscribe()
    }

    /// Shows the state of things, if anybody looks.
    pub fn publish(&self, state: &State, http: &str, now: Now) {
        if self.shown.receiver_count() == 0 {
            // Not kept: with many daemons it is the largest thing in memory.
            self.shown.send_if_modified(|shown| {
                let stale = !shown.is_empty();
                *shown = Arc::from("");
                stale
            });
            return;
        }
        let picture = Picture {
            at_unix_ms: now.unix_ms,
            info: state.info(http),
            daemons: state.daemon_views(now),
            workflows: state.workflow_views(now),
            streams: state.stream_views(None, now),
        };
        if let Ok(json) = serde_json::to_string(&picture) {
            self.shown.send_replace(json.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{fleet, node};

    #[test]
    fn made_only_for_those_who_look() {
        let (live, state) = (Live::default(), State::new(fleet(), node(1)));
        live.publish(&state, "here", Now::default());
        assert_eq!(&**live.shown.borrow(), "");
        let looking = live.look();
        live.publish(&state, "here", Now { mono_ms: 1, unix_ms: 5 });
        let picture: serde_json::Value = serde_json::from_str(&looking.borrow()).unwrap();
        assert_eq!(
            (&picture["at_unix_ms"], &picture["info"]["http"]),
            (&5.into(), &"here".into())
        );
        drop(looking);
        live.publish(&state, "here", Now::default());
        assert_eq!(&**live.shown.borrow(), "", "not kept when nobody looks");
    }
}
