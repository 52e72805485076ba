//! Candidates without a token: who waits, by which code, and what becomes of them. A picture of the moment: whoever still waits
//! after a restart asks again, and shows another code. Pure; random numbers come in. See [`bus_schema::pairing`].

use std::collections::BTreeMap;

use bus_schema::{
    id::NodeId,
    key::PublicKeys,
    member::{Certificate, Role, Signed},
    message::HostFacts,
    pairing::{self, NONCE_BYTES, PairAsk, PendingView},
};

use super::{
    Change, Now, State,
    change::Signer,
    clip,
    enrol::{self, Verdict},
    members::Member,
};

/// Most candidates that wait at the same time; others are told to come later.
pub const WAITING_MAX: usize = 32;
/// A candidate asks every two seconds; one that was silent for so long has gone, in milliseconds.
const SILENT_MS_MAX: u64 = 30_000;
/// Longest time for which candidates may wait without a token, in seconds: a week.
pub const OPEN_S_MAX: u64 = 7 * 24 * 3_600;

/// The keys that codes are made of, on this side.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// The fleet's root key.
    pub root: &'a [u8; 32],
    /// The plane's X25519 key.
    pub plane_seal: &'a [u8; 32],
}

#[derive(Debug, Clone)]
struct Candidate {
    keys: PublicKeys,
    name: String,
    host: HostFacts,
    commitment: [u8; 32],
    ours: [u8; NONCE_BYTES],
    theirs: Option<[u8; NONCE_BYTES]>,
    since_unix_ms: i64,
    heard_ms: u64,
    is_rejected: bool,
}

impl Candidate {
    fn code(&self, ours: Ours<'_>) -> Option<String> {
        let code = |theirs| pairing::code(ours.root, ours.plane_seal, &self.keys, theirs, &self.ours);
        self.theirs.as_ref().map(code)
    }
}

/// What a candidate is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// To wait; with the plane's random number for it.
    Wait([u8; NONCE_BYTES]),
    /// It is a member.
    Known(Box<Member>),
    /// No, and why.
    Refused(String),
}

/// Those that wait.
#[derive(Debug, Clone, Default)]
pub struct Pairings(BTreeMap<NodeId, Candidate>);

impl Pairings {
    /// A candidate asks, for the first time or again. `fresh` is used at most once.
    fn ask(&mut self, ask: &PairAsk, fresh: [u8; NONCE_BYTES], now: Now) -> Told {
        let silent = |candidate: &Candidate| now.mono_ms.saturating_sub(candidate.heard_ms) > SILENT_MS_MAX;
        self.0.retain(|_, candidate| !silent(candidate));
        let node = ask.keys.node_id();
        let is_known = self.0.contains_key(&node);
        if !is_known && self.0.len() >= WAITING_MAX {
            return Told::Refused(format!(
                "{WAITING_MAX} candidates wait for approval already; try again when some of them were approved or rejected"
            ));
        }
        let new = || Candidate {
            keys: ask.keys,
            name: clip(&ask.name),
            host: HostFacts {
                hostname: clip(&ask.host.hostname),
                os: clip(&ask.host.os),
                arch: clip(&ask.host.arch),
                version: clip(&ask.host.version),
                ..ask.host
            },
            commitment: ask.commitment,
            ours: fresh,
            theirs: None,
            since_unix_ms: now.unix_ms,
            heard_ms: now.mono_ms,
            is_rejected: false,
        };
        let candidate = self.0.entry(node).or_insert_with(new);
        if candidate.is_rejected {
            self.0.remove(&node);
            return Told::Refused("an operator has rejected it".into());
        }
        // Another number of the candidate's gets another one of ours: none may be chosen to fit.
        if candidate.commitment != ask.commitment || candidate.keys != ask.keys {
            *candidate = new();
        }
        candidate.heard_ms = now.mono_ms;
        let is_bound = |nonce: &[u8; NONCE_BYTES]| pairing::commitment(nonce) == candidate.commitment;
        if is_known && candidate.theirs.is_none() {
            candidate.theirs = ask.nonce.filter(is_bound);
        }
        Told::Wait(candidate.ours)
    }

