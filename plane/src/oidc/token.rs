//! Whether an ID token is what it claims to be (OpenID Connect Core 1.0, section 3.1.3.7): its signature, by RS256 or ES256 and
//! nothing else, and its claims. Pure: keys and time come in as arguments.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Most keys of a provider that are looked at.
const KEYS_MAX: usize = 64;
/// How far the provider's clock may be from ours, in seconds.
const SKEW_S: i64 = 60;
/// Longest `sub`, in bytes: the standard's.
const SUB_BYTES_MAX: usize = 255;

/// What a token says, once it is believed.
pub type Claims = Map<String, Value>;

/// What a token has to be for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who made it.
    pub issuer: &'a str,
    /// For whom.
    pub client_id: &'a str,
    /// For which log-in.
    pub nonce: &'a str,
    /// Seconds since 1970.
    pub now_s: i64,
}

/// A token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No key that is known made it: the provider may have new ones.
    #[error("no key of the provider fits its signature")]
    Key,
    /// It is not what it has to be.
    #[error("{0}")]
    Refused(String),
}

fn refused(why: impl Into<String>) -> TokenError {
    TokenError::Refused(why.into())
}

/// A public key of the provider, as RFC 7517 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set. One that cannot be read is left out: providers have keys for other things too.
pub fn keys(set: &Value) -> Vec<Jwk> {
    let all = set["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
    all.filter_map(|key| Jwk::deserialize(key).ok()).collect()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Checks a token, and gives what it says.
pub fn verify(token: &str, keys: &[Jwk], expected: &Expected<'_>) -> Result<Claims, TokenError> {
    let no_token = || refused("it is no signed token");
    let (signed, signature) = token.rsplit_once('.').ok_or_else(no_token)?;
    let (header, payload) = signed.split_once('.').ok_or_else(no_token)?;
    let header = bytes(header).ok_or_else(no_token)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| no_token())?;
    if !matches!(header.alg.as_str(), "RS256" | "ES256") {
        let alg: String = header.alg.chars().take(16).collect();
        return Err(refused(format!(
            "it is signed by '{}', and only RS256 and ES256 are believed",
            alg.escape_debug()
        )));
    }
    if header.crit.is_some() {
        return Err(refused("it has critical extensions, of which none is known here"));
    }
    let signature = bytes(signature).ok_or_else(no_token)?;
    let fits = |key: &&Jwk| {
        let is_named = header.kid.is_none() || key.kid == header.kid;
        is_named && key.is_right(&header.alg, signed.as_bytes(), &signature)
    };
    keys.iter().find(fits).ok_or(TokenError::Key)?;
    let payload = bytes(payload).ok_or_else(no_token)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| refused("its claims are no JSON object"))?;
    judge(&claims, expected)?;
    Ok(claims)
}

