//! Transforms `decode` and `encode`: base64, gzip and Zstandard, there and back. What is unpacked is bounded: a few bytes that
//! claim to be gigabytes are refused.

use std::io::Read as _;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bus_schema::{
    data::{Batch, Cell, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{compute_bounded, named_columns, places, put, without},
    text::shorten,
};

/// Largest value that is unpacked, in bytes once it is.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Largest window a Zstandard frame may ask for, as a power of two: 2 MiB, what the usual levels use.
const WINDOW_LOG_MAX: u32 = 21;
/// The level at which is packed.
const LEVEL: i32 = 3;
/// Most steps, one after the other.
const STEPS_MAX: usize = 4;

/// Reads base64 without its padding too.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Undoes base64, gzip and Zstandard: the columns become bytes, or texts. A row with a value that is not so packed, or has more
/// than 1 MiB once unpacked, goes to the dead letters; so do the rows of one batch that would make it larger by 16 MiB.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DecodeConfig {
    /// The columns. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// What is undone, in this order.
    formats: Vec<Codec>,
    /// What comes out is UTF-8, and becomes a text.
    #[serde(default)]
    text: bool,
}

/// Packs texts and bytes as base64, or with gzip or Zstandard. What ends as base64 becomes a text, anything else bytes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EncodeConfig {
    /// The columns. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// What is done, in this order.
    formats: Vec<Codec>,
}

/// A way to pack bytes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Codec {
    /// Base64 with `+` and `/`; padding is written, and not needed for reading.
    Base64,
    /// Zstandard.
    Zstd,
    /// gzip (RFC 1952); several members one after the other are read as one.
    Gzip,
}

/// The registry lines.
pub(crate) const DECODE: Component = Component {
    descriptor: decode_descriptor,
    build: Build::Transform(build_decode),
};
pub(crate) const ENCODE: Component = Component {
    descriptor: encode_descriptor,
    build: Build::Transform(build_encode),
};

const DECODE_EXAMPLE: &str = r#"name = "unpacked"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.unpacked]
type = "decode"
from = "readings"
columns = ["body"]
formats = ["base64", "zstd"]
text = true

[destinations.out]
type = "stdout"
from = "unpacked"
"#;

const ENCODE_EXAMPLE: &str = r#"name = "packed"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.packed]
type = "encode"
from = "readings"
columns = ["line"]
formats = ["zstd", "base64"]

[destinations.out]
type = "stdout"
from = "packed"
"#;

fn decode_descriptor() -> Descriptor {
    let summary = "Undoes base64, gzip and Zstandard";
    describe::<DecodeConfig>(ComponentRole::Transform, "decode", summary, DECODE_EXAMPLE)
}

fn encode_descriptor() -> Descriptor {
    let summary = "Packs values as base64, or with gzip or Zstandard";
    describe::<EncodeConfig>(ComponentRole::Transform, "encode", summary, ENCODE_EXAMPLE)
}

fn build_decode(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: DecodeConfig = parse_config(config)?;
    check(&config.columns, &config.formats)?;
    Ok(Box::new(Recode {
        columns: config.columns,
        ty: if config.text { Type::Text } else { Type::Bytes },
        formats: config.formats,
        step: Codec::decode,
    }))
}

fn build_encode(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: EncodeConfig = parse_config(config)?;
    check(&config.columns, &config.formats)?;
    let is_text = config.formats.last() == Some(&Codec::Base64);
    Ok(Box::new(Recode {
        columns: config.columns,
        ty: if is_text { Type::Text } else { Type::Bytes },
        formats: config.formats,
        step: Codec::encode,
    }))
}

fn check(columns: &[String], formats: &[Codec]) -> Result<(), ConfigError> {
    named_columns("columns", columns)?;
    if !(1..=STEPS_MAX).contains(&formats.len()) {
        return Err(ConfigError::at("formats", format!("name from 1 to {STEPS_MAX}")));
    }
    Ok(())
}

struct Recode {
    columns: Vec<String>,
    formats: Vec<Codec>,
    step: fn(Codec, &[u8]) -> Result<Vec<u8>, String>,
    ty: Type,
}