    /// Those that wait and can show a code, the first one first.
    fn views(&self, ours: Ours<'_>) -> Vec<PendingView> {
        let waiting = self.0.iter().filter(|(_, candidate)| !candidate.is_rejected);
        let mut views: Vec<_> = waiting
            .filter_map(|(node, candidate)| {
                Some(PendingView {
                    code: candidate.code(ours)?,
                    name: candidate.name.clone(),
                    node: *node,
                    host: candidate.host.clone(),
                    since_unix_ms: candidate.since_unix_ms,
                })
            })
            .collect();
        views.sort_by_key(|view| (view.since_unix_ms, view.node));
        views
    }
}

impl State {
    /// A candidate without a token asks to be let in, while that is allowed.
    pub fn on_pairing(&mut self, ask: &PairAsk, fresh: [u8; NONCE_BYTES], now: Now) -> Told {
        match enrol::judge_keys(&ask.keys, Role::Daemon, &self.members) {
            Some(Verdict::Refused(why)) => return Told::Refused(why),
            Some(_) => {
                if let Some(member) = self.members.get(&ask.keys.node_id()) {
                    return Told::Known(Box::new(Member::clone(member)));
                }
            }
            None => {}
        }
        self.pairings.ask(ask, fresh, now)
    }

    /// Candidates that wait for approval.
    pub fn waiting(&self, ours: Ours<'_>) -> Vec<PendingView> {
        self.pairings.views(ours)
    }

    fn candidate(&self, code: &str, ours: Ours<'_>) -> Option<(&NodeId, &Candidate)> {
        let shows = |candidate: &Candidate| candidate.code(ours).map(|shown| pairing::plain(&shown));
        let mut all = self.pairings.0.iter().filter(|(_, candidate)| !candidate.is_rejected);
        all.find(|(_, candidate)| shows(candidate) == Some(pairing::plain(code)))
    }

    /// What makes a waiting candidate a member; `None`: none shows this code.
    pub fn approve(
        &self,
        code: &str,
        name: Option<&str>,
        ours: Ours<'_>,
        signer: &Signer,
        now: Now,
    ) -> Option<Result<(Member, Vec<Change>), String>> {
        let (node, candidate) = self.candidate(code, ours)?;
        let name = name.unwrap_or(&candidate.name);
        Some(enrol::judge_name(name, &self.members).map(|()| {
            let certificate = Certificate {
                fleet: self.fleet,
                node: *node,
                name: name.to_string(),
                role: Role::Daemon,
                keys: candidate.keys,
                key_epoch: 0,
            };
            let member = Member {
                signed: Signed::new(&certificate, &signer.root),
                certificate,
                host: candidate.host.clone(),
                enrolled_unix_ms: now.unix_ms,
            };
            let changes = vec![
                Change::Member(Box::new(member.clone())),
                Change::RosterVersion(self.members.version() + 1),
            ];
            (member, changes)
        }))
    }

    /// A candidate has become a member, and waits no more.
    pub fn approved(&mut self, node: &NodeId) {
        self.pairings.0.remove(node);
    }

