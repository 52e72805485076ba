//! Users of the web page and tokens of programs, from the plane's own machine: for a plane whose admin forgot the password. Works beside a running plane,
//! which reads users at every request.

use std::{io::Read as _, path::Path};

use crate::{
    clock::unix_ms,
    domain::{labels::Selector, views::span},
    init::is_made,
    login::{LoginError, fresh_secret, from_directory},
    password,
    permission::Rank,
    store::{Store, StoreError, User, api_tokens::ApiToken},
};

/// Whoever logs in with a code from the plane's own directory.
pub const OWNER: &str = "owner";
/// Most users.
pub const USERS_MAX: u32 = 1_000;
/// Characters of a password that is made here.
const PASSWORD_CHARS: usize = 20;

/// It did not work.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// There is no plane, or no randomness.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was wished for cannot be.
    #[error("{0}")]
    Wish(String),
    /// The password cannot be hashed or read.
    #[error("{0}")]
    Password(String),
}

/// Whose password, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// A new one is made, and shown once.
    Fresh,
    /// The first line of stdin.
    Stdin,
}

fn open(dir: &Path) -> Result<Store, PeopleError> {
    if !is_made(dir) {
        return Err(LoginError::NoPlane(dir.display().to_string()).into());
    }
    Ok(Store::open(&dir.join(crate::config::STORE))?)
}

/// The password, and whether it has to be shown.
fn secret(from: Secret) -> Result<(String, bool), PeopleError> {
    let (text, is_fresh) = match from {
        Secret::Fresh => (fresh_secret()?.chars().take(PASSWORD_CHARS).collect(), true),
        Secret::Stdin => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(4_096).read_to_string(&mut text);
            read.map_err(|error| PeopleError::Password(format!("cannot read the password: {error}")))?;
            (text.lines().next().unwrap_or_default().to_string(), false)
        }
    };
    match password::mistake(&text) {
        Some(wrong) => Err(PeopleError::Wish(wrong)),
        None => Ok((text, is_fresh)),
    }
}

fn no_user(name: &str) -> PeopleError {
    PeopleError::Wish(format!("there is no user '{name}'; see: mycelial-plane user list"))
}

/// A user in a line: name, role, scope.
pub fn line(user: &User) -> String {
    let scope = user.scope.as_deref().unwrap_or("the whole fleet");
    format!("{}\t{}\t{scope}", user.name, user.rank.word())
}

/// All users.
pub fn list(dir: &Path) -> Result<Vec<User>, PeopleError> {
    Ok(open(dir)?.users()?)
}

/// Adds a user; the password, if it was made here.
pub fn add(
    dir: &Path,
    name: &str,
    rank: Rank,
    scope: Option<String>,
    from: Secret,
) -> Result<Option<String>, PeopleError> {
    let mut store = open(dir)?;
    if !is_plain(name) {
        let message = format!(
            "'{}' cannot be a name: use letters, digits, '-', '_', '.' and '@'",
            name.escape_debug()
        );
        return Err(PeopleError::Wish(message));
    }
    if let Some(wrong) = mistaken_for_owner(name) {
        return Err(PeopleError::Wish(wrong));
    }
    if let Some(scope) = &scope {
        Selector::parse_scope(scope).map_err(PeopleError::Wish)?;
    }
    let (text, is_fresh) = secret(from)?;
    let user = User {
        name: name.to_string(),
        rank,
        scope,
        password: password::hash(&text).map_err(PeopleError::Password)?,
        made_unix_ms: unix_ms(),
    };
    let event = from_directory("add a user", &format!("{name} as {}", rank.word()));
    let added = store.noted(event, |store, _| Ok(store.add_user(&user, USERS_MAX)?.then_some(())))?;
    if added.is_none() {
        let message =
            format!("there is a user '{name}' already; another password: mycelial-plane user password {name}");
        return Err(PeopleError::Wish(message));
    }
    Ok(is_fresh.then_some(text))
}

/// Gives a user another password, and ends its sessions; the password, if it was made here.
pub fn change_password(dir: &Path, name: &str, from: Secret) -> Result<Option<String>, PeopleError> {
    let mut store = open(dir)?;
    if store.user(name)?.is_none() {
        return Err(no_user(name));
    }
    let (text, is_fresh) = secret(from)?;
    let hash = password::hash(&text).map_err(PeopleError::Password)?;
    let event = from_directory("change a user", &format!("{name}, another password"));
    let changed = store.noted(event, |store, _| {
        Ok(store.change_user(name, None, None, Some(&hash), None)?.then_some(()))
    })?;
    changed.ok_or_else(|| no_user(name))?;
    Ok(is_fresh.then_some(text))
}

