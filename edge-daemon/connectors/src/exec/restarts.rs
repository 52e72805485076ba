//! How often the process of a source is begun again that dies before it has given anything.

use std::time::Duration;

use flow::Fault;

/// How long it rests then. Nobody may be near who could begin it again, so it is never given up.
const REST: Duration = Duration::from_secs(30);

/// Counts ends of a process between which nothing came of it.
#[derive(Debug)]
pub(crate) struct Restarts {
    failures_max: u32,
    failures: u32,
}

impl Restarts {
    /// `failures_max` of 0: it never rests.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self {
            failures_max,
            failures: 0,
        }
    }

    /// Something came of it.
    pub(crate) fn worked(&mut self) {
        self.failures = 0;
    }

    /// It failed. The fault says how long it rests, and why.
    pub(crate) fn after(&mut self, fault: Fault) -> Fault {
        self.failures = self.failures.saturating_add(1);
        match fault {
            Fault::Retry { cause, after } if self.failures_max > 0 && self.failures >= self.failures_max => {
                let (failures, rest) = (self.failures, REST.as_secs());
                Fault::Retry {
                    cause: format!(
                        "{cause}; it failed {failures} times in a row and gave nothing, and is started once in {rest} seconds \
                         until it does"
                    ),
                    after: Some(after.unwrap_or_default().max(REST)),
                }
            }
            fault => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_nothing_rests_and_is_never_given_up() {
        let rests = |restarts: &mut Restarts| match restarts.after(Fault::retry("dead")) {
            Fault::Retry { after, cause } => {
                assert_eq!(after.is_some(), cause.contains("gave nothing"), "{cause}");
                after == Some(REST)
            }
            other => panic!("{other}"),
        };
        let (mut restarts, mut patient) = (Restarts::new(3), Restarts::new(0));
        for _ in 0..2 {
            for wanted in [false, false, true, true, true] {
                assert_eq!(rests(&mut restarts), wanted);
                assert!(!rests(&mut patient));
            }
            restarts.worked();
        }
        let stop = Fault::stop("no such function");
        assert_eq!(restarts.after(stop.clone()), stop);
    }
}
