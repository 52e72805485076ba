//! The last lines of daemons' logs, and those that follow. Each daemon keeps some hundreds of lines of its own in memory; what several
//! have logged stands in the order of their clocks.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    control::{ControlCall, ControlResult, LogLine},
    id::NodeId,
};
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use crate::{
    answer::print_item,
    arguments::{Lines, Output},
    client::{CliError, Client},
    many::{self, Where},
    render,
};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Most daemons whose logs are followed at the same time: each is asked again and again.
const FOLLOWED_MAX: usize = 32;

/// Which lines of which logs.
pub struct Wish {
    /// Of which daemons.
    pub place: Where,
    /// Only lines about this workflow; empty for all.
    pub workflow: String,
    /// How many, and since when.
    pub lines: Lines,
}

/// How far the log of a daemon was read.
struct Tail {
    daemon: String,
    node: NodeId,
    /// The number of the newest line there was.
    after: u64,
    /// At most so many the next time.
    most: u16,
}

/// Where lines are printed.
#[derive(Clone, Copy)]
struct Printer {
    output: Output,
    /// Lines of more than one daemon say of which they are.
    several: bool,
    /// Older ones are left out, milliseconds since 1970.
    since_unix_ms: i64,
}

/// Prints the last lines of logs, and those that follow.
pub async fn run(dir: &Path, timeout: Duration, output: Output, wish: Wish) -> Result<(), CliError> {
    let client = Client::connect(dir, timeout, Vec::new()).await?;
    let done = read(&client, output, wish).await;
    client.close().await;
    done
}

/// From when on, milliseconds since 1970, by the clock of this host.
fn since(ago_s: Option<u64>) -> i64 {
    let Some(ago_s) = ago_s else { return i64::MIN };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = now.saturating_sub(Duration::from_secs(ago_s)).as_millis();
    i64::try_from(from).unwrap_or(i64::MAX)
}

async fn read(client: &Client, output: Output, wish: Wish) -> Result<(), CliError> {
    let Wish { place, workflow, lines } = wish;
    let targets = many::targets(client, place).await?;
    let count = targets.len();
    if lines.follow && count > FOLLOWED_MAX {
        return Err(CliError::Usage(format!(
            "{count} daemons are meant, and at most {FOLLOWED_MAX} logs are followed at the same time\n  \
             hint: choose fewer with -l, or leave -f out"
        )));
    }
    let printer = Printer {
        output,
        several: count > 1,
        since_unix_ms: since(lines.since),
    };
    let workflow = workflow.as_str();
    let tails = targets.into_iter().map(|target| Tail {
        daemon: target.name,
        node: target.node,
        after: 0,
        most: lines.most(),
    });
    let looked = tails.map(|tail| async move {
        let found = look(client, &tail, workflow).await;
        (tail, found)
    });
    let looked: Vec<_> = stream::iter(looked).buffered(many::AT_ONCE_MAX).collect().await;
    let (mut tails, mut seen, mut silent) = (Vec::new(), Vec::new(), 0);
    for (mut tail, found) in looked {
        match found {
            Ok((lines, newest)) => {
                seen.extend(lines.into_iter().map(|line| (tail.daemon.clone(), line)));
                (tail.after, tail.most) = (newest, u16::MAX);
            }
            Err(CliError::Unreachable(cause)) if count > 1 => {
                eprintln!("{cause}");
                silent += 1;
            }
            Err(error) => return Err(error),
        }
        tails.push(tail);
    }
    seen.sort_by(|(a, x), (b, y)| (x.unix_ms, a, x.number).cmp(&(y.unix_ms, b, y.number)));
    if !seen.iter().all(|(daemon, line)| printer.line(daemon, line)) {
        return Ok(());
    }
    if lines.follow && count > 0 {
        let followed = tails.into_iter().map(|tail| follow(client, tail, workflow, printer));
        let mut followed = stream::iter(followed).buffer_unordered(FOLLOWED_MAX);
        // None ends by itself: the first that does says that nobody reads on, or that a daemon will not.
        return followed.next().await.unwrap_or(Ok(()));
    }
    match silent {
        0 => Ok(()),
        silent => Err(CliError::Unreachable(format!(
            "{silent} of {count} daemons did not answer"
        ))),
    }
}

/// New lines of a daemon's log, and the number of the newest there is.
async fn look(client: &Client, tail: &Tail, workflow: &str) -> Result<(Vec<LogLine>, u64), CliError> {
    let Tail {
        daemon,
        node,
        after,
        most,
    } = tail;
    client.know(node).await?;
    let call = ControlCall::Logs {
        after: *after,
        lines_max: *most,
        workflow: workflow.to_string(),
    };
    match client.ask(daemon, node, &call).await? {
        ControlResult::Lines { lines, newest } => Ok((lines, newest)),
        ControlResult::Failed(failure) => Err(CliError::Refused(failure)),
        _ => Err(CliError::Failed(format!("{daemon} answered something else"))),
    }
}

/// Prints what comes until nobody reads on.
async fn follow(client: &Client, mut tail: Tail, workflow: &str, printer: Printer) -> Result<(), CliError> {
    let mut told = String::new();
    loop {
        sleep(LOOK).await;
        match look(client, &tail, workflow).await {
            // It has started anew, and counts anew: all its lines are new.
            Ok((_, newest)) if newest < tail.after => tail.after = 0,
            Ok((lines, newest)) => {
                (tail.after, tail.most) = (newest, u16::MAX);
                told.clear();
                if !lines.iter().all(|line| printer.line(&tail.daemon, line)) {
                    return Ok(());
                }
            }
            Err(CliError::Unreachable(cause)) => {
                if cause != told {
                    eprintln!("{cause}; trying again");
                    told = cause;
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl Printer {
    /// Prints a line, unless it is too old. `false`: nobody reads on.
    fn line(self, daemon: &str, line: &LogLine) -> bool {
        if line.unix_ms < self.since_unix_ms {
            return true;
        }
        let of = match self.several {
            true => format!("{daemon}  "),
            false => String::new(),
        };
        let about = match line.workflow.as_str() {
            "" => String::new(),
            workflow => format!("[{workflow}] "),
        };
        let time = render::clock_time(line.unix_ms);
        let text = format!("{time}  {of}{:<5}  {about}{}", line.level, line.text);
        let data = serde_json::json!({
            "daemon": daemon, "number": line.number, "unix_ms": line.unix_ms, "level": line.level,
            "workflow": line.workflow, "text": line.text,
        });
        print_item(self.output, &data, daemon, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_back() {
        assert_eq!(since(None), i64::MIN, "all there are");
        let (minute, hour) = (since(Some(60)), since(Some(3_600)));
        assert!((3_539_000..3_541_000).contains(&(minute - hour)), "{minute} {hour}");
        assert_eq!(since(Some(u64::MAX)), 0, "before there were clocks");
        let lines = |most, since| Lines {
            most,
            since,
            follow: false,
        };
        for (lines, most) in [
            (lines(None, None), 100),
            (lines(Some(7), None), 7),
            (lines(Some(7), Some(60)), 7),
            (lines(None, Some(60)), u16::MAX),
        ] {
            assert_eq!(lines.most(), most, "{lines:?}");
        }
    }
}
