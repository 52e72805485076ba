//! `mycelial top`: the fleet on one screen, once a second, worst first. Asks the plane; changes nothing.
//! What stands where is decided by [`screen`], which is pure; only [`run`] knows the terminal.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::Duration,
};

use bus_schema::api::{ApiCall, ApiResult, DaemonView, NoteView, PlaneInfo, Presence, StreamView, WorkflowView};
use crossterm::{
    cursor,
    event::{self, Event, KeyCode, KeyEvent, KeyModifiers},
    execute, queue,
    style::Print,
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    render, workflows,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a key may take to be seen.
const KEY_WAIT: Duration = Duration::from_millis(50);

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Picture {
    info: PlaneInfo,
    daemons: Vec<DaemonView>,
    workflows: Vec<WorkflowView>,
    streams: Vec<StreamView>,
    /// Dead letters that are kept.
    letters_kept: u64,
}

/// How many dead letters are kept: as the daemons say, and where one has not said, all that died.
fn kept(notes: &[NoteView], workflows: &[WorkflowView], streams: &[StreamView]) -> u64 {
    let of = |workflow: &WorkflowView| {
        let mut told = notes.iter().filter(|note| note.workflow == workflow.name).peekable();
        let has_told = told.peek().is_some();
        let kept: Option<u64> = told.map(|note| note.letters_kept).sum();
        kept.filter(|_| has_told).unwrap_or_else(|| {
            let own = streams.iter().filter(|stream| stream.workflow == workflow.name);
            own.map(|stream| stream.ledger.dead).sum()
        })
    };
    workflows.iter().map(of).sum()
}

/// What is shown below the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Streams,
    Daemons,
    Workflows,
}

impl Tab {
    const ALL: [(Tab, &str); 3] = [
        (Tab::Streams, "streams"),
        (Tab::Daemons, "daemons"),
        (Tab::Workflows, "workflows"),
    ];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|(tab, _)| *tab == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()].0
    }
}

/// What the person chose to see.
#[derive(Debug, Clone, Copy)]
struct View {
    tab: Tab,
    /// Rows scrolled past.
    above: usize,
}

/// What a key means. `None`: the end.
fn pressed(view: View, key: KeyEvent) -> Option<View> {
    let at = |above| Some(View { above, ..view });
    let tab = |tab| Some(View { tab, above: 0 });
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => None,
        KeyCode::Char('q') | KeyCode::Esc => None,
        KeyCode::Tab => tab(view.tab.next()),
        KeyCode::Char('s') => tab(Tab::Streams),
        KeyCode::Char('d') => tab(Tab::Daemons),
        KeyCode::Char('w') => tab(Tab::Workflows),
        KeyCode::Down | KeyCode::Char('j') => at(view.above.saturating_add(1)),
        KeyCode::Up | KeyCode::Char('k') => at(view.above.saturating_sub(1)),
        KeyCode::PageDown | KeyCode::Char(' ') => at(view.above.saturating_add(10)),
        KeyCode::PageUp => at(view.above.saturating_sub(10)),
        KeyCode::Home => at(0),
        _ => Some(view),
    }
}

/// The lines of a screen of a size. `trouble`: why the picture is old; empty when it is not.
fn screen(picture: &Picture, view: View, trouble: &str, (width, height): (u16, u16)) -> Vec<String> {
    let (width, height) = (usize::from(width), usize::from(height));
    let online = picture
        .daemons
        .iter()
        .filter(|daemon| daemon.presence == Presence::Online);
    let sum = |of: fn(&StreamView) -> u64| picture.streams.iter().map(of).sum::<u64>();
    let mut lines = vec![
        format!(
            "fleet {}   daemons {} of {} online   workflows {}   {} records/s   buffered {} ({})   dead letters {}",
            picture.info.fleet,
            online.count(),
            picture.daemons.len(),
            picture.workflows.len(),
            sum(|stream| u64::from(stream.rate)),
            sum(|stream| stream.ledger.buffered),
            render::bytes(sum(|stream| stream.buffered_bytes)),
            picture.letters_kept,
        ),
        match trouble {
            "" => String::new(),
            trouble => format!("OLD: {trouble}"),
        },
    ];
    let table = match view.tab {
        Tab::Streams => {
            let mut streams = picture.streams.clone();
            streams.sort_by_key(|stream| {
                let well = stream.trouble.is_empty() && stream.balances;
                (well, std::cmp::Reverse((stream.ledger.buffered, stream.rate)))
            });
            render::streams(&streams)
        }
        Tab::Daemons => {
            let mut daemons = picture.daemons.clone();
            daemons.sort_by_key(|daemon| {
                let well = daemon.presence == Presence::Online && daemon.troubled == 0 && daemon.damaged == 0;
                (well, daemon.name.clone())
            });
            render::daemons(&daemons)
        }
        Tab::Workflows => render::workflows(&picture.workflows),
    };
    let mut rows = table.lines().map(str::to_string);
    lines.extend(rows.next());
    let rows: Vec<String> = rows.collect();
    let room = height.saturating_sub(lines.len() + 1);
    let above = view.above.min(rows.len().saturating_sub(room));
    lines.extend(rows.iter().skip(above).take(room).cloned());
    lines.resize(height.saturating_sub(1), String::new());
    let tabs = Tab::ALL.map(|(tab, name)| match tab == view.tab {
        true => format!("[{name}]"),
        false => name.to_string(),
    });
    lines.push(format!("{}   tab: next   arrows: scroll   q: end", tabs.join("  ")));
    lines.truncate(height);
    lines.iter().map(|line| line.chars().take(width).collect()).collect()
}

