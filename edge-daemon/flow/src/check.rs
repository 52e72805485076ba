//! Checks of sources, destinations, and transforms that others do: whether one could work here and now, and else what is wrong
//! and how to mend it. Takes and gives no record, waits only so long, and leaves nothing open.

use std::time::Duration;

pub use bus_schema::trial::{Trouble, TroubleKind};

use crate::{Fault, outside::Outside, sink::Sink, source::Source};

/// How long one check may take.
pub const CHECK_WAIT_MAX: Duration = Duration::from_secs(15);

/// Checks a source. What was seen, for a person, or what is wrong.
pub async fn check_source(source: &mut dyn Source) -> Result<String, Trouble> {
    in_time(source.check()).await
}

/// Checks a destination. What was seen, for a person, or what is wrong.
pub async fn check_sink(sink: &mut dyn Sink) -> Result<String, Trouble> {
    in_time(sink.check()).await
}

/// Checks a transform whose work is done elsewhere. What was seen, for a person, or what is wrong.
pub async fn check_outside(outside: &mut dyn Outside) -> Result<String, Trouble> {
    in_time(outside.check()).await
}

async fn in_time(check: impl Future<Output = Result<String, Trouble>>) -> Result<String, Trouble> {
    let silent = |_| {
        Err(Trouble::new(
            TroubleKind::Silent,
            format!("no answer for {} seconds", CHECK_WAIT_MAX.as_secs()),
            "look at the load of the other side, and whether something on the way swallows what is sent",
        ))
    };
    tokio::time::timeout(CHECK_WAIT_MAX, check).await.unwrap_or_else(silent)
}

/// What a fault is to somebody who checks: it says by itself who can mend it, and mostly how.
pub fn trouble_of(fault: &Fault) -> Trouble {
    let remedy = match fault {
        Fault::Stop { .. } => "change the workflow, or what it names",
        Fault::Retry { .. } | Fault::Moved { .. } => {
            "see the cause; a workflow tries again by itself until it is mended"
        }
    };
    Trouble::new(TroubleKind::Other, fault.to_string(), remedy)
}

/// What `open` came to.
pub(crate) fn opened(opened: Result<(), Fault>) -> Result<String, Trouble> {
    opened
        .map(|()| "it can be opened".to_string())
        .map_err(|fault| trouble_of(&fault))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::source::{Position, Read};

    /// Opens with a fault, never, or well.
    struct Mute(Option<Result<(), Fault>>, u32);

    #[async_trait]
    impl Source for Mute {
        async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
            assert_eq!(after, None);
            match self.0.clone() {
                Some(opened) => opened,
                None => std::future::pending().await,
            }
        }

        async fn read(&mut self) -> Result<Read, Fault> {
            panic!("a check reads nothing")
        }

        async fn close(&mut self) {
            self.1 += 1;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opening_is_the_check_of_those_that_have_none() {
        for (opens, kind, said) in [
            (Some(Ok(())), None, "it can be opened"),
            (Some(Err(Fault::retry("locked"))), Some(TroubleKind::Other), "locked"),
            (
                Some(Err(Fault::stop("no such table"))),
                Some(TroubleKind::Other),
                "no such table",
            ),
            (None, Some(TroubleKind::Silent), "no answer for 15 seconds"),
        ] {
            let hangs = opens.is_none();
            let mut source = Mute(opens, 0);
            let (found, text) = match check_source(&mut source).await {
                Ok(found) => (None, found),
                Err(trouble) => {
                    assert!(!trouble.remedy.is_empty());
                    (Some(trouble.kind), trouble.cause)
                }
            };
            assert_eq!((found, text.as_str()), (kind, said));
            assert_eq!(source.1, u32::from(!hangs), "it is closed");
        }
    }
}
