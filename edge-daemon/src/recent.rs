//! The last lines of the log, kept in memory for operators who ask over the bus. Bounded in bytes; the oldest go first.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus_schema::control::LogLine;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::assemble::unix_ms;

/// Room for lines, in bytes: some hundreds of them.
const BYTES_MAX: usize = 48 * 1024;
/// Longest line that is kept whole, in bytes.
const LINE_BYTES_MAX: usize = 1024;
/// What a line takes besides its text, in bytes.
const LINE_BYTES: usize = size_of::<LogLine>();

/// The lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    bytes: usize,
    newest: u64,
}

fn weight(line: &LogLine) -> usize {
    LINE_BYTES + line.text.len() + line.workflow.len() + line.level.len()
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Plain values: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mut line: LogLine) {
        let mut lines = self.lock();
        lines.newest += 1;
        line.number = lines.newest;
        lines.bytes += weight(&line);
        lines.lines.push_back(line);
        while lines.bytes > BYTES_MAX {
            let Some(oldest) = lines.lines.pop_front() else { break };
            lines.bytes -= weight(&oldest);
        }
    }

    /// The newest lines after a number, at most so many, the oldest first; and the number of the newest there is.
    pub fn after(&self, after: u64, most: usize, workflow: &str) -> (Vec<LogLine>, u64) {
        let lines = self.lock();
        let wanted = lines
            .lines
            .iter()
            .rev()
            .take_while(|line| line.number > after)
            .filter(|line| workflow.is_empty() || line.workflow == workflow);
        let mut found: Vec<LogLine> = wanted.take(most).cloned().collect();
        found.reverse();
        (found, lines.newest)
    }
}

/// Puts a line together: the message first, then `key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    workflow: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_string(),
            "workflow" => self.workflow = value.to_string(),
            name => {
                let _ = write!(self.fields, " {name}={value:?}");
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "workflow" => self.workflow = format!("{value:?}").trim_matches('"').to_string(),
            name => {
                let _ = write!(self.fields, " {name}={value:?}");
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Text::default();
        event.record(&mut parts);
        let mut text = parts.message;
        text.push_str(&parts.fields);
        if text.len() > LINE_BYTES_MAX {
            let cut = (0..=LINE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(cut.unwrap_or(0));
            text.push('…');
        }
        text.shrink_to_fit();
        self.add(LogLine {
            number: 0,
            unix_ms: unix_ms(),
            level: event.metadata().level().to_string(),
            text,
            workflow: parts.workflow,
        });
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_are_kept_in_order_and_within_bounds() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(workflow = "shop", rows = 3, "starting");
            tracing::warn!(cause = "no host", "not connected");
            tracing::debug!("{}", "x".repeat(LINE_BYTES_MAX * 2));
        });
        let (all, newest) = recent.after(0, 10, "");
        assert_eq!(newest, 3);
        let shown: Vec<String> = all[..2]
            .iter()
            .map(|line| format!("{} {} [{}] {}", line.number, line.level, line.workflow, line.text))
            .collect();
        assert_eq!(
            shown,
            [
                "1 INFO [shop] starting rows=3",
                "2 WARN [] not connected cause=\"no host\""
            ]
        );
        assert_eq!(all[2].text.chars().count(), LINE_BYTES_MAX + 1);
        let numbers = |after, most, workflow: &str| {
            let (lines, _) = recent.after(after, most, workflow);
            lines.iter().map(|line| line.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, 10, ""), [2, 3]);
        assert_eq!(numbers(0, 1, ""), [3]);
        assert_eq!(numbers(0, 10, "shop"), [1]);
        assert_eq!(numbers(3, 10, ""), [0; 0]);
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || (0..1_000).for_each(|n| tracing::info!(n, "again")));
        let (all, newest) = recent.after(0, 10_000, "");
        assert_eq!(newest, 1_003);
        assert_eq!(all.last().map(|line| line.number), Some(1_003));
        assert!(all.iter().map(weight).sum::<usize>() <= BYTES_MAX);
        assert!(all.len() > 200, "{}", all.len());
    }
}
