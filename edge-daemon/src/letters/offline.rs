//! `myceliald dlq`: dead letters in a data directory on this machine, without a bus. What is marked here is done by the
//! pipes when they run next.

use std::{io::Write, path::PathBuf};

use bus_schema::{
    data::Batch,
    letter::{LetterCall, LetterPlace, LetterResult, LetterSelect, LetterStage, LetterState, LetterView},
};
use clap::Subcommand;

use super::{Desk, Letters};

/// Records up to this size are shown.
const SHOWN_BYTES_MAX: u64 = 1024 * 1024;

/// `myceliald dlq`
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List them.
    List {
        /// Only of this workflow.
        workflow: Option<String>,
    },
    /// Why one died, where, and its record.
    Show {
        /// WORKFLOW/NUMBER, as the list shows it.
        letter: String,
        /// Write the exact bytes to this file.
        #[arg(long, value_name = "FILE")]
        raw: Option<PathBuf>,
    },
    /// Mark them to be tried again when their workflow runs next.
    Replay {
        /// WORKFLOW/NUMBER, as the list shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        letters: Vec<String>,
        /// All of them that are not in doubt.
        #[arg(long)]
        all: bool,
    },
    /// Forget them for good.
    Purge {
        /// WORKFLOW/NUMBER, as the list shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        letters: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

/// What is wrong, in words.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// With what was typed.
    #[error("{0}")]
    Usage(String),
    /// With the letters.
    #[error("{0}")]
    Failed(String),
}

fn place(name: &str) -> Result<LetterPlace, OfflineError> {
    let parsed = name
        .split_once('/')
        .and_then(|(workflow, id)| Some((workflow, id.parse().ok()?)));
    let Some((workflow, id)) = parsed else {
        return Err(OfflineError::Usage(format!(
            "'{name}' is no dead letter's name\n  hint: write WORKFLOW/NUMBER, as 'myceliald dlq list' shows it"
        )));
    };
    Ok(LetterPlace {
        workflow: workflow.to_string(),
        id,
    })
}

/// Does what was typed. Blocks.
pub fn run(letters: &Letters, what: Dlq) -> Result<(), OfflineError> {
    let desk = Desk::new(letters.clone(), Vec::new());
    match what {
        Dlq::List { workflow } => list(&desk, workflow.unwrap_or_default()),
        Dlq::Show { letter, raw } => show(&desk, &place(&letter)?, raw),
        Dlq::Replay { letters, .. } => {
            let count = change(&desk, &letters, LetterCall::Replay)?;
            eprintln!("letters marked: {count}. They are tried again when their workflow is started next");
            Ok(())
        }
        Dlq::Purge { letters, .. } => {
            let count = change(&desk, &letters, LetterCall::Purge)?;
            eprintln!("letters purged: {count}");
            Ok(())
        }
    }
}

fn ask(desk: &Desk, call: &LetterCall) -> Result<LetterResult, OfflineError> {
    match desk.answer(call).0 {
        LetterResult::Failed(failure) => Err(OfflineError::Failed(failure.message)),
        result => Ok(result),
    }
}

/// Whoever reads our output may have seen enough and close the pipe; that is no error.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn list(desk: &Desk, workflow: String) -> Result<(), OfflineError> {
    let select = LetterSelect {
        workflow,
        ..LetterSelect::default()
    };
    let mut after = None;
    loop {
        let call = LetterCall::List {
            select: select.clone(),
            after,
        };
        let LetterResult::Page(page) = ask(desk, &call)? else {
            return Ok(());
        };
        for letters in page.boxes.iter().filter(|letters| letters.evicted + letters.purged > 0) {
            eprintln!(
                "{}: {} gone for want of room, {} purged; the ledger counts them as dead",
                letters.workflow, letters.evicted, letters.purged
            );
        }
        page.letters.iter().for_each(|letter| print(&line(letter)));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn line(letter: &LetterView) -> String {
    let state = match letter.state {
        LetterState::Kept => "kept",
        LetterState::Queued => "queued",
        LetterState::Doubtful => "in doubt",
    };
    let LetterPlace { workflow, id } = &letter.place;
    let reason = letter.reason.lines().next().unwrap_or_default();
    format!(
        "{:<24} {:<9} {:<16} {reason}",
        format!("{workflow}/{id}"),
        state,
        letter.node
    )
}

fn show(desk: &Desk, letter: &LetterPlace, raw: Option<PathBuf>) -> Result<(), OfflineError> {
    let wrong = |path: &PathBuf, error: std::io::Error| OfflineError::Usage(format!("{}: {error}", path.display()));
    let mut file = match &raw {
        Some(path) => Some(std::fs::File::create(path).map_err(|error| wrong(path, error))?),
        None => None,
    };
    let (mut record, mut offset) = (Vec::new(), 0);
    let view = loop {
        let call = LetterCall::Show {
            letter: letter.clone(),
            offset,
        };
        let LetterResult::Letter { letter, bytes } = ask(desk, &call)? else {
            return Ok(());
        };
        offset += bytes.len() as u64;
        if let (Some(file), Some(path)) = (&mut file, &raw) {
            file.write_all(&bytes).map_err(|error| wrong(path, error))?;
        }
        let is_all = bytes.is_empty() || offset >= letter.record_bytes;
        if letter.record_bytes <= SHOWN_BYTES_MAX {
            record.extend(bytes);
        }
        if is_all || (file.is_none() && letter.record_bytes > SHOWN_BYTES_MAX) {
            break letter;
        }
    };
    print(&line(&view));
    print(&format!("on the way {}, tried {} times", view.path, view.replays));
    print(&view.reason);
    if !view.refusal.is_empty() {
        print(&format!("not tried again: {}", view.refusal));
    }
    print("");
    if view.record_bytes > SHOWN_BYTES_MAX {
        eprintln!("the record is large: write it to a file with --raw FILE");
    } else if let (false, Ok(batch)) = (view.stage == LetterStage::Source, Batch::decode(&record)) {
        for (column, field) in batch.schema().fields.iter().enumerate() {
            print(&format!("{} = {}", field.name, batch.cell(0, column)));
        }
    } else {
        // Bytes from a source must not steer a terminal.
        print(&String::from_utf8_lossy(&record).escape_debug().to_string());
    }
    Ok(())
}

fn change(desk: &Desk, names: &[String], call: impl Fn(LetterSelect) -> LetterCall) -> Result<u64, OfflineError> {
    let mut selects = Vec::new();
    for name in names {
        let LetterPlace { workflow, id } = place(name)?;
        selects.push(LetterSelect {
            workflow,
            node: String::new(),
            ids: vec![id],
        });
    }
    if names.is_empty() {
        selects.push(LetterSelect::default());
    }
    let mut count = 0;
    for select in selects {
        if let LetterResult::Done { letters, .. } = ask(desk, &call(select))? {
            count += letters;
        }
    }
    Ok(count)
}
