//! Protected connections, against asyncua and its `cryptography`.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use flow::TroubleKind;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// All ways of asyncua that are ours: its own name, policy, mode.
const WAYS: [(&str, &str, &str); 6] = [
    ("Basic256Sha256_SignAndEncrypt", "Basic256Sha256", "sign_and_encrypt"),
    ("Basic256Sha256_Sign", "Basic256Sha256", "sign"),
    (
        "Aes128Sha256RsaOaep_SignAndEncrypt",
        "Aes128_Sha256_RsaOaep",
        "sign_and_encrypt",
    ),
    ("Aes128Sha256RsaOaep_Sign", "Aes128_Sha256_RsaOaep", "sign"),
    (
        "Aes256Sha256RsaPss_SignAndEncrypt",
        "Aes256_Sha256_RsaPss",
        "sign_and_encrypt",
    ),
    ("Aes256Sha256RsaPss_Sign", "Aes256_Sha256_RsaPss", "sign"),
];

/// Certificates of both sides, in files.
struct Files {
    dir: TempDir,
    server: testkit::CertFiles,
}

impl Files {
    /// Ours is made with the command that the reference has.
    fn new(server_bits: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = testkit::rsa_certificate(dir.path(), "server", server_bits, "urn:test:server");
        let schema: Json = serde_json::from_str(&descriptor().schema).unwrap();
        let text = schema["description"].as_str().unwrap();
        let command = text
            .split("```sh\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let made = Command::new("sh")
            .args(["-ec", command])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { dir, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory with this certificate and no other.
    fn trusting(&self, name: &str) -> PathBuf {
        let dir = self.path("trusted");
        fs::create_dir_all(&dir).unwrap();
        fs::copy(self.path(name), dir.join(name)).unwrap();
        dir
    }

    /// What a server is told.
    fn settings(&self, policies: &[&str], more: &Json) -> Json {
        let mut security = json!({"cert": self.server.cert, "key": self.server.key, "policies": policies});
        for (key, value) in more.as_object().unwrap() {
            security[key] = value.clone();
        }
        json!({"security": security})
    }

    /// What a source is told; keys that are null are left out.
    fn security(&self, more: &Json) -> Json {
        let mut security = json!({
            "cert_file": self.path("opcua.pem"), "key_file": self.path("opcua.key"), "server_cert_file": self.server.cert,
        });
        for (key, value) in more.as_object().unwrap() {
            security[key] = value.clone();
        }
        security.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        json!({"security": security})
    }
}

/// One node, of which one value comes.
async fn reads(server: &Server, more: &Json) -> Result<(), String> {
    let mut source = opcua(&server.url(), more, &["ns=2;s=a"]);
    source.open(None).await.map_err(|fault| fault.to_string())?;
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]);
    source.close().await;
    Ok(())
}

#[tokio::test]
async fn every_policy_and_mode() {
    // Keys of more than 2048 bits say how much they were padded in a way of their own.
    for bits in [2048, 3072] {
        let files = Files::new(bits);
        for (way, policy, mode) in WAYS {
            let settings = files.settings(&[way], &json!({"trusted": files.trusting("opcua.pem")}));
            let server = Server::start_with(&number("ns=2;s=a", 1.0), &settings);
            for policy in [json!(policy), Json::Null] {
                let security = files.security(&json!({"mode": mode, "policy": policy}));
                let read = reads(&server, &security).await;
                assert_eq!(read, Ok(()), "{way} {bits}\n{}", server.log());
            }
            // What it does not offer is not taken, least of all something weaker.
            let weaker = json!({"mode": "sign_and_encrypt", "policy": policy});
            if mode == "sign" {
                let refused = reads(&server, &files.security(&weaker)).await.unwrap_err();
                let wanted =
                    format!("it offers no connection with sign_and_encrypt and {policy}, but: {policy} with sign");
                assert!(refused.contains(&wanted), "{refused}");
            }
            if bits > 2048 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_strongest_is_taken_and_nothing_can_be_read_on_the_line() {
    let files = Files::new(2048);
    let policies = [
        "NoSecurity",
        "Aes128Sha256RsaOaep_Sign",
        "Basic256Sha256_Sign",
        "Basic256Sha256_SignAndEncrypt",
    ];
    let node = json!([{"id": "ns=2;s=a", "type": "String", "value": "nobody's business"}]);
    let server = Server::start_with(&node, &files.settings(&policies, &json!({})));
    for (mode, is_readable) in [("sign", true), ("sign_and_encrypt", false)] {
        let link = Link::to(server.addr());
        let capture = link.capture();
        let url = format!("opc.tcp://127.0.0.1:{}", link.port());
        let mut source = opcua(&url, &files.security(&json!({"mode": mode})), &["ns=2;s=a"]);
        source.open(None).await.unwrap();
        assert_eq!(
            values(&taken(&mut *source, 1).await),
            [Data::Text("nobody's business".into())]
        );
        source.close().await;
        assert!(capture.contains(b"SecurityPolicy#Basic256Sha256"), "{mode}");
        assert_eq!(capture.contains(b"nobody's business"), is_readable, "{mode}");
    }
}

#[tokio::test]
async fn passwords_are_encrypted() {
    let files = Files::new(2048);
    let node = number("ns=2;s=a", 1.0);
    let mut settings = files.settings(
        &["NoSecurity", "Basic256Sha256_Sign", "Basic256Sha256_SignAndEncrypt"],
        &json!({}),
    );
    settings["users"] = json!({"reader": "open sesame"});
    let server = Server::start_with(&node, &settings);
    let nothing = json!({"mode": "none", "cert_file": null, "key_file": null});
    for (security, password, wanted) in [
        (
            files.security(&json!({"mode": "sign_and_encrypt"})),
            "open sesame",
            None,
        ),
        (
            files.security(&json!({"mode": "sign_and_encrypt"})),
            "open barley",
            Some("BadUserAccessDenied"),
        ),
        (files.security(&json!({"mode": "sign"})), "open sesame", None),
        (
            files.security(&json!({"mode": "sign"})),
            "open barley",
            Some("BadUserAccessDenied"),
        ),
        (files.security(&nothing), "open sesame", None),
        (files.security(&nothing), "open barley", Some("BadUserAccessDenied")),
        (
            json!({}),
            "open sesame",
            Some("it wants passwords encrypted, and the server shows a certificate"),
        ),
    ] {
        let link = Link::to(server.addr());
        let capture = link.capture();
        let mut more = security.clone();
        more["user"] = json!("reader");
        more["password"] = json!(password);
        let mut source = opcua(&format!("opc.tcp://127.0.0.1:{}", link.port()), &more, &["ns=2;s=a"]);
        match (source.open(None).await, wanted) {
            (Ok(()), None) => assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]),
            (Err(fault), Some(wanted)) => assert!(fault.to_string().contains(wanted), "{fault}"),
            (opened, wanted) => panic!("{opened:?} instead of {wanted:?}: {security}\n{}", server.log()),
        }
        source.close().await;
        capture.assert_no_plaintext([password]);
    }
    // A server that takes them as they are is given none, if something was said about security.
    let server = Server::start_for_users(&node, &settings["users"]);
    let mut more = files.security(&nothing);
    (more["user"], more["password"]) = (json!("reader"), json!("open sesame"));
    let refused = reads(&server, &more).await.unwrap_err();
    assert!(
        refused.contains("it takes passwords only in a way that is not safe"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_server_is_who_it_was_said_to_be() {
    let files = Files::new(2048);
    let settings = files.settings(&["Basic256Sha256_SignAndEncrypt"], &json!({}));
    let server = Server::start_with(&number("ns=2;s=a", 1.0), &settings);
    let nobody = json!({"server_cert_file": null});
    let refused = reads(&server, &files.security(&nobody)).await.unwrap_err();
    // What it says can be written down as it stands there.
    let (_, fingerprint) = refused.split_once("server_fingerprint = \"").unwrap();
    let fingerprint = fingerprint.split('"').next().unwrap();
    let by_fingerprint = json!({"server_cert_file": null, "server_fingerprint": fingerprint.to_uppercase()});
    assert_eq!(reads(&server, &files.security(&by_fingerprint)).await, Ok(()));

    let another = files.security(&json!({"server_cert_file": files.path("opcua.pem")}));
    let refused = reads(&server, &another).await.unwrap_err();
    assert!(
        refused.contains("another certificate (SHA-256 ") && refused.contains(fingerprint),
        "{refused}"
    );
    let mut source = opcua(&server.url(), &another, &["ns=2;s=a"]);
    let trouble = flow::check::check_source(&mut *source).await.unwrap_err();
    assert_eq!(trouble.kind, TroubleKind::Tls, "{trouble:?}");
    assert!(trouble.remedy.contains("somebody else answers"), "{trouble:?}");

    // Without security it is told apart, and says what it wants.
    let said = "it takes only connections with security (Basic256Sha256 with sign_and_encrypt)";
    let mut source = opcua(&server.url(), &json!({}), &["ns=2;s=a"]);
    let fault = source.open(None).await.unwrap_err();
    assert!(fault.to_string().contains(said), "{fault}");
    let trouble = flow::check::check_source(&mut *source).await.unwrap_err();
    assert!(
        trouble.cause.contains(said) && trouble.remedy.contains("security = { … }"),
        "{trouble:?}"
    );

    // A check looks no further than a source.
    let mut source = opcua(&server.url(), &files.security(&json!({})), &["ns=2;s=a"]);
    let found = flow::check::check_source(&mut *source).await.unwrap();
    assert!(found.ends_with("all 1 nodes can be read"), "{found}");
}

#[tokio::test]
async fn a_server_that_does_not_trust_us_says_so() {
    let files = Files::new(2048);
    let settings = files.settings(
        &["Basic256Sha256_SignAndEncrypt"],
        &json!({"trusted": files.trusting("server.pem")}),
    );
    let server = Server::start_with(&number("ns=2;s=a", 1.0), &settings);
    let mut source = opcua(&server.url(), &files.security(&json!({})), &["ns=2;s=a"]);
    let fault = source.open(None).await.unwrap_err();
    assert!(matches!(&fault, Fault::Retry { .. }), "{fault:?}");
    assert!(
        fault
            .to_string()
            .contains("BadCertificateUntrusted\n  hint: put the certificate of"),
        "{fault}"
    );
    let trouble = flow::check::check_source(&mut *source).await.unwrap_err();
    assert_eq!(trouble.kind, TroubleKind::Tls, "{trouble:?}");
    assert!(trouble.remedy.contains("list of trusted ones"), "{trouble:?}");
}

#[tokio::test]
async fn keys_are_renewed_while_values_come() {
    let files = Files::new(2048);
    let settings = files.settings(&["Basic256Sha256_SignAndEncrypt"], &json!({"lifetime_ms": 1500}));
    let server = Arc::new(Server::start_with(&number("ns=2;s=a", 0.0), &settings));
    let link = Link::to(server.addr());
    let capture = link.capture();
    let url = format!("opc.tcp://127.0.0.1:{}", link.port());
    let mut source = opcua(&url, &files.security(&json!({})), &["ns=2;s=a"]);
    source.open(None).await.unwrap();
    let setter = {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            for step in 1..=120 {
                server.set(&number("ns=2;s=a", f64::from(step)));
                thread::sleep(Duration::from_millis(50));
            }
        })
    };
    let wanted: Vec<Data> = (0..=120).map(|step| Data::F64(f64::from(step))).collect();
    assert_eq!(values(&taken(&mut *source, 121).await), wanted);
    setter.join().unwrap();
    assert_eq!(link.accepted(), 2, "the one who asks, and the one that stayed");
    let all = fs::read_dir(capture.dir()).unwrap();
    let opened: usize = all
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .map(|bytes| bytes.windows(4).filter(|part| part == b"OPNF").count())
        .sum();
    // The question and its answer, for the first and for three more at least.
    assert!(opened >= 2 * 5, "{opened}");
}

/// Passes bytes on; spoils one of a message from the server when it is told to. Ends with the connection.
fn spoiler(target: std::net::SocketAddr) -> (u16, Arc<AtomicBool>) {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, spoils) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&spoils);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(target).unwrap());
            for (mut from, mut to, told) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap(), None),
                (server, client, Some(Arc::clone(&told))),
            ] {
                thread::spawn(move || {
                    let mut bytes = [0; 16 * 1024];
                    while let Ok(count) = from.read(&mut bytes) {
                        let is_message = bytes[..count].starts_with(b"MSG");
                        if is_message && told.as_ref().is_some_and(|told| told.swap(false, Ordering::SeqCst)) {
                            bytes[count - 1] ^= 1;
                        }
                        if count == 0 || to.write_all(&bytes[..count]).is_err() {
                            let _ = to.shutdown(std::net::Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        }
    });
    (port, spoils)
}

#[tokio::test]
async fn what_was_changed_on_its_way_is_not_taken() {
    let files = Files::new(2048);
    for way in ["Aes128Sha256RsaOaep_Sign", "Aes256Sha256RsaPss_SignAndEncrypt"] {
        let server = Server::start_with(&number("ns=2;s=a", 1.0), &files.settings(&[way], &json!({})));
        let (port, spoils) = spoiler(server.addr());
        let url = format!("opc.tcp://127.0.0.1:{port}");
        let mut source = opcua(&url, &files.security(&json!({"mode": "sign"})), &["ns=2;s=a"]);
        source.open(None).await.unwrap();
        assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]);
        spoils.store(true, Ordering::SeqCst);
        server.set(&number("ns=2;s=a", 2.0));
        let fault = rows(&mut *source).await.unwrap_err();
        assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
        assert!(
            fault
                .to_string()
                .contains("its protection does not hold: a message is not from whom"),
            "{fault}"
        );
        // Nothing of it was taken: what is there now comes with the next connection.
        source.close().await;
        source.open(None).await.unwrap();
        assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(2.0)]);
        source.close().await;
    }
}

