//! Who somebody is here, by what an OpenID Connect provider says: name, role and scope. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::token::Claims;
use crate::{domain::labels::Selector, people::is_plain, permission::Rank};

/// What the names of those people begin with, where others read them: no user of the plane's own is called so.
pub const PREFIX: &str = "oidc:";
/// Longest such name, in bytes: addresses of e-mail fit.
const NAME_BYTES_MAX: usize = 64;
/// Most values of a claim that are looked at.
const VALUES_MAX: usize = 1_000;

/// `[web.oidc.roles]`: which values of a claim give which role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolesSection {
    /// The claim: a text, or a list of texts. `a.b` is `b` inside of `a`, unless there is a claim of that whole name.
    #[serde(default = "groups")]
    pub claim: String,
    /// Whoever has one of these is an admin.
    #[serde(default)]
    pub admin: Vec<String>,
    /// Whoever has one of these is an operator.
    #[serde(default)]
    pub operator: Vec<String>,
    /// Whoever has one of these is a viewer.
    #[serde(default)]
    pub viewer: Vec<String>,
}

fn groups() -> String {
    "groups".to_string()
}

/// `[web.oidc.fleet_scope]`: which values of a claim show which part of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeSection {
    /// The claim, as with roles.
    #[serde(default = "groups")]
    pub claim: String,
    /// A selector for each value; an empty one is the whole fleet.
    pub values: BTreeMap<String, String>,
}

/// Somebody who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Somebody {
    /// What it is called here, beginning with [`PREFIX`].
    pub name: String,
    /// How much it may.
    pub rank: Rank,
    /// Which daemons it sees; `None`: all.
    pub scope: Option<String>,
}

impl RolesSection {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.ranked().iter().all(|(_, values)| values.is_empty()) {
            return Err(
                "web.oidc.roles: nobody gets a role: name values of the claim in admin, operator or viewer".into(),
            );
        }
        Ok(())
    }

    fn ranked(&self) -> [(Rank, &[String]); 3] {
        [
            (Rank::Admin, self.admin.as_slice()),
            (Rank::Operator, self.operator.as_slice()),
            (Rank::Viewer, self.viewer.as_slice()),
        ]
    }
}

impl ScopeSection {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        for (value, selector) in &self.values {
            if !selector.is_empty() {
                Selector::parse_scope(selector).map_err(|wrong| format!("web.oidc.fleet_scope: '{value}': {wrong}"))?;
            }
        }
        Ok(())
    }
}

/// A claim by its name, or by a path.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let mut steps = name.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |inside, step| inside.get(step))
}

/// Whether these claims have this one: another source may have what is missing.
pub fn has(claims: &Claims, name: &str) -> bool {
    find(claims, name).is_some()
}

/// The texts of a claim. An address that nobody has checked is none: anybody could have written it.
fn values<'a>(claims: &'a Claims, name: &str) -> Vec<&'a str> {
    if name == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    match find(claims, name) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().take(VALUES_MAX).filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Who it is here. The error says for people why nobody.
pub fn recognise(
    claims: &Claims,
    user_claim: &str,
    roles: &RolesSection,
    scope: Option<&ScopeSection>,
) -> Result<Somebody, String> {
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let wished = find(claims, user_claim).and_then(Value::as_str).unwrap_or(sub);
    let name = name_of(wished);
    let has = values(claims, &roles.claim);
    let holds = |wanted: &[String]| wanted.iter().any(|wanted| has.contains(&wanted.as_str()));
    let rank = roles.ranked().into_iter().find(|(_, wanted)| holds(wanted));
    let (rank, _) = rank.ok_or_else(|| {
        format!(
            "'{wished}' has no role here: none of the values of '{}' gives one",
            roles.claim
        )
    })?;
    let scope = scope.map(|scope| scope_of(claims, scope)).transpose()?;
    Ok(Somebody {
        name,
        rank,
        scope: scope.flatten(),
    })
}

fn scope_of(claims: &Claims, section: &ScopeSection) -> Result<Option<String>, String> {
    let has = values(claims, &section.claim);
    let mut found: Vec<&String> = has.iter().filter_map(|value| section.values.get(*value)).collect();
    found.sort();
    found.dedup();
    // The empty one comes first: the whole fleet holds all the others.
    match found[..] {
        [] => Err(format!(
            "no value of '{}' says which part of the fleet is to be seen",
            section.claim
        )),
        [whole, ..] if whole.is_empty() => Ok(None),
        [one] => Ok(Some(one.clone())),
        [..] => Err(format!(
            "several values of '{}' say which part of the fleet is to be seen, and only one can",
            section.claim
        )),
    }
}