/// Gives a user another role or scope; what is `None` stays, an empty scope takes it off. It holds at its next request.
pub fn change(dir: &Path, name: &str, rank: Option<Rank>, scope: Option<&str>) -> Result<(), PeopleError> {
    let mut store = open(dir)?;
    let mut what = name.to_string();
    match (rank, scope) {
        (None, None) => {
            let message = "nothing would change: say --role, --scope, or both";
            return Err(PeopleError::Wish(message.to_string()));
        }
        (rank, scope) => {
            if let Some(rank) = rank {
                what.push_str(&format!(", {} from now on", rank.word()));
            }
            match scope {
                None => {}
                Some("") => what.push_str(", all daemons"),
                Some(scope) => {
                    Selector::parse_scope(scope).map_err(PeopleError::Wish)?;
                    what.push_str(&format!(", only '{scope}'"));
                }
            }
        }
    }
    let event = from_directory("change a user", &what);
    let changed = store.noted(event, |store, _| {
        Ok(store.change_user(name, rank, scope, None, None)?.then_some(()))
    })?;
    changed.ok_or_else(|| no_user(name))
}

/// Tokens of programs that can still be used, a line for each: id, name, role, scope, who made it, how long it still works.
pub fn api_tokens(dir: &Path) -> Result<Vec<String>, PeopleError> {
    let now_unix_ms = unix_ms();
    let tokens = open(dir)?.api_tokens(now_unix_ms)?.into_iter();
    let line = |token: ApiToken| {
        let scope = token.scope.as_deref().unwrap_or("the whole fleet");
        let left_ms = token.expires_unix_ms.saturating_sub(now_unix_ms);
        let left = span(left_ms.unsigned_abs());
        format!(
            "{}\t{}\t{}\t{scope}\t{}\tfor {left}",
            token.id,
            token.name,
            token.rank.word(),
            token.by
        )
    };
    Ok(tokens.map(line).collect())
}

/// Ends a token, by its id or name.
pub fn end_api_token(dir: &Path, key: &str) -> Result<(), PeopleError> {
    let mut store = open(dir)?;
    let all = store.api_tokens(unix_ms())?;
    let found = all.iter().find(|token| token.id == key || token.name == key);
    let found = found.ok_or_else(|| {
        PeopleError::Wish(format!(
            "there is no API token '{}'; see: mycelial-plane api-token list",
            key.escape_debug()
        ))
    })?;
    let event = from_directory("end an API token", &found.name);
    store.noted(event, |store, _| Ok(store.end_api_token(&found.id)?.map(drop)))?;
    Ok(())
}

/// Removes a user and ends its sessions.
pub fn remove(dir: &Path, name: &str) -> Result<(), PeopleError> {
    let mut store = open(dir)?;
    let event = from_directory("remove a user", name);
    let removed = store.noted(event, |store, _| Ok(store.remove_user(name)?.then_some(())))?;
    removed.ok_or_else(|| no_user(name))
}

/// What is wrong with this name of a user, if it is whose the entries of the plane's directory are.
pub fn mistaken_for_owner(name: &str) -> Option<String> {
    let message = || format!("'{name}' is what whoever has the plane's directory is called: choose another name");
    name.eq_ignore_ascii_case(OWNER).then(message)
}

