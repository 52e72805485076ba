//! Log lines on stderr, as text or JSON. Never more than a few a second from one place in the code, however clients behave.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use broker::config::{Log, LogFormat};
use tracing::{Event, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Overrides `log.level`.
pub const LEVEL_VAR: &str = "MYCELIAL_LOG";
/// What mqtt5 says of connections is said better by us; what its queues drop only they know.
const QUIET: &str = "mqtt5=error,mqtt5::broker::storage=warn";
/// Lines one place in the code may write in [`WINDOW`].
const LINES_MAX: u32 = 10;
/// See [`LINES_MAX`].
const WINDOW: Duration = Duration::from_secs(5);

/// Starts logging. `level` wins over the configuration's.
pub fn start(log: &Log, level: Option<&str>) -> Result<()> {
    let level = level.unwrap_or(&log.level);
    let filter = format!("{QUIET},{level}")
        .parse::<Targets>()
        .with_context(|| format!("log level '{level}': use error, warn, info, debug, trace or a filter"))?;
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(Limit::default())
        .with(lines)
        .init();
    Ok(())
}

/// Lets each callsite write [`LINES_MAX`] lines in a [`WINDOW`].
#[derive(Default)]
struct Limit(Mutex<HashMap<Identifier, (Instant, u32)>>);

impl Limit {
    fn allow(&self, callsite: Identifier, now: Instant) -> bool {
        // Bounded by the number of log statements in the program.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, lines) = seen.entry(callsite).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *lines) = (now, 0);
        }
        *lines += 1;
        *lines <= LINES_MAX
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.allow(event.metadata().callsite(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_place_is_cut() {
        let limit = Limit::default();
        let here = tracing::callsite!(name: "here", kind: tracing::metadata::Kind::EVENT, fields:);
        let there = tracing::callsite!(name: "there", kind: tracing::metadata::Kind::EVENT, fields:);
        let (here, there) = (Identifier(here), Identifier(there));
        let start = Instant::now();
        let allowed =
            |callsite: &Identifier, at: Instant| (0..100).filter(|_| limit.allow(callsite.clone(), at)).count();
        assert_eq!(allowed(&here, start), 10);
        assert_eq!(allowed(&there, start), 10);
        assert_eq!(allowed(&here, start + WINDOW / 2), 0);
        assert_eq!(allowed(&here, start + WINDOW), 10);
    }
}