/// A name that is written like every other. What a name cannot have becomes `_`.
fn name_of(wished: &str) -> String {
    let room = NAME_BYTES_MAX - PREFIX.len();
    let plain = |c: char| if is_plain(c.encode_utf8(&mut [0; 4])) { c } else { '_' };
    let name: String = wished.chars().map(plain).take(room).collect();
    format!("{PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn roles(claim: &str) -> RolesSection {
        RolesSection {
            claim: claim.into(),
            admin: vec!["ops".into()],
            operator: vec!["night".into(), "day".into()],
            viewer: vec!["staff".into()],
        }
    }

    #[test]
    fn who_gets_which_role() {
        for (claim, said, expected) in [
            ("groups", json!({ "groups": ["staff", "ops"] }), Some(Rank::Admin)),
            ("groups", json!({ "groups": "day" }), Some(Rank::Operator)),
            ("groups", json!({ "groups": ["staff", 7] }), Some(Rank::Viewer)),
            ("groups", json!({ "groups": ["Ops", "opsx"] }), None),
            ("groups", json!({ "groups": { "ops": true } }), None),
            ("groups", json!({}), None),
            (
                "realm.roles",
                json!({ "realm": { "roles": ["ops"] } }),
                Some(Rank::Admin),
            ),
            ("realm.roles", json!({ "realm.roles": ["staff"] }), Some(Rank::Viewer)),
            ("realm.roles", json!({ "realm": "ops" }), None),
            (
                "email",
                json!({ "email": "ops", "email_verified": true }),
                Some(Rank::Admin),
            ),
            ("email", json!({ "email": "ops", "email_verified": "true" }), None),
            ("email", json!({ "email": "ops" }), None),
        ] {
            let claims = said.as_object().unwrap();
            let rank = recognise(claims, "sub", &roles(claim), None).map(|somebody| somebody.rank);
            assert_eq!(rank.ok(), expected, "{claim} in {said}");
        }
    }

    #[test]
    fn what_somebody_is_called() {
        let long = "x".repeat(300);
        for (said, expected) in [
            (
                json!({ "preferred_username": "anna@example.com", "sub": "7" }),
                "oidc:anna@example.com",
            ),
            (json!({ "sub": "auth0|7" }), "oidc:auth0_7"),
            (json!({ "preferred_username": "Jörg B", "sub": "7" }), "oidc:J_rg_B"),
            (json!({ "sub": long }), &format!("oidc:{}", &long[..NAME_BYTES_MAX - 5])),
        ] {
            let mut claims = said.as_object().unwrap().clone();
            claims.insert("groups".into(), json!("ops"));
            let somebody = recognise(&claims, "preferred_username", &roles("groups"), None).unwrap();
            assert_eq!(somebody.name, expected);
            assert!(!is_plain(&somebody.name), "no user of our own is called so");
        }
    }

    #[test]
    fn which_part_of_the_fleet() {
        let values = [
            ("all", ""),
            ("berlin", "site=berlin"),
            ("paris", "site=paris"),
            ("spree", "site=berlin"),
        ];
        let section = ScopeSection {
            claim: "sites".into(),
            values: values
                .map(|(value, scope)| (value.to_string(), scope.to_string()))
                .into(),
        };
        section.check().unwrap();
        for (sites, expected) in [
            (json!(["berlin"]), Ok(Some("site=berlin"))),
            (json!(["berlin", "spree", "other"]), Ok(Some("site=berlin"))),
            (json!(["all", "paris"]), Ok(None)),
            (json!(["berlin", "paris"]), Err("several values")),
            (json!(["other"]), Err("no value")),
            (json!(null), Err("no value")),
        ] {
            let said = json!({ "sub": "7", "groups": "ops", "sites": sites });
            let got = recognise(said.as_object().unwrap(), "sub", &roles("groups"), Some(&section));
            match expected {
                Ok(scope) => assert_eq!(got.unwrap().scope.as_deref(), scope, "{said}"),
                Err(why) => assert!(got.as_ref().is_err_and(|said| said.contains(why)), "{got:?}"),
            }
        }
        let wrong = ScopeSection {
            claim: "sites".into(),
            values: [("x".to_string(), "presence:online".to_string())].into(),
        };
        assert!(wrong.check().unwrap_err().contains("cannot be a scope"));
    }
}
