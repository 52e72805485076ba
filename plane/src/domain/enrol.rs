//! Enrolment tokens, and whether a candidate may join. Compares secrets in constant time; neither makes nor stores them.

use bus_schema::{
    id::{NodeId, TokenId},
    key::PublicKeys,
    limits::ROSTER_MEMBERS_MAX,
    member::{Role, enrol_proof, is_name, same_secret},
    message::EnrolAsk,
};

use super::{labels::Labels, members::Members};

/// Most uses one token can be made for.
pub const USES_MAX: u32 = 1_000;
/// Longest life of a token, in seconds: a year.
pub const TTL_S_MAX: u64 = 366 * 24 * 3_600;

/// A token as the store keeps it. The secret itself has to be kept: the proof is an HMAC under it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public half.
    pub id: TokenId,
    /// Its secret half.
    pub secret: [u8; 16],
    /// What its holders become.
    pub role: Role,
    /// The name its holder gets; `None` lets the candidate choose.
    pub name: Option<String>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// Until when, by the plane's clock, milliseconds since 1970. Advisory: a plane whose clock is wrong accepts longer
    /// or shorter, but never more often.
    pub expires_unix_ms: i64,
    /// Who has used it.
    pub used_by: Vec<NodeId>,
    /// What its daemons are labelled from the beginning.
    pub labels: Labels,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Token {{ id: {}, role: {}, uses_left: {}, secret: [redacted] }}",
            self.id, self.role, self.uses_left
        )
    }
}

/// What becomes of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A new member of this name.
    Welcome(String),
    /// It is a member already and has only not heard so: it gets the same certificate, and the token is not used up.
    Again,
    /// No, and why, for a person.
    Refused(String),
}

const NOT_VALID: &str = "this enrolment string is not valid here (mistyped, made by another fleet, or removed); make a \
                         new one with: mycelial token create";

/// Judges a candidate. `token` is the one its subject names, if the store has it.
pub fn judge(token: Option<&Token>, ask: &EnrolAsk, members: &Members, now_unix_ms: i64) -> Verdict {
    let refused = |why: String| Verdict::Refused(why);
    // One answer for an unknown token and for a wrong secret: nothing is told to who does not hold the secret.
    let Some(token) = token else {
        return refused(NOT_VALID.into());
    };
    if !same_secret(&enrol_proof(&token.secret, &ask.keys, &ask.name), &ask.proof) {
        return refused(NOT_VALID.into());
    }
    if let Some(verdict) = judge_keys(&ask.keys, token.role, members) {
        return verdict;
    }
    if token.uses_left == 0 {
        return refused("this enrolment string is used up; make a new one with: mycelial token create".into());
    }
    if now_unix_ms >= token.expires_unix_ms {
        return refused("this enrolment string has expired; make a new one with: mycelial token create".into());
    }
    let name = token.name.as_deref().unwrap_or(&ask.name);
    match judge_name(name, members) {
        Ok(()) => Verdict::Welcome(name.to_string()),
        Err(why) => refused(why),
    }
}

/// What is known of a candidate's keys already; `None`: nothing.
pub fn judge_keys(keys: &PublicKeys, role: Role, members: &Members) -> Option<Verdict> {
    let node = keys.node_id();
    if members.is_revoked(&node) {
        let why = "these keys were revoked; enrol with new keys (an empty data directory)";
        return Some(Verdict::Refused(why.into()));
    }
    let certificate = &members.get(&node)?.certificate;
    Some(if certificate.keys != *keys || certificate.role != role {
        Verdict::Refused(format!(
            "these keys already belong to the {} '{}'; enrol with new keys (an empty data directory)",
            certificate.role, certificate.name
        ))
    } else {
        Verdict::Again
    })
}

