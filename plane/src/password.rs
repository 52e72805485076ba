//! Passwords: argon2id with one of the parameters that OWASP's password storage cheat sheet lists, chosen for its memory.
//! Knows no users. Hashing takes tens of milliseconds and 7 MiB: never on the thread that serves.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString},
};

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 7 * 1024;
/// Passes over it.
const PASSES: u32 = 5;
/// Lanes.
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Shortest password, in characters.
pub const CHARS_MIN: usize = 10;
/// Longest password, in bytes.
pub const BYTES_MAX: usize = 256;

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the constants are within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What is wrong with a password, if anything.
pub fn mistake(password: &str) -> Option<String> {
    if password.chars().count() < CHARS_MIN || password.len() > BYTES_MAX {
        return Some(format!(
            "a password has {CHARS_MIN} characters or more, and at most {BYTES_MAX} bytes"
        ));
    }
    None
}

/// The hash that is kept, as a PHC string.
pub fn hash(password: &str) -> Result<String, String> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|cause| format!("the operating system gives no randomness: {cause}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|cause| cause.to_string())?;
    let hash = argon2()
        .hash_password(password.as_bytes(), &salt)
        .map_err(|cause| cause.to_string())?;
    Ok(hash.to_string())
}

/// Whether the password is the one that was hashed. Without a hash the answer is no, and takes as long.
pub fn is_right(password: &str, kept: Option<&str>) -> bool {
    if password.len() > BYTES_MAX {
        return false;
    }
    match kept.map(PasswordHash::new) {
        Some(Ok(kept)) => argon2().verify_password(password.as_bytes(), &kept).is_ok(),
        _ => {
            let _ = argon2().hash_password_into(password.as_bytes(), &[0; SALT_BYTES], &mut [0; 32]);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_and_wrong() {
        let kept = hash("correct horse").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{kept}");
        assert_ne!(kept, hash("correct horse").unwrap(), "salted");
        for (password, kept, right) in [
            ("correct horse", Some(kept.as_str()), true),
            ("correct hors", Some(&kept), false),
            ("", Some(&kept), false),
            ("correct horse", Some("nonsense"), false),
            ("correct horse", None, false),
        ] {
            assert_eq!(is_right(password, kept), right, "{password} {kept:?}");
        }
        assert!(mistake("too short").is_some() && mistake("long enough").is_none());
        assert!(mistake(&"x".repeat(BYTES_MAX + 1)).is_some());
    }
}
