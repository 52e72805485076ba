//! The ways into a server, as it describes them (OPC 10000-4, 7.14), and which of them is taken. Performs no I/O.

use super::{
    channel::POLICY_NONE,
    data::localized,
    security::{Mode, POLICIES, Policy},
    wire::{Reader, WireError},
};

/// Ways that are looked at; a server has a dozen.
const ENDPOINTS_MAX: usize = 64;
/// Ways to log in, of each.
const TOKENS_MAX: usize = 32;
/// How bytes are sent here; the others are HTTP.
const TRANSPORT: &str = "uatcp-uasc-uabinary";
/// How nobody in particular, and a user with a password, proves who one is.
const TOKEN_ANONYMOUS: u32 = 0;
const TOKEN_USER_NAME: u32 = 1;

/// A way into a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `None`: one that is not known.
    pub mode: Option<Mode>,
    /// Address of its policy.
    pub policy: String,
    /// The server's, as DER.
    pub certificate: Vec<u8>,
    tokens: Vec<LoginPolicy>,
}

/// A way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LoginPolicy {
    id: String,
    kind: u32,
    /// How passwords are encrypted; empty: as the policy of the endpoint says.
    policy: String,
}

/// Reads a list of ways.
pub(super) fn endpoints(from: &mut Reader<'_>) -> Result<Vec<Endpoint>, WireError> {
    let mut all = Vec::new();
    from.list(|from| {
        let (endpoint, transport) = endpoint(from)?;
        let is_ours = transport.is_empty() || transport.ends_with(TRANSPORT);
        if is_ours && all.len() < ENDPOINTS_MAX {
            all.push(endpoint);
        }
        Ok(())
    })?;
    Ok(all)
}

fn endpoint<'a>(from: &mut Reader<'a>) -> Result<(Endpoint, &'a str), WireError> {
    from.text()?;
    application(from)?;
    let certificate = from.bytes()?.unwrap_or_default().to_vec();
    let mode = Mode::of(from.u32()?);
    let policy = from.text()?.unwrap_or_default().to_string();
    let mut tokens = Vec::new();
    from.list(|from| {
        let (id, kind) = (from.text()?.unwrap_or_default().to_string(), from.u32()?);
        from.text()?;
        from.text()?;
        let policy = from.text()?.unwrap_or_default().to_string();
        if tokens.len() < TOKENS_MAX {
            tokens.push(LoginPolicy { id, kind, policy });
        }
        Ok(())
    })?;
    let transport = from.text()?.unwrap_or_default();
    from.u8()?;
    let endpoint = Endpoint {
        mode,
        policy,
        certificate,
        tokens,
    };
    Ok((endpoint, transport))
}

fn application(from: &mut Reader<'_>) -> Result<(), WireError> {
    from.text()?;
    from.text()?;
    localized(from)?;
    from.u32()?;
    from.text()?;
    from.text()?;
    from.list(Reader::text)?;
    Ok(())
}

/// The way that nothing protects.
pub(super) fn open(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    endpoints
        .iter()
        .find(|endpoint| endpoint.mode == Some(Mode::None) && endpoint.policy == POLICY_NONE)
}

/// The way to take: never one that protects less than `mode`, no more than is wanted if there is a choice, and with the
/// strongest policy, or the one that is wanted.
pub(super) fn protected<'a>(
    endpoints: &'a [Endpoint],
    mode: Mode,
    wanted: Option<&'static Policy>,
) -> Option<(&'a Endpoint, Mode, &'static Policy)> {
    let known = endpoints.iter().filter_map(|endpoint| {
        let (offered, policy) = (endpoint.mode?, Policy::find(&endpoint.policy)?);
        let fits = offered >= mode && offered > Mode::None && wanted.is_none_or(|wanted| wanted == policy);
        fits.then_some((endpoint, offered, policy))
    });
    known.min_by_key(|(_, offered, policy)| (*offered, POLICIES.iter().position(|known| known == *policy)))
}

/// What a server offers, for a person: policies and modes, each once.
pub(super) fn offered(endpoints: &[Endpoint]) -> String {
    let mut all: Vec<String> = Vec::new();
    for endpoint in endpoints {
        // Behind the last sign of an address.
        let policy = endpoint.policy.rsplit(['#', '/']).next().unwrap_or_default();
        let shown = match endpoint.mode {
            Some(Mode::None) if endpoint.policy == POLICY_NONE => "none".to_string(),
            mode => format!("{policy} with {}", mode.map_or("a mode that is not known", Mode::word)),
        };
        if !all.contains(&shown) {
            all.push(shown);
        }
    }
    match all.is_empty() {
        true => "nothing".to_string(),
        false => all.join(", "),
    }
}

/// How a user proves who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login<'a> {
    /// With a password as it is, by the way of this name.
    Plain(&'a str),
    /// With a password that is encrypted.
    Encrypted(&'a str, &'static Policy),
}

/// Which passwords may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passwords {
    /// As they are: nobody cares who reads them.
    Readable,
    /// As they are, or encrypted: the connection is.
    Either,
    /// Encrypted only.
    Encrypted,
}

impl Endpoint {
    /// How nobody in particular gets in, if so.
    pub(super) fn anonymous(&self) -> Option<&str> {
        let mut tokens = self.tokens.iter();
        let found = tokens.find(|token| token.kind == TOKEN_ANONYMOUS);
        found.map(|token| token.id.as_str())
    }

    /// Whether users get in at all.
    pub(super) fn has_users(&self) -> bool {
        self.tokens.iter().any(|token| token.kind == TOKEN_USER_NAME)
    }

