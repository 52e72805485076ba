//! Destination `s3`: records as objects of an S3-compatible store. What is gathered until an object is large or old enough
//! is in `gather`, what becomes of it in `pack`, and the requests are in `store`.

use std::time::Duration;

use async_trait::async_trait;
use bus_schema::{
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Gathered, Rejected, Sink, Trouble, Watermark,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    gather::{Encoding, Gatherings, Limits, Place},
    pack::Packing,
    store::{Keys, Store, Where},
};
use crate::{
    file::{
        partition::NameTemplate,
        place,
        sink::{CsvConfig, csv_settings},
    },
    secret::SecretRef,
    tls::TlsFiles,
};

mod gather;
mod pack;
mod store;
#[cfg(test)]
mod tests;
mod wider;

/// Bounds of `max_bytes`: what is gathered stands on the daemon's disk until it is an object, and an object has at most
/// 10,000 parts.
const BYTES: std::ops::RangeInclusive<u64> = 1024..=4 * 1024 * 1024 * 1024;
/// Bounds of `max_age_s`.
const AGE_S: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Bounds of `timeout_ms`. A part has 5 MiB, and lines are slow.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1000..=3_600_000;
/// Where Amazon's own is.
const AMAZON: &str = "amazonaws.com";

/// Writes records as objects of Amazon S3, or of anything that speaks its protocol (MinIO, Ceph, R2, …): JSON lines or CSV, as
/// destination `file` writes them, packed or not.
///
/// Records are gathered until there are `max_bytes` of them, or the first one is `max_age_s` old; then they become an object,
/// or one for each name that `prefix` gives. Nothing counts as delivered before that: until then the records are with the
/// source or in the buffer of the stream, and a copy is on this daemon's disk. An object is either there, whole, or not.
///
/// At least once, in a way that doubles nothing: an object is called `<prefix><workflow>.<node>.<stream>.<number>.<format>`,
/// and the number is that of its first record in the stream. After a crash the same records are read again, from the one after
/// the last object on, and an object that was complete already is replaced by one that begins with the same records. Only when
/// the source puts its records into another order meanwhile, a record may be in two objects.
///
/// Uploads in several parts that a crash left behind are aborted at the next start, if the key may list them
/// (`s3:ListBucketMultipartUploads`); besides that it needs `s3:PutObject` and `s3:AbortMultipartUpload`.
///
/// Until a record is in an object its source waits to hear that it is safe, and so does whoever sends to a `webhook` or with
/// `mqtt`. With `spool = {}` here, or on another daemon than the source, a buffer keeps what comes, and nobody waits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-gathers" = {
    "age_s": "/max_age_s", "default": 300, "bytes": "/max_bytes", "default_bytes": 16_000_000
}))]
struct Config {
    /// The bucket. It has to exist.
    bucket: String,
    /// Where the bucket is, such as `eu-central-1`. What others than Amazon want there is in their manual, often `us-east-1`.
    region: String,
    /// The address of the store: `https://minio.example.org:9000`. Without it, Amazon's for the region.
    endpoint: Option<String>,
    /// Whether the bucket stands in the path of an address, or before its host.
    #[serde(default)]
    style: Style,
    /// The id of the key.
    access_key: SecretRef,
    /// Its secret.
    secret_key: SecretRef,
    /// The token that belongs to a temporary key.
    session_token: Option<SecretRef>,
    /// What the names of objects begin with: `raw/`, or with columns in it `raw/{site}/{at:date}/`. `{column}` is a value,
    /// `{column:date}` the day of a time (also `year`, `month`, `hour`), in UTC. A record without such a value, or with one
    /// that cannot be a name (`..`, `:`, `?`, …), goes to the dead letters, and so does one of more than 256 names in a
    /// commit.
    prefix: Option<String>,
    /// How records are written.
    format: FormatName,
    /// How an object is packed; its name says so.
    #[serde(default)]
    compression: Packing,
    /// Adds a column of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// How the CSV is written. With `new_columns = "new_file"` an object that is not complete yet gets the new columns, and
    /// its earlier records empty fields in them, up to 1,024 columns.
    csv: Option<CsvConfig>,
    /// When so much is gathered it becomes objects, in bytes, before it is packed.
    #[serde(default = "sixteen_megabytes")]
    max_bytes: u64,
    /// When the first of what is gathered came so long ago it becomes objects, in seconds.
    #[serde(default = "five_minutes")]
    max_age_s: u64,
    /// Certificates, for `https`.
    tls: Option<TlsFiles>,
    /// How long an answer may take, in milliseconds: 1000 to 3,600,000. A request has at most 5 MiB.
    #[serde(default = "two_minutes")]
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FormatName {
    /// One JSON object per line.
    JsonLines,
    /// Comma separated values.
    Csv,
}

/// Where the bucket's name stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Style {
    /// `https://host/bucket/name`: what every store but Amazon's understands.
    Path,
    /// `https://bucket.host/name`: what Amazon wants.
    VirtualHost,
    /// As Amazon wants it without `endpoint`, in the path with it.
    #[default]
    Usual,
}

