//! A daemon's secrets over the bus: what an operator tells a daemon, and the answers. A value goes to the daemon and nowhere
//! else, and never comes back. The plane has no part in it: it must not hold what opens a customer's database.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::api::Failure;

/// An operator sets or looks after the secrets of a daemon. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretCall {
    /// Keep this one, in the place of the one that had the name. Answered by [`SecretResult::Done`].
    Set {
        /// How workflows call it; see [`crate::member::is_name`].
        name: String,
        /// What it is.
        value: SecretText,
    },
    /// Forget it. Answered by [`SecretResult::Done`].
    Remove {
        /// Which.
        name: String,
    },
    /// Which are there? Answered by [`SecretResult::Names`].
    List,
}

/// What a daemon answers. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretResult {
    /// It did not work.
    Failed(Failure),
    /// It is done, and durable.
    Done {
        /// The workflows in the daemon's plan that name it. They have been started anew.
        used_by: Vec<String>,
    },
    /// All of them, by name; and names that workflows use and nobody has set.
    Names(Vec<SecretView>),
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretView {
    /// How workflows call it.
    pub name: String,
    /// When it was set, by the daemon's wall clock: milliseconds since 1970. `None`: it never was, but workflows name it.
    pub set_unix_ms: Option<i64>,
    /// The workflows in the daemon's plan that name it.
    pub used_by: Vec<String>,
}

/// A secret text. Does not print and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