impl Jwk {
    /// Whether this key made the signature, in this very way.
    fn is_right(&self, alg: &str, message: &[u8], signature: &[u8]) -> bool {
        let is_for_it = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.alg.as_deref().is_none_or(|own| own == alg);
        let part = |part: &Option<String>| part.as_deref().and_then(bytes);
        match (alg, self.kty.as_str()) {
            ("RS256", "RSA") if is_for_it => {
                let (Some(n), Some(e)) = (part(&self.n), part(&self.e)) else {
                    return false;
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            ("ES256", "EC") if is_for_it && self.crv.as_deref() == Some("P-256") => {
                let (Some(x), Some(y)) = (part(&self.x), part(&self.y)) else {
                    return false;
                };
                // An uncompressed point.
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn judge(claims: &Claims, expected: &Expected<'_>) -> Result<(), TokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(refused("it is by another issuer than the settings name"));
    }
    let ours = |value: &Value| value.as_str() == Some(expected.client_id);
    let (is_ours, is_shared) = match claims.get("aud") {
        Some(Value::Array(all)) => (all.iter().any(ours), all.len() > 1),
        Some(one) => (ours(one), false),
        None => (false, false),
    };
    if !is_ours {
        return Err(refused("it was made for another client (its audience)"));
    }
    if (is_shared || claims.contains_key("azp")) && text("azp") != Some(expected.client_id) {
        return Err(refused("it was made for another client (its authorized party)"));
    }
    // Rounded down; providers may write fractions.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a time out of range becomes the last there is"
    )]
    let seconds = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_f64)
            .map(|seconds| seconds.floor() as i64)
    };
    let now_s = expected.now_s;
    let expires = seconds("exp").ok_or_else(|| refused("it does not say when it expires"))?;
    if expires.saturating_add(SKEW_S) <= now_s {
        return Err(refused(
            "it has expired; when that is not so, the clock here or at the provider is wrong",
        ));
    }
    if seconds("iat").is_none() {
        return Err(refused("it does not say when it was made"));
    }
    let begins = [seconds("iat"), seconds("nbf")].into_iter().flatten().max();
    if begins.is_some_and(|begins| begins.saturating_sub(SKEW_S) > now_s) {
        return Err(refused(
            "it is from the future: the clock here or at the provider is wrong",
        ));
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(refused("it was made for another log-in (its nonce)"));
    }
    match text("sub") {
        Some(sub) if !sub.is_empty() && sub.len() <= SUB_BYTES_MAX => Ok(()),
        _ => Err(refused("it does not say who it is about")),
    }
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use serde_json::json;

    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    struct Maker(EcdsaKeyPair);

    impl Maker {
        fn new() -> Self {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let (random, pkcs8) = (SystemRandom::new(), rcgen::KeyPair::generate().unwrap().serialize_der());
            Self(EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random).unwrap())
        }

        fn key(&self, kid: &str) -> Value {
            let point = self.0.public_key().as_ref();
            let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
            json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y })
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
            let signed = format!("{header}.{claims}");
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://id",
            client_id: "plane",
            nonce: "n",
            now_s: NOW_S,
        }
    }

    fn claims() -> Value {
        json!({ "iss": "https://id", "aud": "plane", "exp": NOW_S + 60, "iat": NOW_S, "nonce": "n", "sub": "7" })
    }

    #[test]
    fn claims_that_are_not_for_us() {
        let maker = Maker::new();
        let keys = keys(&json!({ "keys": [{ "kty": "oct" }, 7, maker.key("a")] }));
        for (changed, said) in [
            (json!({}), ""),
            (json!({ "aud": ["plane"] }), ""),
            (json!({ "aud": ["plane", "other"], "azp": "plane" }), ""),
            (json!({ "exp": NOW_S - 59 }), ""),
            (json!({ "exp": NOW_S + 60, "nbf": NOW_S + 60 }), ""),
            (json!({ "iss": "https://id/" }), "another issuer"),
            (json!({ "aud": "other" }), "audience"),
            (json!({ "aud": null }), "audience"),
            (json!({ "aud": ["plane", "other"] }), "authorized party"),
            (json!({ "azp": "other" }), "authorized party"),
            (json!({ "exp": NOW_S - 60 }), "has expired"),
            (json!({ "exp": null }), "when it expires"),
            (json!({ "exp": "never" }), "when it expires"),
            (json!({ "iat": null }), "when it was made"),
            (json!({ "iat": NOW_S + 61 }), "from the future"),
            (json!({ "nbf": NOW_S + 61 }), "from the future"),
            (json!({ "nonce": "m" }), "nonce"),
            (json!({ "nonce": null }), "nonce"),
            (json!({ "sub": "" }), "who it is about"),
            (json!({ "sub": "x".repeat(256) }), "who it is about"),
        ] {
            let mut claims = claims();
            for (name, value) in changed.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let token = maker.token(&json!({ "alg": "ES256", "kid": "a" }), &claims);
            let why = verify(&token, &keys, &expected()).err().map(|error| error.to_string());
            assert!(
                why.as_deref().unwrap_or_default().contains(said) && why.is_none() == said.is_empty(),
                "{changed}: {why:?}"
            );
        }
    }

    #[test]
    fn signatures_that_are_not_the_providers() {
        let (maker, other) = (Maker::new(), Maker::new());
        let of = |set: Value| keys(&json!({ "keys": [set] }));
        let with = |name: &str, value: &str| {
            let mut key = maker.key("a");
            key[name] = json!(value);
            of(key)
        };
        let good = maker.token(&json!({ "alg": "ES256", "kid": "a" }), &claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let unsigned = |alg: &str| {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            format!("{header}.{}.", signed.split_once('.').unwrap().1)
        };
        let altered = {
            let payload = URL_SAFE_NO_PAD.encode(claims().to_string().replace("\"7\"", "\"8\""));
            format!("{}.{payload}.{signature}", signed.split_once('.').unwrap().0)
        };
        let own = || of(maker.key("a"));
        for (token, keys, said) in [
            (good.clone(), own(), ""),
            (maker.token(&json!({ "alg": "ES256" }), &claims()), own(), ""),
            (good.clone(), of(maker.key("b")), "no key"),
            (good.clone(), of(other.key("a")), "no key"),
            (good.clone(), with("use", "enc"), "no key"),
            (good.clone(), with("alg", "ES384"), "no key"),
            (good.clone(), with("crv", "P-384"), "no key"),
            (good.clone(), with("kty", "RSA"), "no key"),
            (good.clone(), with("x", "AA"), "no key"),
            (good.clone(), Vec::new(), "no key"),
            (altered, own(), "no key"),
            (unsigned("ES256"), own(), "no key"),
            (unsigned("none"), own(), "signed by 'none'"),
            (unsigned("None"), own(), "signed by 'None'"),
            (unsigned("HS256"), own(), "signed by 'HS256'"),
            (
                maker.token(&json!({ "alg": "ES256", "crit": ["b64"] }), &claims()),
                own(),
                "critical",
            ),
            (String::new(), own(), "no signed token"),
            ("a.b".into(), own(), "no signed token"),
            ("a.b.c".into(), own(), "no signed token"),
            (format!("{good}.x"), own(), "no signed token"),
        ] {
            let why = verify(&token, &keys, &expected()).err().map(|error| error.to_string());
            assert!(
                why.as_deref().unwrap_or_default().contains(said) && why.is_none() == said.is_empty(),
                "{token}: {why:?}"
            );
        }
    }
}
