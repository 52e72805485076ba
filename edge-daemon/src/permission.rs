//! What a daemon does for whom: the table of the bus on this side. The plane's side is `plane/src/permission.rs`. Pure.
//!
//! What reveals or alters no record and no secret may also be asked by the plane, and so by those who use its web page, within
//! their role and scope. What reveals records (taps, trials, dead letters) and what sets secrets needs a member with the
//! operator's role: it has keys of its own, that the plane does not hold unless its settings say so.

use bus_schema::{
    control::ControlCall,
    letter::LetterCall,
    member::Role,
    message::{CatalogAsk, Message as _, Ping, PlanPut, RecallAsk, RosterPut, StreamOpen, TapOpen, TimeHint},
    rotation::{CertificateShow, RotateAnswer},
    secret::SecretCall,
    trial::TrialCall,
};

#[cfg(test)]
mod walk;

/// A kind of message that a daemon takes.
#[derive(Debug)]
pub struct Taken {
    /// Its number.
    pub kind: u16,
    /// Members of which roles are heard.
    pub from: &'static [Role],
    /// Others are told that they may not; of a kind that is no request they are ignored.
    pub tells: bool,
}

/// Everything that a daemon takes on its control subject, and from whom. Of the commands themselves, [`Asked`] says more.
pub const TAKEN: &[Taken] = &[
    silent(StreamOpen::KIND, &[Role::Daemon]),
    silent(CertificateShow::KIND, &[Role::Daemon]),
    silent(PlanPut::KIND, &[Role::Plane]),
    silent(RosterPut::KIND, &[Role::Plane]),
    silent(CatalogAsk::KIND, &[Role::Plane]),
    silent(RecallAsk::KIND, &[Role::Plane]),
    silent(TimeHint::KIND, &[Role::Plane]),
    silent(RotateAnswer::KIND, &[Role::Plane]),
    silent(Ping::KIND, &[Role::Plane, Role::Operator, Role::Daemon]),
    telling(ControlCall::KIND, &[Role::Operator, Role::Plane]),
    telling(TapOpen::KIND, &[Role::Operator]),
    telling(LetterCall::KIND, &[Role::Operator]),
    telling(TrialCall::KIND, &[Role::Operator]),
    telling(SecretCall::KIND, &[Role::Operator]),
];

const fn silent(kind: u16, from: &'static [Role]) -> Taken {
    Taken {
        kind,
        from,
        tells: false,
    }
}

const fn telling(kind: u16, from: &'static [Role]) -> Taken {
    Taken {
        kind,
        from,
        tells: true,
    }
}

/// Whether a message of this kind by a member of this role goes on to whoever handles it. What is in no row goes on, and is not
/// understood there.
pub fn is_heard(kind: u16, role: Role) -> bool {
    let row = TAKEN.iter().find(|row| row.kind == kind);
    row.is_none_or(|row| row.tells || row.from.contains(&role))
}

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
    fn the_rows_say_what_the_commands_say() {
        for (kind, asked) in [
            (TapOpen::KIND, Asked::Tap),
            (LetterCall::KIND, Asked::Letters),
            (TrialCall::KIND, Asked::Trial),
            (SecretCall::KIND, Asked::Secrets),
            (ControlCall::KIND, Asked::Command),
            (ControlCall::KIND, Asked::Itself),
        ] {
            let row = TAKEN.iter().find(|row| row.kind == kind).unwrap();
            for role in [Role::Daemon, Role::Operator, Role::Plane] {
                assert_eq!(row.from.contains(&role), asked.is_for(role), "{asked:?} {role}");
            }
        }
        for (n, row) in TAKEN.iter().enumerate() {
            assert!(TAKEN[..n].iter().all(|other| other.kind != row.kind), "{row:?} twice");
        }
    }

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
