//! The page with TLS, with a certificate made here: reached by those who trust it, and by nobody without TLS.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use common::{Plane, SOON, code_of};
use plane::{login::login_command, web_tls::DIR};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};

async fn exchange(connector: &TlsConnector, http: &str, name: &str, request: &str) -> std::io::Result<String> {
    let tcp = TcpStream::connect(http).await?;
    let mut tls = connector
        .connect(ServerName::try_from(name.to_string()).unwrap(), tcp)
        .await?;
    tls.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    // The end is not said properly by everybody.
    let _ended = timeout(SOON, tls.read_to_end(&mut bytes)).await.unwrap();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn those_who_trust_its_certificate_reach_the_page() {
    let plane = Plane::start_with("web.tls = true\nhttp_names = [\"plane.example.org\"]\n").await;
    assert!(
        plane.greeting.contains("https://") && plane.greeting.contains("SHA-256 fingerprint"),
        "{}",
        plane.greeting
    );
    let port = plane.http.parse::<SocketAddr>().unwrap().port();
    let certificate = CertificateDer::from_pem_file(plane.dir.path().join(DIR).join("cert.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    // Connections that say nothing hold up nobody.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(&plane.http).await.unwrap());
    }
    let (link, _) = login_command(plane.dir.path()).unwrap();
    assert!(link.starts_with("https://127.0.0.1:"), "{link}");
    let body = json!({ "code": code_of(&link) }).to_string();
    for (name, good) in [
        ("plane.example.org", true),
        ("localhost", true),
        ("127.0.0.1", true),
        ("evil.example", false),
    ] {
        let request = format!("GET /api/v1/session HTTP/1.1\r\nhost: {name}:{port}\r\nconnection: close\r\n\r\n");
        let answered = exchange(&connector, &plane.http, name, &request).await;
        assert_eq!(answered.is_ok(), good, "{name}: {answered:?}");
        if let Ok(answer) = answered {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    let request = format!(
        "POST /api/v1/session HTTP/1.1\r\nhost: localhost:{port}\r\norigin: https://localhost:{port}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&connector, &plane.http, "localhost", &request).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 204") && answer.contains("; Secure"),
        "{answer}"
    );
    // Without TLS there is nothing.
    let mut plain = TcpStream::connect(&plane.http).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let _ended = timeout(Duration::from_secs(20), plain.read_to_end(&mut bytes))
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/1.1"), "{bytes:?}");
}