async fn picture(client: &Client) -> Result<Picture, CliError> {
    let other = || CliError::Failed("the plane answered something else".to_string());
    let ApiResult::Info(info) = client.call(&ApiCall::Info).await? else {
        return Err(other());
    };
    let ApiResult::Daemons(daemons) = client.call(&ApiCall::DaemonList).await? else {
        return Err(other());
    };
    let ApiResult::Workflows(workflows) = client.call(&ApiCall::WorkflowList).await? else {
        return Err(other());
    };
    let ApiResult::Ledger(streams) = client.call(&ApiCall::Ledger).await? else {
        return Err(other());
    };
    let notes = workflows::notes(client, None).await?;
    Ok(Picture {
        letters_kept: kept(&notes, &workflows, &streams),
        info,
        daemons,
        workflows,
        streams,
    })
}

/// The terminal as it was, however this ends.
struct FullScreen;

impl FullScreen {
    fn enter() -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::Failed(format!("the terminal cannot be used: {error}"));
        terminal::enable_raw_mode().map_err(failed)?;
        let screen = FullScreen;
        execute!(std::io::stdout(), EnterAlternateScreen, cursor::Hide).map_err(failed)?;
        Ok(screen)
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that is gone.
        let _ = execute!(std::io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Shows the fleet until `q`; once, when nobody sits at a terminal or another form is asked for.
pub async fn run(dir: &Path, timeout: Duration, output: Output) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let first = picture(&client).await;
    let done = match first {
        Err(error) => Err(error),
        Ok(picture) if output != Output::Table || !std::io::stdout().is_terminal() => {
            once(&picture, output);
            Ok(())
        }
        Ok(picture) => watch(&client, picture).await,
    };
    client.close().await;
    done
}

fn once(picture: &Picture, output: Output) {
    let parts = [
        render::info(&picture.info),
        render::daemons(&picture.daemons),
        render::workflows(&picture.workflows),
        render::streams(&picture.streams),
    ];
    let names = picture.daemons.iter().map(|daemon| daemon.name.clone());
    Answer::new(picture, names, parts.join("\n")).print(output);
}

async fn watch(client: &Client, mut shown: Picture) -> Result<(), CliError> {
    let _screen = FullScreen::enter()?;
    let mut view = View {
        tab: Tab::Streams,
        above: 0,
    };
    let mut trouble = String::new();
    let mut looked = tokio::time::Instant::now();
    loop {
        draw(&screen(&shown, view, &trouble, terminal::size().unwrap_or((80, 24))))?;
        match key().await? {
            Some(key) => match pressed(view, key) {
                Some(next) => view = next,
                None => return Ok(()),
            },
            None if looked.elapsed() < LOOK => {}
            None => {
                match picture(client).await {
                    Ok(picture) => (shown, trouble) = (picture, String::new()),
                    Err(error) => trouble = error.to_string().lines().next().unwrap_or_default().to_string(),
                }
                looked = tokio::time::Instant::now();
            }
        }
    }
}

/// The next key, if one comes within a moment.
async fn key() -> Result<Option<KeyEvent>, CliError> {
    let waited = tokio::task::spawn_blocking(|| match event::poll(KEY_WAIT)? {
        true => event::read(),
        false => Ok(Event::FocusGained),
    });
    let failed = |error: String| CliError::Failed(format!("the terminal cannot be read: {error}"));
    let event = waited.await.map_err(|error| failed(error.to_string()))?;
    match event.map_err(|error| failed(error.to_string()))? {
        Event::Key(key) if key.is_press() => Ok(Some(key)),
        _ => Ok(None),
    }
}

fn draw(lines: &[String]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let drawn = (|| {
        for (row, line) in (0u16..).zip(lines) {
            queue!(out, cursor::MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        out.flush()
    })();
    drawn.map_err(|error| CliError::Failed(format!("the terminal cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use bus_schema::message::Ledger;

    use super::*;

    fn stream(edge: &str, buffered: u64, trouble: &str) -> StreamView {
        StreamView {
            workflow: "orders".into(),
            edge: edge.into(),
            producer: "gateway".into(),
            consumer: "hub".into(),
            epoch: 1,
            ledger: Ledger {
                buffered,
                ..Ledger::default()
            },
            balances: true,
            buffered_bytes: 10 * buffered,
            rate: 5,
            lag_ms: Default::default(),
            bytes: Default::default(),
            bytes_per_s: Default::default(),
            latency_ms: Default::default(),
            dropped_lately: Default::default(),
            has_letters: Default::default(),
            trouble: trouble.into(),
        }
    }

    fn fleet(streams: Vec<StreamView>) -> Picture {
        Picture {
            info: PlaneInfo {
                fleet: bus_schema::id::FleetId::of_root(&[1; 32]),
                plane: bus_schema::id::NodeId::of_key(&[2; 32]),
                version: "1".into(),
                roster_version: 1,
                daemons: 0,
                operators: 1,
                workflows: 1,
                http: String::new(),
            },
            daemons: Vec::new(),
            workflows: Vec::new(),
            streams,
            letters_kept: 7,
        }
    }

    const TOP: View = View {
        tab: Tab::Streams,
        above: 0,
    };

    #[test]
    fn letters_are_those_that_are_kept() {
        let view = |name: &str| WorkflowView {
            name: name.into(),
            revision: 1,
            by: String::new(),
            at_unix_ms: 0,
            daemons: Vec::new(),
            state: None,
            letters_kept: Default::default(),
        };
        let note = |workflow: &str, letters_kept| NoteView {
            workflow: workflow.into(),
            daemon: "hub".into(),
            letters_kept,
            drift: None,
        };
        let mut dead = stream("a->b", 0, "");
        dead.ledger.dead = 9;
        for (notes, expected) in [
            (vec![], 9),
            (
                vec![note("orders", Some(2)), note("orders", Some(3)), note("other", Some(4))],
                9,
            ),
            (vec![note("orders", Some(0)), note("other", None)], 0),
            (vec![note("orders", Some(2)), note("orders", None)], 9),
        ] {
            let found = kept(&notes, &[view("orders"), view("other")], std::slice::from_ref(&dead));
            assert_eq!(found, expected, "{notes:?}");
        }
    }

    #[test]
    fn the_worst_is_first_and_all_fits() {
        let mut streams: Vec<_> = (0..50).map(|n| stream(&format!("a{n}->b"), n, "")).collect();
        streams.push(stream("sick->b", 0, "the consumer is away"));
        let picture = fleet(streams);
        for size in [(80, 24), (200, 8), (10, 3), (1, 1), (0, 0)] {
            let lines = screen(&picture, TOP, "", size);
            assert_eq!(lines.len(), usize::from(size.1), "{size:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= usize::from(size.0)));
        }
        let lines = screen(&picture, TOP, "no answer", (200, 10));
        assert!(lines[0].contains("255 records/s"), "{lines:#?}");
        assert!(lines[1].starts_with("OLD: no answer"));
        assert!(
            lines[3].contains("sick->b") && lines[4].contains("a49->b"),
            "{lines:#?}"
        );
        assert!(lines[9].starts_with("[streams]"));
        let end = View { above: 1_000, ..TOP };
        let lines = screen(&picture, end, "", (200, 10));
        assert!(lines[8].contains("a0->b"), "scrolls to the end, not beyond: {lines:#?}");
    }

    #[test]
    fn keys() {
        let press = |view, code| pressed(view, KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(press(TOP, KeyCode::Tab).map(|view| view.tab), Some(Tab::Daemons));
        assert_eq!(
            press(TOP, KeyCode::Char('w')).map(|view| view.tab),
            Some(Tab::Workflows)
        );
        assert_eq!(press(TOP, KeyCode::Down).map(|view| view.above), Some(1));
        assert_eq!(press(TOP, KeyCode::Up).map(|view| view.above), Some(0));
        assert!(press(TOP, KeyCode::Char('q')).is_none());
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(pressed(TOP, interrupt).is_none());
    }
}