/// Whether one more member can have this name, and if not, why.
pub fn judge_name(name: &str, members: &Members) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "'{}' cannot be a name: use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit",
            name.chars().take(64).collect::<String>()
        ));
    }
    if let Some(other) = members.named(name) {
        return Err(format!(
            "the name '{name}' is taken by another {}; choose another",
            other.certificate.role
        ));
    }
    if members.len() >= ROSTER_MEMBERS_MAX {
        return Err(format!("the fleet is full: it has {ROSTER_MEMBERS_MAX} members"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        member::{Roster, Signed},
        message::HostFacts,
    };

    use super::*;
    use crate::domain::{
        members::Member,
        testing::{certificate, identity},
    };

    const SECRET: [u8; 16] = [7; 16];

    fn ask(n: u8, name: &str) -> EnrolAsk {
        let keys = identity(n).public();
        let proof = enrol_proof(&SECRET, &keys, name);
        EnrolAsk {
            keys,
            name: name.into(),
            proof,
            host: HostFacts::default(),
        }
    }

    fn token() -> Token {
        Token {
            id: TokenId::from_hash(&[9; 32]),
            secret: SECRET,
            role: Role::Daemon,
            name: None,
            uses_left: 1,
            expires_unix_ms: 1_000,
            used_by: Vec::new(),
            labels: Labels::new(),
        }
    }

    fn fleet() -> Members {
        let mut members = Members::new(certificate(1, "hub", Role::Daemon).fleet);
        for (n, name, role) in [(1, "hub", Role::Daemon), (2, "anna", Role::Operator)] {
            let certificate = certificate(n, name, role);
            let signed = Signed::new(&certificate, &identity(0));
            members.insert(Member {
                certificate,
                signed,
                host: HostFacts::default(),
                enrolled_unix_ms: 0,
            });
        }
        let revoked = vec![identity(3).public().node_id()];
        let roster = Roster {
            fleet: certificate(1, "hub", Role::Daemon).fleet,
            version: 1,
            members: Vec::new(),
            revoked,
        };
        members.set_roster(&roster);
        members
    }

    #[test]
    fn who_may_join() {
        let wrong_proof = EnrolAsk {
            proof: [0; 32],
            ..ask(9, "gateway")
        };
        let other_name_proven = EnrolAsk {
            name: "other".into(),
            ..ask(9, "gateway")
        };
        let fixed = Token {
            name: Some("pump-1".into()),
            ..token()
        };
        let used_up = Token {
            uses_left: 0,
            ..token()
        };
        let other_seal_key = {
            let mut ask = ask(1, "hub");
            ask.keys.seal = [4; 32];
            ask.proof = enrol_proof(&SECRET, &ask.keys, "hub");
            ask
        };
        let long = "a".repeat(33);
        // (token, question, time, new name or a part of the refusal)
        for (token, ask, now, verdict) in [
            (Some(token()), ask(9, "gateway"), 0, Ok("gateway")),
            (Some(fixed.clone()), ask(9, "gateway"), 0, Ok("pump-1")),
            (Some(fixed.clone()), ask(9, "Not A Name"), 0, Ok("pump-1")),
            (None, ask(9, "gateway"), 0, Err("not valid here")),
            (Some(token()), wrong_proof, 0, Err("not valid here")),
            (Some(token()), other_name_proven, 0, Err("not valid here")),
            (Some(used_up.clone()), ask(9, "gateway"), 0, Err("used up")),
            (Some(token()), ask(9, "gateway"), 1_000, Err("expired")),
            (Some(token()), ask(9, "hub"), 0, Err("taken by another daemon")),
            (Some(token()), ask(9, "anna"), 0, Err("taken by another operator")),
            (
                Some(Token {
                    name: Some("hub".into()),
                    ..token()
                }),
                ask(9, "x"),
                0,
                Err("taken"),
            ),
            (Some(token()), ask(9, ""), 0, Err("cannot be a name")),
            (Some(token()), ask(9, "-x"), 0, Err("cannot be a name")),
            (Some(token()), ask(9, &long), 0, Err("cannot be a name")),
            (Some(token()), ask(9, "a.b"), 0, Err("cannot be a name")),
            (Some(token()), ask(3, "gateway"), 0, Err("revoked")),
            (
                Some(token()),
                other_seal_key,
                0,
                Err("already belong to the daemon 'hub'"),
            ),
            (
                Some(token()),
                ask(2, "x"),
                0,
                Err("already belong to the operator 'anna'"),
            ),
            // A member asks again: whatever the token's state, it gets what it has.
            (Some(token()), ask(1, "hub"), 0, Ok("again")),
            (Some(used_up), ask(1, "elsewhere"), 2_000, Ok("again")),
            (Some(fixed), ask(1, "hub"), 0, Ok("again")),
        ] {
            let found = judge(token.as_ref(), &ask, &fleet(), now);
            match (found, verdict) {
                (Verdict::Again, Ok("again")) => {}
                (Verdict::Welcome(name), Ok(expected)) => assert_eq!(name, expected),
                (Verdict::Refused(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (found, verdict) => panic!("{ask:?}: {found:?}, not {verdict:?}"),
            }
        }
    }

    #[test]
    fn a_token_does_not_print_its_secret() {
        assert!(!format!("{:?}", token()).contains("7, 7"));
    }
}
