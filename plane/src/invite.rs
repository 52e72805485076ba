//! Enrolment strings: what a new member is told, and how it logs in at the broker. Pure; tokens and randomness come in.

use bus_schema::{
    access::User,
    api::{Failure, FailureKind},
    id::{NodeId, TokenId, hash},
    member::{BrokerLogin, Invitation, Role, is_name},
    pairing::door,
};
use zeroize::Zeroizing;

use crate::domain::{
    enrol::{TTL_S_MAX, Token, USES_MAX},
    labels::{self, LABELS_MAX, Labels},
};

/// Random bytes a token is made of.
pub const TOKEN_RANDOM_BYTES: usize = 32;

/// A token somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What its holders become.
    pub role: Role,
    /// The name its holder gets; `None` lets the candidate choose.
    pub name: Option<String>,
    /// How often it can be used.
    pub uses: u32,
    /// How long it can be used, in seconds.
    pub ttl_s: u64,
    /// What its daemons are labelled from the beginning.
    pub labels: Labels,
}

/// Makes a token, or says what is wrong with the wish. `random` must be fresh.
pub fn mint(wish: Wish, random: &[u8; TOKEN_RANDOM_BYTES], now_unix_ms: i64) -> Result<Token, Failure> {
    let wrong = |message: String, hint: &str| {
        Err(Failure {
            kind: FailureKind::Invalid,
            message,
            hint: hint.to_string(),
            problems: Vec::new(),
        })
    };
    let Wish {
        role,
        name,
        uses,
        ttl_s,
        labels,
    } = wish;
    if role == Role::Plane {
        return wrong(
            "a fleet has one plane; none can be enrolled".into(),
            "make a token for a daemon or an operator",
        );
    }
    if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
        let name: String = name.chars().take(64).collect();
        return wrong(
            format!("'{name}' cannot be a name"),
            "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit",
        );
    }
    if !(1..=USES_MAX).contains(&uses) {
        return wrong(format!("a token can be used 1 to {USES_MAX} times, not {uses}"), "");
    }
    if name.is_some() && uses != 1 {
        return wrong(
            "a token with a fixed name can be used once: names are unique".into(),
            "leave out the name",
        );
    }
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return wrong(format!("a token can live 1 to {TTL_S_MAX} seconds, not {ttl_s}"), "");
    }
    if let Some(mistake) = labels.iter().find_map(|(key, value)| labels::mistake(key, value)) {
        return wrong(mistake, "");
    }
    if labels.len() > LABELS_MAX {
        return wrong(format!("a daemon can have at most {LABELS_MAX} labels"), "");
    }
    if role != Role::Daemon && !labels.is_empty() {
        return wrong(
            format!("a token for an {role} has no labels: only daemons have"),
            "leave the labels out",
        );
    }
    let (id, secret) = random.split_at(TOKEN_RANDOM_BYTES / 2);
    let mut token = [0; 16];
    token.copy_from_slice(secret);
    let life_ms = i64::try_from(ttl_s * 1_000).unwrap_or(i64::MAX);
    Ok(Token {
        id: TokenId::from_hash(&hash("mycelial token v1", &[id])),
        secret: token,
        role,
        name,
        uses_left: uses,
        expires_unix_ms: now_unix_ms.saturating_add(life_ms),
        used_by: Vec::new(),
        labels,
    })
}

/// How members find and enter the bus, and whom they shall trust.
#[derive(Debug, Clone)]
pub struct Inviter {
    /// The fleet's root key.
    pub root: [u8; 32],
    /// The plane.
    pub plane: NodeId,
    /// Its X25519 key.
    pub plane_seal: [u8; 32],
    /// Bus addresses as members see them.
    pub bus: Vec<String>,
    /// The broker's certificate authority, DER.
    pub ca: Option<Vec<u8>>,
    /// Who makes log-ins.
    pub logins: Logins,
}

/// Where members' log-ins come from.
#[derive(Clone)]
pub enum Logins {
    /// The embedded broker's secret: every member has its own.
    Embedded(Zeroizing<[u8; 32]>),
    /// One for all, at a broker of the operator's own.
    Shared(BrokerLogin),
    /// None: the broker asks for none, or members bring their own.
    None,
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Logins::Embedded(_) => "Embedded",
            Logins::Shared(_) => "Shared",
            Logins::None => "None",
        })
    }
}

impl Logins {
    fn of(&self, user: User) -> Option<BrokerLogin> {
        match self {
            Logins::Embedded(secret) => Some(BrokerLogin {
                user: user.name(),
                password: user.password(secret),
            }),
            Logins::Shared(login) => Some(login.clone()),
            Logins::None => None,
        }
    }