    /// How a user gets in, if so.
    pub(super) fn user(&self, passwords: Passwords) -> Option<Login<'_>> {
        let users = self.tokens.iter().filter(|token| token.kind == TOKEN_USER_NAME);
        let logins = users.filter_map(|token| {
            let policy = match token.policy.as_str() {
                "" => self.policy.as_str(),
                policy => policy,
            };
            match Policy::find(policy) {
                Some(policy) => Some(Login::Encrypted(&token.id, policy)),
                None => (policy == POLICY_NONE).then_some(Login::Plain(&token.id)),
            }
        });
        let rank = |login: &Login<'_>| match (login, passwords) {
            (Login::Plain(_), Passwords::Encrypted) => None,
            (Login::Plain(_), Passwords::Readable) => Some(0),
            (Login::Encrypted(_, policy), _) => POLICIES.iter().position(|known| known == *policy).map(|at| at + 1),
            (Login::Plain(_), Passwords::Either) => Some(POLICIES.len() + 1),
        };
        logins
            .filter_map(|login| Some((rank(&login)?, login)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, login)| login)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A way into a server; those to log in are name, kind, policy.
    pub(in super::super) fn offer(mode: u32, policy: &str, tokens: &[(&str, u32, &str)]) -> Endpoint {
        let token = |(id, kind, policy): &(&str, u32, &str)| LoginPolicy {
            id: id.to_string(),
            kind: *kind,
            policy: uri(policy),
        };
        Endpoint {
            mode: Mode::of(mode),
            policy: uri(policy),
            certificate: Vec::new(),
            tokens: tokens.iter().map(token).collect(),
        }
    }

    fn uri(policy: &str) -> String {
        match policy {
            "" => String::new(),
            policy => format!("http://opcfoundation.org/UA/SecurityPolicy#{policy}"),
        }
    }

    #[test]
    fn the_strongest_is_taken_and_none_that_protects_less_than_is_wanted() {
        let all = [
            offer(1, "None", &[]),
            offer(3, "Basic128Rsa15", &[]),
            offer(2, "Basic256Sha256", &[]),
            offer(3, "Aes128_Sha256_RsaOaep", &[]),
            offer(3, "Basic256Sha256", &[]),
            offer(3, "None", &[]),
            offer(9, "Aes256_Sha256_RsaPss", &[]),
        ];
        let aes128 = Policy::find(&uri("Aes128_Sha256_RsaOaep"));
        let pss = Policy::find(&uri("Aes256_Sha256_RsaPss"));
        for (mode, wanted, found) in [
            (
                Mode::SignAndEncrypt,
                None,
                Some((Mode::SignAndEncrypt, "Basic256Sha256")),
            ),
            (Mode::Sign, None, Some((Mode::Sign, "Basic256Sha256"))),
            // More than is wanted, where the policy leaves no choice.
            (
                Mode::Sign,
                aes128,
                Some((Mode::SignAndEncrypt, "Aes128_Sha256_RsaOaep")),
            ),
            (Mode::Sign, pss, None),
        ] {
            let taken = protected(&all, mode, wanted).map(|(_, mode, policy)| (mode, policy.name));
            assert_eq!(taken, found, "{mode:?} {wanted:?}");
        }
        assert_eq!(protected(&all[..2], Mode::Sign, None), None);
        assert_eq!(open(&all), Some(&all[0]));
        assert_eq!(open(&all[1..]), None);
        assert_eq!(
            offered(&all[..4]),
            "none, Basic128Rsa15 with sign_and_encrypt, Basic256Sha256 with sign, Aes128_Sha256_RsaOaep with sign_and_encrypt"
        );
        assert_eq!(offered(&[]), "nothing");
    }

    #[test]
    fn passwords_are_sent_as_they_may_be() {
        let policy = |name: &str| Policy::find(&uri(name)).unwrap();
        let (plain, basic) = (("p", 1, "None"), ("b", 1, "Basic256Sha256"));
        let (as_channel, old, nobody) = (("c", 1, ""), ("o", 1, "Basic128Rsa15"), ("a", 0, ""));
        let of_basic = Some(Login::Encrypted("b", policy("Basic256Sha256")));
        for (tokens, readable, either, encrypted) in [
            (&[nobody][..], None, None, None),
            (&[plain], Some(Login::Plain("p")), Some(Login::Plain("p")), None),
            (&[plain, basic], Some(Login::Plain("p")), of_basic, of_basic),
            (&[basic, old], of_basic, of_basic, of_basic),
            (&[old], None, None, None),
        ] {
            let offer = offer(1, "None", tokens);
            let found = [Passwords::Readable, Passwords::Either, Passwords::Encrypted].map(|may| offer.user(may));
            assert_eq!(found, [readable, either, encrypted], "{tokens:?}");
        }
        // Without a policy of its own it is that of the connection.
        let pss = Some(Login::Encrypted("c", policy("Aes256_Sha256_RsaPss")));
        assert_eq!(
            offer(3, "Aes256_Sha256_RsaPss", &[as_channel]).user(Passwords::Either),
            pss
        );
        assert_eq!(
            offer(1, "None", &[as_channel]).user(Passwords::Readable),
            Some(Login::Plain("c"))
        );
        assert_eq!(offer(1, "None", &[nobody]).anonymous(), Some("a"));
        assert!(!offer(1, "None", &[nobody]).has_users() && offer(1, "None", &[old]).has_users());
    }
}