    /// Turns a waiting candidate away when it asks next; its name, `None`: none shows this code.
    pub fn reject(&mut self, code: &str, ours: Ours<'_>) -> Option<String> {
        let node = *self.candidate(code, ours)?.0;
        let candidate = self.pairings.0.get_mut(&node)?;
        candidate.is_rejected = true;
        Some(candidate.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{fleet, identity, node};

    const ROOT: [u8; 32] = [1; 32];
    const SEAL: [u8; 32] = [2; 32];
    const OURS: Ours<'static> = Ours {
        root: &ROOT,
        plane_seal: &SEAL,
    };

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            unix_ms: mono_ms as i64,
        }
    }

    fn ask(n: u8, nonce: u8, shows: bool) -> PairAsk {
        PairAsk {
            keys: identity(n).public(),
            name: format!("gw-{n}"),
            host: HostFacts::default(),
            commitment: pairing::commitment(&[nonce; NONCE_BYTES]),
            nonce: shows.then_some([nonce; NONCE_BYTES]),
        }
    }

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(100),
        }
    }

    /// Asks twice, as candidates do; the code that it shows.
    fn pair(state: &mut State, n: u8, ours: u8, now: Now) -> String {
        let told = state.on_pairing(&ask(n, n, false), [ours; NONCE_BYTES], now);
        assert_eq!(told, Told::Wait([ours; NONCE_BYTES]));
        let told = state.on_pairing(&ask(n, n, true), [99; NONCE_BYTES], now);
        assert_eq!(
            told,
            Told::Wait([ours; NONCE_BYTES]),
            "the same number as long as it asks the same"
        );
        let keys = identity(n).public();
        pairing::code(&ROOT, &SEAL, &keys, &[n; NONCE_BYTES], &[ours; NONCE_BYTES])
    }

    #[test]
    fn a_candidate_waits_shows_its_code_and_is_approved() {
        let mut state = State::new(fleet(), node(100));
        assert!(matches!(
            state.on_pairing(&ask(1, 1, false), [5; NONCE_BYTES], at(0)),
            Told::Wait(_)
        ));
        assert!(state.waiting(OURS).is_empty(), "nobody can compare yet");
        let code = pair(&mut state, 1, 5, at(0));
        assert_eq!(state.waiting(OURS)[0].code, code);
        assert!(state.approve("aaaa-aaaa", None, OURS, &signer(), at(1)).is_none());
        let typed = code.to_uppercase().replace('-', " ");
        let (member, changes) = state
            .approve(&typed, Some("pump"), OURS, &signer(), at(1))
            .unwrap()
            .unwrap();
        state.apply(changes, true, at(1));
        state.approved(&member.certificate.node);
        assert!(state.waiting(OURS).is_empty());
        let told = state.on_pairing(&ask(1, 1, true), [6; NONCE_BYTES], at(2));
        assert!(matches!(told, Told::Known(known) if known.certificate.name == "pump"));
        // Names are unique, and have to be names.
        let code = pair(&mut state, 2, 7, at(3));
        for (name, part) in [("pump", "taken"), ("A B", "cannot be a name")] {
            let refused = state
                .approve(&code, Some(name), OURS, &signer(), at(3))
                .unwrap()
                .unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn numbers_cannot_be_chosen_to_fit() {
        let mut state = State::new(fleet(), node(100));
        let code = pair(&mut state, 1, 5, at(0));
        // Another number of the candidate's: another one of the plane's, and no code until it is shown.
        let told = state.on_pairing(&ask(1, 9, false), [6; NONCE_BYTES], at(1));
        assert_eq!(told, Told::Wait([6; NONCE_BYTES]));
        assert!(state.waiting(OURS).is_empty());
        assert!(state.approve(&code, None, OURS, &signer(), at(1)).is_none());
        // A number that it did not bind itself to is none.
        let mut wrong = ask(1, 9, true);
        wrong.nonce = Some([8; NONCE_BYTES]);
        state.on_pairing(&wrong, [7; NONCE_BYTES], at(1));
        assert!(state.waiting(OURS).is_empty());
        // Whoever shows its number before it has heard ours is told ours first, all the same.
        state.on_pairing(&ask(2, 2, true), [8; NONCE_BYTES], at(1));
        assert!(state.waiting(OURS).is_empty());
    }

    #[test]
    fn the_rejected_the_silent_and_the_many() {
        let mut state = State::new(fleet(), node(100));
        let code = pair(&mut state, 1, 5, at(0));
        assert_eq!(state.reject(&code, OURS).as_deref(), Some("gw-1"));
        assert!(state.reject(&code, OURS).is_none() && state.waiting(OURS).is_empty());
        let told = state.on_pairing(&ask(1, 1, true), [6; NONCE_BYTES], at(1));
        assert!(matches!(told, Told::Refused(why) if why.contains("rejected")));
        for n in 0..WAITING_MAX as u8 {
            pair(&mut state, 10 + n, n, at(2));
        }
        assert_eq!(state.waiting(OURS).len(), WAITING_MAX);
        let told = state.on_pairing(&ask(1, 1, false), [6; NONCE_BYTES], at(3));
        assert!(matches!(told, Told::Refused(why) if why.contains("wait for approval already")));
        let told = state.on_pairing(&ask(1, 1, false), [6; NONCE_BYTES], at(3 + SILENT_MS_MAX));
        assert!(matches!(told, Told::Wait(_)), "the others have gone");
    }
}