    /// What a member logs in with; `None` keeps what it came with.
    pub fn of_member(&self, node: &NodeId) -> Option<BrokerLogin> {
        self.of(User::Node(*node))
    }
}

impl Inviter {
    /// The one string.
    pub fn invitation(&self, token: &Token) -> Invitation {
        self.made(token.id, token.secret, token.role)
    }

    /// The string of those who wait for approval: always the same, and no secret, for what stands in the secret's place enrols
    /// nobody.
    pub fn open_invitation(&self) -> Invitation {
        self.made(door(&self.root), [0; 16], Role::Daemon)
    }

    fn made(&self, token: TokenId, secret: [u8; 16], role: Role) -> Invitation {
        Invitation {
            bus: self.bus.clone(),
            ca: self.ca.clone(),
            login: self.logins.of(User::Candidate(token)),
            root: self.root,
            plane_seal: self.plane_seal,
            plane: self.plane,
            token,
            secret,
            role,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{identity, node};

    fn wish() -> Wish {
        Wish {
            role: Role::Daemon,
            name: None,
            uses: 1,
            ttl_s: 60,
            labels: Labels::new(),
        }
    }

    fn labelled(key: &str, value: &str) -> Labels {
        [(key.to_string(), value.to_string())].into()
    }

    #[test]
    fn wishes() {
        // (wish, a part of what is wrong)
        for (wish, wrong) in [
            (wish(), None),
            (
                Wish {
                    name: Some("gw-1".into()),
                    ..wish()
                },
                None,
            ),
            (
                Wish {
                    role: Role::Operator,
                    uses: USES_MAX,
                    ttl_s: TTL_S_MAX,
                    ..wish()
                },
                None,
            ),
            (
                Wish {
                    role: Role::Plane,
                    ..wish()
                },
                Some("one plane"),
            ),
            (
                Wish {
                    name: Some("GW 1".into()),
                    ..wish()
                },
                Some("'GW 1' cannot be a name"),
            ),
            (
                Wish {
                    name: Some("gw".into()),
                    uses: 2,
                    ..wish()
                },
                Some("used once"),
            ),
            (
                Wish {
                    labels: labelled("site", "berlin"),
                    ..wish()
                },
                None,
            ),
            (
                Wish {
                    labels: labelled("si te", "berlin"),
                    ..wish()
                },
                Some("'si te' cannot be a label"),
            ),
            (
                Wish {
                    labels: (0..=LABELS_MAX).map(|n| (n.to_string(), "x".to_string())).collect(),
                    ..wish()
                },
                Some("at most 32 labels"),
            ),
            (
                Wish {
                    role: Role::Operator,
                    labels: labelled("site", "berlin"),
                    ..wish()
                },
                Some("only daemons have"),
            ),
            (Wish { uses: 0, ..wish() }, Some("1 to 1000 times, not 0")),
            (
                Wish {
                    uses: USES_MAX + 1,
                    ..wish()
                },
                Some("not 1001"),
            ),
            (Wish { ttl_s: 0, ..wish() }, Some("not 0")),
            (
                Wish {
                    ttl_s: u64::MAX,
                    ..wish()
                },
                Some("seconds"),
            ),
        ] {
            match (mint(wish.clone(), &[7; 32], 1_000), wrong) {
                (Ok(token), None) => {
                    assert_eq!(
                        (token.uses_left, token.role, token.name, token.labels),
                        (wish.uses, wish.role, wish.name, wish.labels)
                    );
                    assert_eq!(token.expires_unix_ms, 1_000 + wish.ttl_s as i64 * 1_000);
                }
                (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure:?}"),
                (found, _) => panic!("{wish:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn an_invitation_carries_the_log_in_of_its_token_only() {
        let token = mint(wish(), &[7; 32], 0).unwrap();
        let inviter = |logins| Inviter {
            root: identity(0).public().sign,
            plane: node(100),
            plane_seal: identity(100).public().seal,
            bus: vec!["mqtt://127.0.0.1:1883".into()],
            ca: None,
            logins,
        };
        let embedded = inviter(Logins::Embedded(Zeroizing::new([3; 32])));
        let login = embedded.invitation(&token).login.unwrap();
        assert_eq!(login.user, format!("enrol-{}", token.id));
        assert_eq!(login.password, User::Candidate(token.id).password(&[3; 32]));
        assert_eq!(embedded.logins.of_member(&node(1)).unwrap().user, node(1).to_string());
        assert_eq!(inviter(Logins::None).invitation(&token).login, None);
        let shared = BrokerLogin {
            user: "fleet".into(),
            password: "x".into(),
        };
        assert_eq!(
            inviter(Logins::Shared(shared.clone())).invitation(&token).login,
            Some(shared)
        );
    }
}
