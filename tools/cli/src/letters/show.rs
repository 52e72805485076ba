//! How dead letters look, for people and for programs. Asks nobody, prints nothing.

use bus_schema::{
    data::Batch,
    letter::{LetterBoxView, LetterPlace, LetterStage, LetterState, LetterView},
    shown::{Letter, LetterBox},
};
use serde_json::json;

use crate::{live, render};

/// Bytes shown of what is no record.
const SHOWN_RAW_BYTES_MAX: usize = 2048;

fn stage(stage: LetterStage) -> &'static str {
    match stage {
        LetterStage::Source => "source",
        LetterStage::Transform => "transform",
        LetterStage::Destination => "destination",
    }
}

fn state(state: LetterState) -> &'static str {
    match state {
        LetterState::Kept => "kept",
        LetterState::Queued => "queued",
        LetterState::Doubtful => "in doubt",
    }
}

pub(super) fn full_name(daemon: &str, place: &LetterPlace) -> String {
    format!("{daemon}/{}/{}", place.workflow, place.id)
}

pub(super) fn as_table(letters: &[(String, LetterView)]) -> String {
    let row = |(daemon, letter): &(String, LetterView)| {
        vec![
            full_name(daemon, &letter.place),
            stage(letter.stage).to_string(),
            letter.node.clone(),
            state(letter.state).to_string(),
            render::bytes(letter.record_bytes),
            letter.reason.lines().next().unwrap_or_default().to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
    render::table(&["letter", "stage", "node", "state", "size", "reason"], &rows)
}

pub(super) fn as_json(daemon: &str, letter: &LetterView) -> serde_json::Value {
    serde_json::to_value(Letter::new(daemon, letter.clone())).unwrap_or_default()
}

pub(super) fn box_json(daemon: &str, letters: &LetterBoxView) -> serde_json::Value {
    serde_json::to_value(LetterBox::new(daemon, letters.clone())).unwrap_or_default()
}

/// What the list does not show, though the ledger counts it.
pub(super) fn box_note(daemon: &str, letters: &LetterBoxView) -> Option<String> {
    let mut parts = Vec::new();
    if letters.evicted > 0 {
        parts.push(format!("{} gone for want of room", letters.evicted));
    }
    if letters.purged > 0 {
        parts.push(format!("{} purged", letters.purged));
    }
    if letters.damaged > 0 {
        parts.push(format!(
            "damaged on disk {} times: what was not readable is gone",
            letters.damaged
        ));
    }
    let counts = format!(
        "{daemon}/{}: {}; the ledger counts them as dead",
        letters.workflow,
        parts.join(", ")
    );
    (!parts.is_empty()).then_some(counts)
}

pub(super) fn described(daemon: &str, letter: &LetterView, record: Option<&[u8]>) -> String {
    let mut lines = vec![
        ("letter", full_name(daemon, &letter.place)),
        (
            "died at",
            format!("{} '{}', on the way {}", stage(letter.stage), letter.node, letter.path),
        ),
        ("reason", letter.reason.clone()),
        ("state", state(letter.state).to_string()),
        (
            "when",
            format!(
                "{} after start {} of the daemon; its clock said {} s since 1970",
                render::ago(letter.uptime_ms),
                letter.boot,
                letter.unix_ms / 1000
            ),
        ),
        ("tried", format!("{} times", letter.replays)),
        ("size", render::bytes(letter.record_bytes)),
    ];
    if !letter.refusal.is_empty() {
        lines.insert(4, ("refused", letter.refusal.clone()));
    }
    let mut text: String = lines.iter().map(|(key, value)| format!("{key:<8} {value}\n")).collect();
    match (record, record.and_then(|record| batch(letter, record))) {
        (None, _) => text.push_str("\nthe record is large: write it to a file with --raw FILE\n"),
        (Some(_), Some(batch)) => {
            let fields = batch.schema().fields.iter().enumerate();
            let row = |(column, field): (usize, &bus_schema::data::Field)| {
                let value = (batch.rows() > 0).then(|| live::shown_cell(batch.cell(0, column)));
                vec![field.name.clone(), field.ty.to_string(), value.unwrap_or_default()]
            };
            let rows: Vec<Vec<String>> = fields.map(row).collect();
            text.push('\n');
            text.push_str(&render::table(&["field", "type", "value"], &rows));
        }
        (Some(record), None) => {
            text.push('\n');
            text.push_str(&raw_text(record));
            text.push('\n');
        }
    }
    text
}

/// The record of a letter, unless it never became one.
fn batch(letter: &LetterView, record: &[u8]) -> Option<Batch> {
    (letter.stage != LetterStage::Source).then(|| Batch::decode(record).ok())?
}

pub(super) fn record_json(letter: &LetterView, record: &[u8]) -> serde_json::Value {
    match batch(letter, record) {
        Some(batch) if batch.rows() > 0 => live::record(&batch, 0),
        _ => match std::str::from_utf8(record) {
            Ok(text) => json!({ "text": text }),
            Err(_) => json!({ "hex": hex(record) }),
        },
    }
}

fn raw_text(record: &[u8]) -> String {
    let shown = &record[..record.len().min(SHOWN_RAW_BYTES_MAX)];
    let text = match std::str::from_utf8(record) {
        Ok(text) => text.chars().take(SHOWN_RAW_BYTES_MAX).flat_map(printable).collect(),
        Err(_) => hex(shown),
    };
    if record.len() > SHOWN_RAW_BYTES_MAX {
        format!("{text} … (all of it with --raw FILE)")
    } else {
        text
    }
}

/// Bytes from a source must not steer a terminal.
fn printable(c: char) -> Vec<char> {
    if c.is_control() && c != '\n' && c != '\t' {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_could_not_read_does_not_steer_the_terminal() {
        assert_eq!(raw_text(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(raw_text(&[0xff, 0x00]), "ff00");
    }
}
