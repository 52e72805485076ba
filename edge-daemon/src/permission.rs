//! What a daemon does for whom: the table of the bus on this side. The plane's side is `plane/src/permission.rs`. Pure.
//!
//! What reveals or alters no record and no secret may also be asked by the plane, and so by those who use its web page, within
//! their role and scope. What reveals records (taps, trials, dead letters) and what sets secrets needs a member with the
//! operator's role: it has keys of its own, that the plane does not hold unless its settings say so.

use bus_schema::{control::ControlCall, member::Role};

/// What is asked of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Restart, pause, resume, drain, log level, other keys.
    Command,
    /// Its log, its diagnosis, its audit, the state of its buffers: about itself, not about records.
    Itself,
    /// Records that pass a node.
    Tap,
    /// Records that could not be delivered.
    Letters,
    /// What a text makes of records.
    Trial,
    /// Passwords and keys.
    Secrets,
}

impl Asked {
    /// All.
    #[cfg(test)]
    pub const ALL: [Self; 6] = [
        Self::Command,
        Self::Itself,
        Self::Tap,
        Self::Letters,
        Self::Trial,
        Self::Secrets,
    ];

    /// What a command asks.
    pub fn by(call: &ControlCall) -> Self {
        match call {
            ControlCall::Restart { .. }
            | ControlCall::Pause { .. }
            | ControlCall::Resume { .. }
            | ControlCall::Drain { .. }
            | ControlCall::Rotate { .. }
            | ControlCall::LogLevel { .. } => Self::Command,
            ControlCall::Logs { .. } | ControlCall::Diagnose | ControlCall::Audit(_) | ControlCall::SpoolCheck => {
                Self::Itself
            }
        }
    }

    /// Whether a member with this role is obeyed.
    pub fn is_for(self, role: Role) -> bool {
        match self {
            Self::Command | Self::Itself => matches!(role, Role::Operator | Role::Plane),
            Self::Tap | Self::Letters | Self::Trial | Self::Secrets => role == Role::Operator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may() {
        for asked in Asked::ALL {
            let reveals_nothing = matches!(asked, Asked::Command | Asked::Itself);
            for (role, may) in [
                (Role::Operator, true),
                (Role::Plane, reveals_nothing),
                (Role::Daemon, false),
            ] {
                assert_eq!(asked.is_for(role), may, "{asked:?} {role}");
            }
        }
    }
}
