//! Transform `hash`: puts digests in the place of values: the same value has the same digest everywhere, and without the
//! key nobody can find the value by trying.

use blake2::Blake2b256;
use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    cells::{compute, named_columns, places, put},
    secret::{Secret, SecretRef},
};

/// Puts digests in the place of values, as hexadecimal text. Null stays null. The digest is that of the bytes of a text or
/// of bytes, and of the text that is shown of anything else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The columns. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// Which digest.
    #[serde(default)]
    algorithm: Algorithm,
    /// The key of an HMAC: `{ env = "NAME" }`, `{ file = "PATH" }` or plain text. Without one, whoever can guess a value
    /// (a name, a number plate, a telephone number) can find it by its digest. Read when the workflow starts.
    key: Option<SecretRef>,
}

/// Which digest. With a key it is the HMAC of it.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    /// SHA-256, 64 digits.
    #[default]
    Sha256,
    /// BLAKE2b with 32 bytes, 64 digits.
    Blake2b,
}

/// The registry line.
pub(crate) const HASH: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "pseudonyms"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.pseudonyms]
type = "hash"
from = "readings"
columns = ["line"]
key = "long, chosen by chance, and better kept in a file"

[destinations.out]
type = "stdout"
from = "pseudonyms"
"#;

fn descriptor() -> Descriptor {
    let summary = "Puts digests in the place of values";
    describe::<Config>(ComponentRole::Transform, "hash", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    named_columns("columns", &config.columns)?;
    let wrong = |message: String| ConfigError::at("key", message);
    let key = match &config.key {
        None => None,
        Some(from) => Some(
            from.fetch(&context.base_dir)
                .map_err(|error| wrong(error.to_string()))?,
        ),
    };
    if key.as_ref().is_some_and(|key| key.expose().is_empty()) {
        return Err(wrong("it is empty".to_string()));
    }
    Ok(Box::new(Hash {
        columns: config.columns,
        algorithm: config.algorithm,
        key,
    }))
}

struct Hash {
    columns: Vec<String>,
    algorithm: Algorithm,
    key: Option<Secret>,
}

impl Transform for Hash {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let places = places(&batch, &self.columns);
        let (values, _) = compute(batch.rows(), places.len(), |row, index| {
            Ok(match batch.cell(row, places[index]) {
                cell if !cell.is_value() => cell.to_value(),
                Cell::Text(text) => Value::Text(self.digest(text.as_bytes())),
                Cell::Bytes(bytes) => Value::Text(self.digest(bytes)),
                cell => Value::Text(self.digest(cell.to_string().as_bytes())),
            })
        });
        let new = places.iter().map(|place| Field {
            ty: Type::Text,
            ..batch.schema().fields[*place].clone()
        });
        Ok(put(&batch, new.zip(values))?.into())
    }
}

impl Hash {
    fn digest(&self, bytes: &[u8]) -> String {
        let key = self.key.as_ref().map(|key| key.expose().as_bytes());
        let digest: [u8; 32] = match (self.algorithm, key) {
            (Algorithm::Sha256, None) => Sha256::digest(bytes).into(),
            (Algorithm::Blake2b, None) => Blake2b256::digest(bytes).into(),
            (Algorithm::Sha256, Some(key)) => keyed::<Hmac<Sha256>>(key, bytes),
            (Algorithm::Blake2b, Some(key)) => keyed::<SimpleHmac<Blake2b256>>(key, bytes),
        };
        Cell::Bytes(&digest).to_string()
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], bytes: &[u8]) -> [u8; 32]
where
    [u8; 32]: From<hmac::digest::Output<M>>,
{
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_config, shown, shown_schema, table, transform};

    /// Computed with Python's `hashlib` and `hmac`.
    #[test]
    fn digests_are_those_of_others() {
        let input = table(&["a:text", "n:i64", "b:bytes"], &["abc|12|616263", "~|=|?"]);
        for (config, wanted) in [
            (
                r#"{"columns": ["a"]}"#,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad|12|616263\n~|=|?",
            ),
            (
                r#"{"columns": ["b", "n", "none"]}"#,
                "abc|6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918|\
                 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n~|=|?",
            ),
            (
                r#"{"columns": ["a"], "algorithm": "blake2b"}"#,
                "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319|12|616263\n~|=|?",
            ),
            (
                r#"{"columns": ["a"], "key": "k"}"#,
                "342e519ce0ad6c03a36b98eeb3f1d130db4813b9df4d1160eda488d712dc78ee|12|616263\n~|=|?",
            ),
            (
                r#"{"columns": ["a"], "key": "k", "algorithm": "blake2b"}"#,
                "16e431da863f0480b5bd025568072d72ada737abd398e1357e403622233c1add|12|616263\n~|=|?",
            ),
        ] {
            let done = transform(&HASH, config).apply(input.clone()).unwrap();
            assert_eq!(shown(&done.batch), wanted, "{config}");
        }
        let done = transform(&HASH, r#"{"columns": ["n"]}"#).apply(input).unwrap();
        assert_eq!(shown_schema(&done.batch), "a:text n:text b:bytes");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": []}"#, "columns: name at least one"),
            (
                r#"{"columns": ["a"], "algorithm": "md5"}"#,
                "algorithm: unknown variant `md5`",
            ),
            (r#"{"columns": ["a"], "key": ""}"#, "key: it is empty"),
            (
                r#"{"columns": ["a"], "key": {"env": "MYCELIAL_TEST_UNSET"}}"#,
                "key: the environment variable MYCELIAL_TEST_UNSET is not set",
            ),
        ] {
            check_config(&HASH, config, wanted);
        }
    }
}
