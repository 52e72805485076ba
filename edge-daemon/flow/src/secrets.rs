//! The hook by which components find the secrets that the daemon keeps. A process has one such store, as it has one
//! environment. Reads nothing itself.

use std::sync::OnceLock;

use zeroize::Zeroizing;

/// Looks a name up in the daemon's own store: `None` when it has not been set, an error when the store cannot be read.
pub type Lookup = Box<dyn Fn(&str) -> Result<Option<Zeroizing<String>>, String> + Send + Sync>;

static STORE: OnceLock<Lookup> = OnceLock::new();

/// Says where secrets are looked up from now on. Only the first call counts.
pub fn look_up_in(store: Lookup) {
    let _first = STORE.set(store);
}

/// Where secrets are looked up; `None` in a process that keeps none.
pub fn store() -> Option<&'static Lookup> {
    STORE.get()
}
