//! The text of a NATS credentials file: who a client is (a JWT) and the seed of the key that proves it.
//!
//! Read here and not by async-nats, whose reader is the only thing in the plane and the CLI that would need a regular
//! expression engine (0.4 MB of program).

use std::sync::Arc;

use async_nats::{AuthError, ConnectOptions};
use nkeys::KeyPair;

/// What a block of the file is between: a line that begins and ends with at least so many dashes.
const DASHES: &str = "---";

/// Options that log in with the credentials in `text`; the error says what is wrong with them.
pub(super) fn options(text: &str) -> Result<ConnectOptions, String> {
    let mut blocks = blocks(text);
    let jwt = blocks.next().ok_or("there is no user JWT in it")?;
    let seed = blocks.next().ok_or("there is no nkey seed in it")?;
    let key = Arc::new(KeyPair::from_seed(seed).map_err(|error| format!("its nkey seed is damaged: {error}"))?);
    Ok(ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
        let signed = key.sign(&nonce).map_err(AuthError::new);
        std::future::ready(signed)
    }))
}

/// The lines that lie between two ruled ones, in order: the file's are one line each, whatever stands around them.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let ruled = |line: &&str| line.len() > 2 * DASHES.len() && line.starts_with(DASHES) && line.ends_with(DASHES);
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        loop {
            lines.find(ruled)?;
            let (line, end) = (lines.next()?, lines.next()?);
            if !line.is_empty() && ruled(&end) {
                return Some(line);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_they_are_found() {
        let seed = KeyPair::new_user().seed().unwrap();
        let file = |jwt: &str, seed: &str| {
            format!(
                "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
                 ************************* IMPORTANT *************************\n\
                 NKEY Seed printed below can be used to sign and prove identity.\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            )
        };
        let good = file("eyJ0eXAi.x-y_z", &seed);
        let cases: &[(&str, String, Option<&str>)] = &[
            ("as nsc writes it", good.clone(), None),
            ("with a carriage return", good.replace('\n', "\r\n"), None),
            ("without the last line's end", good.trim_end().to_owned(), None),
            ("with spaces around", good.replace('\n', "  \n "), None),
            ("empty", String::new(), Some("no user JWT")),
            (
                "something else",
                "user: me\npassword: x\n".to_owned(),
                Some("no user JWT"),
            ),
            ("cut after the JWT", good[..80].to_owned(), Some("no nkey seed")),
            ("an empty block", file("", &seed), Some("no nkey seed")),
            ("a damaged seed", good.replace("SU", "SX"), Some("seed is damaged")),
        ];
        for (what, text, wrong) in cases {
            match (options(text), wrong) {
                (Ok(_), None) => {}
                (Err(error), Some(wrong)) => assert!(error.contains(wrong), "{what}: {error}"),
                (Ok(_), Some(wrong)) => panic!("{what}: taken, not '{wrong}'"),
                (Err(error), None) => panic!("{what}: {error}"),
            }
        }
    }
}