impl Transform for Recode {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let schema = batch.schema().clone();
        let places = places(&batch, &self.columns);
        let (values, rejected) = compute_bounded(&batch, places.len(), |row, index| {
            let place = places[index];
            let done = self.recode(batch.cell(row, place));
            done.map_err(|why| format!("column '{}' {why}", schema.fields[place].name))
        });
        let batch = without(batch, &rejected);
        let new = places.iter().map(|place| Field {
            ty: self.ty.clone(),
            ..schema.fields[*place].clone()
        });
        let batch = put(&batch, new.zip(values))?;
        Ok(Transformed { batch, rejected })
    }
}

impl Recode {
    fn recode(&self, cell: Cell<'_>) -> Result<Value, String> {
        let mut bytes = match cell {
            cell if !cell.is_value() => return Ok(cell.to_value()),
            Cell::Text(text) | Cell::Json(text) => text.as_bytes().to_vec(),
            Cell::Bytes(bytes) => bytes.to_vec(),
            cell => return Err(format!("is '{}', neither text nor bytes", shorten(&cell.to_string()))),
        };
        for format in &self.formats {
            bytes = (self.step)(*format, &bytes)?;
        }
        if self.ty == Type::Bytes {
            return Ok(Value::Bytes(bytes));
        }
        let text = String::from_utf8(bytes).map(Value::Text);
        text.map_err(|error| format!("is not UTF-8 inside: {}", error.utf8_error()))
    }
}

impl Codec {
    fn decode(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Codec::Base64 => LENIENT
                .decode(bytes.trim_ascii())
                .map_err(|error| format!("is no base64: {error}")),
            Codec::Zstd => {
                let wrong = |error: std::io::Error| format!("is not packed with Zstandard: {error}");
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(wrong)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(wrong)?;
                unpacked(decoder).map_err(|error| error.map_or_else(too_much, wrong))
            }
            Codec::Gzip => {
                let wrong = |error: std::io::Error| format!("is not packed with gzip: {error}");
                let decoder = flate2::bufread::MultiGzDecoder::new(bytes);
                unpacked(decoder).map_err(|error| error.map_or_else(too_much, wrong))
            }
        }
    }

    fn encode(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Codec::Base64 => Ok(STANDARD.encode(bytes).into_bytes()),
            Codec::Zstd => zstd::bulk::compress(bytes, LEVEL).map_err(|error| format!("cannot be packed: {error}")),
            Codec::Gzip => {
                // Without a time: the same bytes are packed the same.
                let mut encoder = flate2::bufread::GzEncoder::new(bytes, flate2::Compression::default());
                let mut packed = Vec::new();
                let done = encoder.read_to_end(&mut packed);
                done.map_err(|error| format!("cannot be packed: {error}"))?;
                Ok(packed)
            }
        }
    }
}

/// What comes out of a decoder; without an error it is too much.
fn unpacked(decoder: impl std::io::Read) -> Result<Vec<u8>, Option<std::io::Error>> {
    let mut raw = Vec::new();
    // One more than fits, to tell that there is more.
    decoder.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut raw)?;
    if raw.len() > VALUE_BYTES_MAX {
        return Err(None);
    }
    Ok(raw)
}