#[test]
fn mistakes_with_certificates_are_named() {
    let files = Files::new(2048);
    let small = testkit::rsa_certificate(files.dir.path(), "small", 1024, "urn:small");
    let load = |more: &Json, days: u64| {
        let security: Security = serde_json::from_value(files.security(more)["security"].clone()).unwrap();
        security.check().unwrap();
        let now = SystemTime::now() + Duration::from_secs(days * 86_400);
        security
            .load(Path::new("/"), now)
            .map(drop)
            .map_err(|error| error.cause)
    };
    assert_eq!(load(&json!({}), 0), Ok(()));
    for (more, days, wanted) in [
        (json!({}), 4000, "opcua.pem: it ended on "),
        (json!({"cert_file": "/none"}), 0, "/none: No such file"),
        (json!({"cert_file": files.path("opcua.key")}), 0, "opcua.key: "),
        (json!({"key_file": files.path("opcua.pem")}), 0, "opcua.pem: "),
        (
            json!({"key_file": files.server.key}),
            0,
            "server.key is not the key to ",
        ),
        (
            json!({"cert_file": small.cert, "key_file": small.key}),
            0,
            "small.pem: its key has 1024 bits",
        ),
        (json!({"server_cert_file": "/none"}), 0, "/none: No such file"),
    ] {
        let said = load(&more, days).unwrap_err();
        assert!(said.contains(wanted), "{said}");
    }
    // As DER it is the same.
    for (from, to) in [("opcua.pem", "opcua.der"), ("server.pem", "server.der")] {
        let (from, to) = (files.path(from), files.path(to));
        let done = Command::new("openssl")
            .args(["x509", "-outform", "DER", "-in"])
            .arg(from)
            .arg("-out")
            .arg(to)
            .status();
        assert!(done.unwrap().success());
    }
    for (kind, name) in [("rsa", "pkcs1.der"), ("pkcs8", "pkcs8.der")] {
        let mut command = Command::new("openssl");
        match kind {
            "rsa" => command.args(["rsa", "-traditional"]),
            _ => command.args(["pkcs8", "-topk8", "-nocrypt"]),
        };
        let done = command
            .args(["-outform", "DER", "-in"])
            .arg(files.path("opcua.key"))
            .arg("-out")
            .arg(files.path(name));
        assert!(done.output().unwrap().status.success());
        let der = json!({
            "cert_file": files.path("opcua.der"), "key_file": files.path(name), "server_cert_file": files.path("server.der"),
        });
        assert_eq!(load(&der, 0), Ok(()), "{name}");
    }
    let server = fs::read(files.path("server.der")).unwrap();
    let trust = certificate::Trust {
        fingerprints: vec![Sha256::digest(&server).into()],
    };
    let later = SystemTime::now() + Duration::from_secs(31 * 86_400);
    // Behind it there may be who signed it.
    let shown = [&server[..], b"\x30\x03\x02\x01\x01"].concat();
    assert_eq!(
        certificate::Known::met(&shown, &trust, SystemTime::now())
            .unwrap()
            .certificate,
        server
    );
    let ended = certificate::Known::met(&server, &trust, later).unwrap_err();
    assert!(
        ended.cause.starts_with("the server's certificate: it ended on "),
        "{ended:?}"
    );
    assert!(certificate::Known::met(b"", &trust, later).is_err());
}