/// Whether this can be the name of a user.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    !name.is_empty() && name.len() <= bus_schema::limits::NAME_BYTES_MAX && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::AuditCall;

    use super::*;
    use crate::init::{Wishes, init};

    #[test]
    fn somebody_who_forgot_the_password_gets_in_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(list(dir.path()).unwrap_err().to_string().contains("holds no plane"));
        init(dir.path(), &Wishes::default()).unwrap();
        let made = add(dir.path(), "ada", Rank::Admin, None, Secret::Fresh)
            .unwrap()
            .unwrap();
        assert_eq!(made.chars().count(), PASSWORD_CHARS);
        let kept = |name: &str| Store::open(&dir.path().join("plane.db")).unwrap().user(name).unwrap();
        assert!(password::is_right(&made, Some(&kept("ada").unwrap().password)));
        let again = change_password(dir.path(), "ada", Secret::Fresh).unwrap().unwrap();
        assert!(password::is_right(&again, Some(&kept("ada").unwrap().password)));
        assert!(!password::is_right(&made, Some(&kept("ada").unwrap().password)));
        add(
            dir.path(),
            "bob",
            Rank::Viewer,
            Some("site=berlin".into()),
            Secret::Fresh,
        )
        .unwrap();
        let lines: Vec<String> = list(dir.path()).unwrap().iter().map(line).collect();
        assert_eq!(lines, ["ada\tadmin\tthe whole fleet", "bob\tviewer\tsite=berlin"]);
        for (result, said) in [
            (
                add(dir.path(), "bob", Rank::Viewer, None, Secret::Fresh),
                "user password bob",
            ),
            (
                add(dir.path(), "b b", Rank::Viewer, None, Secret::Fresh),
                "cannot be a name",
            ),
            (
                add(
                    dir.path(),
                    "cy",
                    Rank::Viewer,
                    Some("presence:online".into()),
                    Secret::Fresh,
                ),
                "cannot be a scope",
            ),
            (
                add(dir.path(), "Owner", Rank::Viewer, None, Secret::Fresh),
                "choose another name",
            ),
            (change_password(dir.path(), "eve", Secret::Fresh), "no user 'eve'"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        for (rank, scope, said) in [
            (Some(Rank::Operator), None, "bob\toperator\tsite=berlin"),
            (None, Some("site=bonn"), "bob\toperator\tsite=bonn"),
            (Some(Rank::Admin), Some(""), "bob\tadmin\tthe whole fleet"),
        ] {
            change(dir.path(), "bob", rank, scope).unwrap();
            assert_eq!(line(&kept("bob").unwrap()), said);
        }
        for (result, said) in [
            (change(dir.path(), "bob", None, None), "say --role"),
            (change(dir.path(), "eve", Some(Rank::Admin), None), "no user 'eve'"),
            (change(dir.path(), "bob", None, Some("runs:x")), "cannot be a scope"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        remove(dir.path(), "bob").unwrap();
        assert!(remove(dir.path(), "bob").is_err() && kept("bob").is_none());
        assert_eq!(
            noted(dir.path()),
            [
                "add a user: ada as admin",
                "change a user: ada, another password",
                "add a user: bob as viewer",
                "change a user: bob, operator from now on",
                "change a user: bob, only 'site=bonn'",
                "change a user: bob, admin from now on, all daemons",
                "remove a user: bob"
            ],
            "each change has one entry, and what changed nothing has none"
        );
    }

    /// What the audit says of users, the oldest first.
    fn noted(dir: &Path) -> Vec<String> {
        let store = Store::open(&dir.join("plane.db")).unwrap();
        let page = store.audit_page(&AuditCall::Chain { after: 0 }).unwrap();
        let of_users = page
            .entries
            .into_iter()
            .filter(|entry| entry.event.action.contains("user"));
        of_users
            .map(|entry| format!("{}: {}", entry.event.action, entry.event.what))
            .collect()
    }

    #[test]
    fn tokens_of_programs_are_listed_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &Wishes::default()).unwrap();
        let store = Store::open(&dir.path().join("plane.db")).unwrap();
        for (n, name, scope) in [(1u8, "ci", None), (2, "report", Some("site=berlin"))] {
            let token = ApiToken {
                id: format!("id{n}"),
                name: name.into(),
                rank: Rank::Viewer,
                scope: scope.map(str::to_string),
                by: "ada".into(),
                made_unix_ms: unix_ms(),
                expires_unix_ms: unix_ms() + 3_600_000 * 24 * 3,
            };
            assert!(store.add_api_token(&token, &[n; 32], 9).unwrap());
        }
        let lines = api_tokens(dir.path()).unwrap();
        assert!(
            lines[0].starts_with("id1\tci\tviewer\tthe whole fleet\tada\tfor "),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("id2\treport\tviewer\tsite=berlin\tada\tfor "),
            "{lines:?}"
        );
        end_api_token(dir.path(), "report").unwrap();
        end_api_token(dir.path(), "id1").unwrap();
        assert!(api_tokens(dir.path()).unwrap().is_empty());
        let error = end_api_token(dir.path(), "ci").unwrap_err().to_string();
        assert!(error.contains("no API token 'ci'"), "{error}");
        let page = store.audit_page(&AuditCall::Chain { after: 0 }).unwrap();
        let ended = page
            .entries
            .iter()
            .filter(|entry| entry.event.action == "end an API token");
        assert_eq!(
            ended.map(|entry| entry.event.what.as_str()).collect::<Vec<_>>(),
            ["report", "ci"]
        );
    }

    #[test]
    fn a_user_whose_entry_cannot_be_written_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &Wishes::default()).unwrap();
        let path = dir.path().join("plane.db");
        let store = Store::open(&path).unwrap();
        store
            .set("audit_head", b"no head of a chain, whatever reads it")
            .unwrap();
        let failed = add(dir.path(), "ada", Rank::Admin, None, Secret::Fresh);
        assert!(failed.is_err());
        assert!(store.users().unwrap().is_empty());
    }
}