fn too_much() -> String {
    format!("becomes more than {VALUE_BYTES_MAX} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, shown, shown_schema, table, transform};

    #[test]
    fn values_are_unpacked_and_packed() {
        let input = table(
            &["t:text", "b:bytes", "n:i64"],
            &["aMOp|6869|1", "/w==|ff|2", "a|00|3", "~|=|?"],
        );
        for (component, config, kept, rejected) in [
            (
                &DECODE,
                r#"{"columns": ["t", "none"], "formats": ["base64"], "text": true}"#,
                "hé|6869|1\n~|=|?",
                "1: column 't' is not UTF-8 inside\n2: column 't' is no base64",
            ),
            (
                &DECODE,
                r#"{"columns": ["t"], "formats": ["base64"]}"#,
                "68c3a9|6869|1\nff|ff|2\n~|=|?",
                "2: column 't' is no base64",
            ),
            (
                &DECODE,
                r#"{"columns": ["b"], "formats": ["zstd"]}"#,
                "~|=|?",
                "0: column 'b' is not packed with Zstandard\n1: \n2: ",
            ),
            (
                &DECODE,
                r#"{"columns": ["b"], "formats": ["gzip"]}"#,
                "~|=|?",
                "0: column 'b' is not packed with gzip\n1: \n2: ",
            ),
            (
                &ENCODE,
                r#"{"columns": ["b", "t"], "formats": ["base64"]}"#,
                "YU1PcA==|aGk=|1\nL3c9PQ==|/w==|2\nYQ==|AA==|3\n~|=|?",
                "",
            ),
            (
                &ENCODE,
                r#"{"columns": ["n"], "formats": ["base64"]}"#,
                "~|=|?",
                "0: column 'n' is '1', neither text nor bytes\n1: \n2: ",
            ),
        ] {
            check(component, config, input.clone(), kept, rejected);
        }
        let packed = transform(&ENCODE, r#"{"columns": ["t"], "formats": ["zstd"]}"#)
            .apply(input)
            .unwrap();
        assert_eq!(shown_schema(&packed.batch), "t:bytes b:bytes n:i64");
    }

    /// What `(printf h | gzip -n; printf i | gzip -n)` writes.
    #[test]
    fn gzip_of_others_is_read() {
        let members = "1f8b0800000000000003cb0000e7066b91010000001f8b0800000000000003cb040071366ce601000000";
        let input = table(&["b:bytes"], &[members]);
        let config = r#"{"columns": ["b"], "formats": ["gzip"], "text": true}"#;
        check(&DECODE, config, input, "hi", "");
    }

    #[test]
    fn bombs_are_refused() {
        let packed = |bytes: usize| {
            let packed = zstd::bulk::compress(&vec![0; bytes], LEVEL).unwrap();
            assert!(packed.len() < 4_096);
            Cell::Bytes(&packed).to_string()
        };
        let gzip = Codec::Gzip.encode(&vec![0; VALUE_BYTES_MAX + 1]).unwrap();
        let input = table(&["b:bytes"], &[&Cell::Bytes(&gzip).to_string()]);
        let config = r#"{"columns": ["b"], "formats": ["gzip"]}"#;
        check(&DECODE, config, input, "", "0: column 'b' becomes more than");
        let config = r#"{"columns": ["b"], "formats": ["zstd"]}"#;
        let (most, more) = (packed(VALUE_BYTES_MAX), packed(VALUE_BYTES_MAX + 1));
        let input = table(&["b:bytes"], &[&more]);
        check(&DECODE, config, input, "", "0: column 'b' becomes more than");
        let rows = vec![most.as_str(); 17];
        let done = transform(&DECODE, config).apply(table(&["b:bytes"], &rows)).unwrap();
        assert_eq!((done.batch.rows(), done.rejected.len()), (16, 1));
        assert!(
            done.rejected[0].1.contains("would make the batch larger"),
            "{:?}",
            done.rejected
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": [], "formats": ["zstd"]}"#, "columns: name at least one"),
            (r#"{"columns": ["a"], "formats": []}"#, "formats: name from 1 to 4"),
            (r#"{"columns": ["a"], "formats": ["bzip2"]}"#, "unknown variant `bzip2`"),
        ] {
            check_config(&DECODE, config, wanted);
            check_config(&ENCODE, config, wanted);
        }
    }

    proptest::proptest! {
        #[test]
        fn there_and_back(bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..300)) {
            let text = Cell::Bytes(&bytes).to_string();
            let input = table(&["b:bytes"], &[&text]);
            for (there, back) in [(r#""zstd", "base64""#, r#""base64", "zstd""#), (r#""base64""#, r#""base64""#), (r#""gzip""#, r#""gzip""#)] {
                let mut encode = transform(&ENCODE, &format!("{{\"columns\": [\"b\"], \"formats\": [{there}]}}"));
                let packed = encode.apply(input.clone()).unwrap().batch;
                let mut decode = transform(&DECODE, &format!("{{\"columns\": [\"b\"], \"formats\": [{back}]}}"));
                proptest::prop_assert_eq!(shown(&decode.apply(packed).unwrap().batch), text.clone());
            }
        }
    }
}
