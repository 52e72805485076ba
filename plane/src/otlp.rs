//! Pushes metrics to a collector, in OTLP over HTTP with JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>): the same numbers as for Prometheus. What does not arrive is not sent
//! again: the next push says how things are by then.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bus_link::essential;
use bus_schema::id::FleetId;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{
    clock::unix_ms,
    config::ConfigError,
    metrics::{self, Page, Standing},
    notify::{client::Client, first_line},
    service::{Handle, stopped},
};

/// In whose name the calls are made.
const CALLER: &str = "otlp";
/// Most values in one request: a collector refuses what is too long.
const VALUES_MAX: usize = 2_000;
/// How long one request may take.
const POST_MAX: Duration = Duration::from_secs(20);
/// Shortest and longest time between two pushes, in seconds.
pub const EVERY_S: std::ops::RangeInclusive<u64> = 5..=3_600;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// `[metrics.otlp]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpSection {
    /// Where the collector takes metrics: `https://collector.example.com:4318/v1/metrics`.
    pub url: String,
    /// Seconds between two pushes.
    #[serde(default = "a_minute")]
    pub every_s: u64,
    /// A file whose first line is sent as `authorization: Bearer …`.
    pub token_file: Option<PathBuf>,
    /// PEM file of the authority that vouches for the collector, unless the system trusts it.
    pub ca: Option<PathBuf>,
}

fn a_minute() -> u64 {
    60
}

impl OtlpSection {
    /// What is wrong with it, beginning with the key.
    pub fn check(&self) -> Result<(), String> {
        match EVERY_S.contains(&self.every_s) {
            true => Ok(()),
            false => Err(format!(
                "metrics.otlp.every_s: {} to {} seconds, not {}",
                EVERY_S.start(),
                EVERY_S.end(),
                self.every_s
            )),
        }
    }
}

/// Values as requests.
#[derive(Debug)]
struct Requests {
    resource: Value,
    at_unix_ms: i64,
    done: Vec<String>,
    metrics: Vec<Value>,
    values: usize,
}

impl Requests {
    fn new(fleet: &FleetId, at_unix_ms: i64) -> Self {
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        Self {
            resource: json!({ "attributes": [
                attribute("service.name", "mycelial-plane"),
                attribute("service.version", env!("CARGO_PKG_VERSION")),
                attribute("service.instance.id", fleet.as_str()),
            ] }),
            at_unix_ms,
            done: Vec::new(),
            metrics: Vec::new(),
            values: 0,
        }
    }

    fn finish(&mut self) {
        if self.values > 0 {
            let scope = json!({ "name": "mycelial", "version": env!("CARGO_PKG_VERSION") });
            let metrics = std::mem::take(&mut self.metrics);
            let request = json!({ "resourceMetrics": [{
                "resource": self.resource,
                "scopeMetrics": [{ "scope": scope, "metrics": metrics }],
            }] });
            self.done.push(request.to_string());
        }
        self.metrics.clear();
        self.values = 0;
    }

    /// Where the values of the newest metric go.
    fn points(&mut self) -> Option<&mut Vec<Value>> {
        let metric = self.metrics.last_mut()?.as_object_mut()?;
        let key = if metric.contains_key("sum") { "sum" } else { "gauge" };
        metric.get_mut(key)?.get_mut("dataPoints")?.as_array_mut()
    }
}

impl Page for Requests {
    fn metric(&mut self, name: &'static str, kind: &'static str, help: &'static str) {
        let (key, mut data) = ("gauge", json!({ "dataPoints": [] }));
        let key = match kind {
            "counter" => {
                data["aggregationTemporality"] = json!(CUMULATIVE);
                data["isMonotonic"] = json!(true);
                "sum"
            }
            _ => key,
        };
        self.metrics
            .push(json!({ "name": name, "description": help, key: data }));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        if self.values >= VALUES_MAX {
            // The rest of this metric goes on in the next request.
            let mut again = self.metrics.last().cloned().unwrap_or_default();
            self.finish();
            for key in ["sum", "gauge"] {
                if let Some(data) = again.get_mut(key) {
                    data["dataPoints"] = json!([]);
                }
            }
            self.metrics.push(again);
        }
        let attributes: Vec<Value> = labels
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }))
            .collect();
        // 64-bit numbers are texts in OTLP's JSON.
        let at = format!("{}000000", self.at_unix_ms.max(0));
        let point = json!({ "attributes": attributes, "timeUnixNano": at, "asDouble": value });
        if let Some(points) = self.points() {
            points.push(point);
            self.values += 1;
        }
    }
}