#[test]
fn mistakes_in_the_table_are_named() {
    let good = json!({"cert_file": "c", "key_file": "k"});
    for (more, wanted) in [
        (json!({"cert_file": null}), "security.cert_file: is missing"),
        (json!({"key_file": null}), "security.key_file: is missing"),
        (json!({"mode": "none"}), "security.cert_file: is of no use"),
        (
            json!({"mode": "none", "cert_file": null, "key_file": null, "policy": "Basic256Sha256"}),
            "security.policy: is of no use",
        ),
        (json!({"mode": "encrypt"}), "security.mode: unknown variant `encrypt`"),
        (
            json!({"policy": "Basic256"}),
            "security.policy: unknown variant `Basic256`",
        ),
        (
            json!({"server_fingerprint": "12:34"}),
            "security.server_fingerprint: is no SHA-256",
        ),
        (
            json!({"server_fingerprint": "ab:".repeat(32), "server_cert_file": "s"}),
            "security.server_fingerprint: the certificate itself",
        ),
        (json!({"ca_file": "x"}), "security.ca_file: unknown field `ca_file`"),
    ] {
        let mut security = good.clone();
        for (key, value) in more.as_object().unwrap() {
            security[key] = value.clone();
        }
        security.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let config = json!({"url": "opc.tcp://a", "nodes": [{"id": "i=85"}], "security": security});
        refused(&SOURCE, &config.to_string(), wanted);
    }
}
