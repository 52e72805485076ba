//! Regular expressions of configs: compiled once, bounded in size, a mistake named at its key.

use flow::ConfigError;
use regex::{Regex, RegexBuilder};

/// Memory one compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Compiles the expression that stands at `key`.
pub(crate) fn compile(pattern: &str, key: &str) -> Result<Regex, ConfigError> {
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| ConfigError::at(key, format!("is no regular expression: {error}")))
}