/// Pushes until `stop` turns true.
pub fn start(
    section: &OtlpSection,
    dir: &Path,
    service: Handle,
    fleet: FleetId,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ConfigError> {
    let ca = section.ca.as_ref().map(|path| dir.join(path));
    let client = Client::new(["metrics.otlp.url", "metrics.otlp.ca"], &section.url, ca.as_deref())?;
    let token = section.token_file.as_ref();
    let token = token.map(|path| first_line("metrics.otlp.token_file", &dir.join(path)));
    let pusher = Pusher {
        client,
        token: token.transpose()?,
        service,
        fleet,
    };
    let every = Duration::from_secs(section.every_s);
    Ok(essential::spawn("otlp", pusher.run(every, stop)))
}

struct Pusher {
    client: Client,
    token: Option<Zeroizing<String>>,
    service: Handle,
    fleet: FleetId,
}

impl Pusher {
    async fn run(self, every: Duration, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut failed = false;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                _ = tick.tick() => {}
            }
            let pushed = tokio::select! {
                () = stopped(&mut stop) => return,
                pushed = self.push() => pushed,
            };
            // One that is away is named once, and once when it is back.
            match (pushed, failed) {
                (Err(cause), false) => warn!(cause, host = self.client.host(), "cannot push metrics; trying again"),
                (Ok(()), true) => info!(host = self.client.host(), "pushes metrics again"),
                (Ok(()), false) | (Err(_), true) => continue,
            }
            failed = !failed;
        }
    }

    async fn push(&self) -> Result<(), String> {
        let standing = Standing::ask(&self.service, CALLER).await?;
        let mut requests = Requests::new(&self.fleet, unix_ms());
        metrics::tell(&mut requests, &standing);
        requests.finish();
        let headers: Vec<_> = self
            .token
            .iter()
            .map(|token| ("authorization", format!("Bearer {}", token.as_str())))
            .collect();
        for request in requests.done {
            let posted = timeout(POST_MAX, self.client.post(Bytes::from(request), &headers)).await;
            match posted {
                Ok(Ok(200..300)) => {}
                Ok(Ok(code)) => return Err(format!("the collector answered {code}")),
                Ok(Err(cause)) => return Err(cause.to_string()),
                Err(_) => return Err(format!("no answer in {} s", POST_MAX.as_secs())),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_as_a_collector_reads_them() {
        let fleet = FleetId::from_hash(&[1; 32]);
        let mut requests = Requests::new(&fleet, 1_700_000_000_123);
        requests.metric("a_total", "counter", "So many.");
        requests.sample(&[("daemon", "g\"w")], 1.5);
        requests.metric("b", "gauge", "So much.");
        for _ in 0..VALUES_MAX {
            requests.sample(&[], 2.0);
        }
        requests.metric("c", "gauge", "Nothing.");
        requests.finish();
        assert_eq!(requests.done.len(), 2);
        let [first, second]: [Value; 2] = [0, 1].map(|at: usize| serde_json::from_str(&requests.done[at]).unwrap());
        let of = |request: &Value| request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].clone();
        let sum = &of(&first)[0]["sum"];
        assert_eq!(
            (&sum["isMonotonic"], &sum["aggregationTemporality"]),
            (&json!(true), &json!(2))
        );
        let point = &sum["dataPoints"][0];
        assert_eq!(point["timeUnixNano"], json!("1700000000123000000"));
        assert_eq!(point["asDouble"], json!(1.5));
        assert_eq!(
            point["attributes"][0],
            json!({ "key": "daemon", "value": { "stringValue": "g\"w" } })
        );
        let count = |request: &Value, at: usize| of(request)[at]["gauge"]["dataPoints"].as_array().map_or(0, Vec::len);
        assert_eq!((count(&first, 1), count(&second, 0)), (VALUES_MAX - 1, 1));
        assert_eq!(of(&second)[0]["name"], json!("b"));
    }
}