fn sixteen_megabytes() -> u64 {
    16_000_000
}

fn five_minutes() -> u64 {
    300
}

fn two_minutes() -> u64 {
    120_000
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "archive"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.lake]
type = "s3"
from = "readings"
bucket = "plant"
region = "eu-central-1"
access_key = { env = "S3_ACCESS_KEY" }
secret_key = { env = "S3_SECRET_KEY" }
prefix = "raw/{site}/"
format = "json_lines"
compression = "gzip"
"#;

fn descriptor() -> Descriptor {
    let summary = "Writes records as objects of an S3-compatible store";
    describe::<Config>(ComponentRole::Destination, "s3", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    for (key, value, bounds) in [
        ("max_bytes", config.max_bytes, BYTES),
        ("max_age_s", config.max_age_s, AGE_S),
        ("timeout_ms", config.timeout_ms, TIMEOUT_MS),
    ] {
        if !bounds.contains(&value) {
            return Err(ConfigError::at(
                key,
                format!("is {} to {}", bounds.start(), bounds.end()),
            ));
        }
    }
    let (encoding, ending) = match (config.format, config.csv) {
        (FormatName::JsonLines, Some(_)) => return Err(ConfigError::at("csv", "only for format = \"csv\"")),
        (FormatName::JsonLines, None) => (Encoding::JsonLines, "jsonl"),
        (FormatName::Csv, csv) => {
            let csv = csv_settings(csv.unwrap_or_default(), config.op_column.as_deref())?;
            (Encoding::Csv(csv), "csv")
        }
    };
    let place = Place {
        prefix: config.prefix.as_deref().map(prefix).transpose()?,
        owner: format!("{}.{}.", context.workflow, context.node),
        ending: format!("{ending}{}", config.compression.ending()),
    };
    let endpoint = config.endpoint.clone();
    let is_path = match config.style {
        Style::Path => true,
        Style::VirtualHost => false,
        Style::Usual => endpoint.is_some(),
    };
    let to = Where {
        endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{}.{AMAZON}", config.region)),
        bucket: config.bucket,
        region: config.region,
        is_path,
        tls: config.tls,
        wait: Duration::from_millis(config.timeout_ms),
    };
    let keys = Keys {
        access: config.access_key,
        secret: config.secret_key,
        token: config.session_token,
    };
    let limits = Limits {
        bytes: config.max_bytes,
        age: Duration::from_secs(config.max_age_s),
    };
    Ok(Box::new(S3Sink {
        gatherings: Gatherings::new(encoding, config.op_column, place, limits, context.base_dir.clone()),
        store: Store::new(to, keys, context)?,
        packing: config.compression,
        base_dir: context.base_dir.clone(),
    }))
}

/// What names begin with, checked.
fn prefix(text: &str) -> Result<Prefix, ConfigError> {
    if text.contains('{') {
        let template = NameTemplate::parse(text.trim_end_matches('/'), "prefix")?;
        return Ok(Prefix::Filled(template, text.ends_with('/')));
    }
    // Something follows: it may end with a slash.
    place::check(&format!("{text}x")).map_err(|cause| ConfigError::at("prefix", cause))?;
    Ok(Prefix::Fixed(text.to_string()))
}

/// What the names of objects begin with.
enum Prefix {
    Fixed(String),
    /// Whether a slash stands behind it.
    Filled(NameTemplate, bool),
}

struct S3Sink {
    gatherings: Gatherings,
    store: Store,
    packing: Packing,
    base_dir: std::path::PathBuf,
}

impl S3Sink {
    /// Makes objects of what is gathered of a lineage.
    async fn store_all(&mut self, stream: StreamId) -> Result<(), Fault> {
        while let Some((name, raw)) = self.gatherings.next(&stream) {
            let packed = pack::pack(raw, self.packing, self.base_dir.clone()).await?;
            self.store.put(&name, &packed).await?;
            self.gatherings.stored(&stream);
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for S3Sink {
    async fn open(&mut self) -> Result<(), Fault> {
        let owner = &self.gatherings.place().owner;
        let fixed = self.gatherings.place().fixed_prefix().to_string();
        self.store.open(&fixed, owner).await
    }

    fn begin(&mut self, stream: &StreamId, mark: &Watermark) {
        self.gatherings.begin(*stream, mark.clone());
    }

    fn gathered(&self, stream: &StreamId) -> Option<Gathered> {
        self.gatherings.gathered(stream)
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let refused = self.gatherings.take(delivery);
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.gatherings.commit().await?;
        while let Some(stream) = self.gatherings.due() {
            self.store_all(stream).await?;
        }
        Ok(())
    }

    async fn complete(&mut self, stream: &StreamId) -> Result<(), Fault> {
        self.store_all(*stream).await
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.store.check().await
    }

    async fn close(&mut self) {
        self.gatherings.undo();
        self.store.close();
    }
}
