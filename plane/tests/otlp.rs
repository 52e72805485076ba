//! Metrics pushed to a collector: what arrives there over HTTP, read as JSON by somebody who knows only the specification.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::{io::Write as _, time::Duration};

use bus_schema::member::Role;
use common::{Plane, SOON};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

/// Takes one request and answers it; its head and body.
async fn take(listener: &TcpListener, status: &str) -> (String, String) {
    let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = timeout(SOON, stream.read(&mut chunk)).await.unwrap().unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_string)
        });
        if body.len() >= length.unwrap().trim().parse().unwrap() {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            return (head.to_string(), body.to_string());
        }
    }
}

#[tokio::test]
async fn a_collector_is_told_at_intervals() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gateway = plane.member(Role::Daemon, 1, "gw").await;
    gateway.announce(&operator).await;
    plane.stop().await;
    std::fs::write(plane.dir.path().join("collector.token"), "let-me-in\n").unwrap();
    let mut settings = std::fs::OpenOptions::new()
        .append(true)
        .open(plane.dir.path().join("plane.toml"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    write!(
        settings,
        "\n[metrics.otlp]\nurl = 'http://{address}/v1/metrics'\nevery_s = 5\ntoken_file = 'collector.token'\n"
    )
    .unwrap();
    plane.start_again().await;
    // A collector that is not well is asked again.
    take(&listener, "503 Service Unavailable").await;
    let (head, body) = take(&listener, "200 OK").await;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    assert!(
        head.contains("content-type: application/json") && head.contains("authorization: bearer let-me-in"),
        "{head}"
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    let resource = &body["resourceMetrics"][0];
    let service = &resource["resource"]["attributes"][0];
    assert_eq!(
        (service["key"].as_str(), service["value"]["stringValue"].as_str()),
        (Some("service.name"), Some("mycelial-plane"))
    );
    let metrics = resource["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let mut names = Vec::new();
    for metric in metrics {
        names.push(metric["name"].as_str().unwrap());
        let data = if metric["sum"].is_null() {
            &metric["gauge"]
        } else {
            &metric["sum"]
        };
        for point in data["dataPoints"].as_array().unwrap() {
            let at: u64 = point["timeUnixNano"].as_str().unwrap().parse().unwrap();
            assert!(
                at > 1_600_000_000_000_000_000 && point["asDouble"].is_number(),
                "{point}"
            );
        }
        if !metric["sum"].is_null() {
            assert_eq!(metric["sum"]["aggregationTemporality"], 2, "cumulative");
        }
    }
    let up = metrics
        .iter()
        .find(|metric| metric["name"] == "mycelial_daemon_up")
        .unwrap();
    let attribute = &up["gauge"]["dataPoints"][0]["attributes"][0];
    assert_eq!(
        (attribute["key"].as_str(), attribute["value"]["stringValue"].as_str()),
        (Some("daemon"), Some("gw"))
    );
    assert!(names.contains(&"mycelial_daemon_cpu_seconds_total"), "{names:?}");
    timeout(Duration::from_secs(10), plane.stop()).await.unwrap();
}
