//! Making a plane: keys, fleet, roster, settings, and all the embedded broker needs. Connects to nothing.
//!
//! The settings file is written last: a plane without one is not made yet, and making it again goes on where it stopped.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bus_link::{
    BusAddress, Protocol,
    home::{Home, HomeError, Membership, write_atomic},
};
use bus_schema::{
    id::{FleetId, base32, hash},
    key::{Identity, SecretKey},
    member::{Certificate, GroupKey, Role, Roster, Signed},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{
    config::{FILE, HTTP, Public, STORE},
    store::{Store, StoreError},
};

/// The embedded broker's settings, inside the plane's directory.
pub const BROKER_FILE: &str = "broker.toml";
/// The embedded broker's address unless told.
pub const EMBEDDED: &str = "mqtt://127.0.0.1:1883";
/// What the plane is called on the roster.
pub const PLANE_NAME: &str = "plane";

const ROOT: &str = "root";
const PUBLIC: &str = "public";
const BROKER_SECRET: &str = "broker.secret";
const TLS_DIR: &str = "tls";
const CA_FILE: &str = "bus-ca.pem";
const FIRST_ROSTER: u64 = 1;

/// What a plane shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Brokers of the operator's own.
    pub bus: Vec<String>,
    /// Where the embedded broker shall listen. Without this and without `bus`: [`EMBEDDED`].
    pub embedded: Option<String>,
    /// PEM file of the authorities that vouch for the operator's own brokers; the system's unless told.
    pub ca: Option<PathBuf>,
    /// TLS for the embedded broker.
    pub tls: bool,
    /// Where the web page shall listen; [`HTTP`] unless told.
    pub http: Option<SocketAddr>,
}

/// A plane could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The wishes make no sense.
    #[error("{0}")]
    Wish(String),
    /// There is one already.
    #[error("{dir} holds a plane already; run it with: mycelial-plane run --dir {dir}")]
    Exists {
        /// Where.
        dir: String,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
    /// No certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Whether a directory holds a plane.
pub fn is_made(dir: &Path) -> bool {
    dir.join(FILE).is_file()
}

/// The embedded broker, placed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Embedded {
    listen: SocketAddr,
    tls: bool,
}

impl Embedded {
    fn parse(text: &str, tls: bool) -> Result<Self, InitError> {
        let wrong = |message: String| InitError::Wish(format!("--embedded {text}: {message}"));
        let address: BusAddress = text
            .parse()
            .map_err(|error: bus_link::AddressError| wrong(error.to_string()))?;
        if address.protocol() != Protocol::Mqtt {
            return Err(wrong(format!(
                "the embedded broker speaks MQTT: write for example {EMBEDDED}"
            )));
        }
        let ip = match address.host() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| {
                wrong("give the IP address to listen on, such as 127.0.0.1, or 0.0.0.0 for all of them".into())
            })?,
        };
        Ok(Self {
            listen: SocketAddr::new(ip, address.port()),
            tls: tls || address.tls(),
        })
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "mqtts" } else { "mqtt" }
    }

    /// Where the plane finds it: on this machine.
    fn own_address(&self) -> String {
        let ip = match self.listen.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        };
        format!("{}://{}", self.scheme(), SocketAddr::new(ip, self.listen.port()))
    }

    /// Where members find it, if that is elsewhere: when it listens everywhere, by this machine's name.
    fn members_address(&self) -> Option<String> {
        let name = host_name().filter(|_| self.listen.ip().is_unspecified())?;
        Some(format!("{}://{name}:{}", self.scheme(), self.listen.port()))
    }
}

/// The text of a PEM file that holds at least one certificate.
fn authorities(path: &Path) -> Result<String, InitError> {
    let wrong = |cause: String| InitError::Wish(format!("--ca {}: {cause}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match CertificateDer::from_pem_slice(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(_) => Err(wrong(
            "holds no certificate; give a PEM file that begins with -----BEGIN CERTIFICATE-----".into(),
        )),
    }
}

fn host_name() -> Option<String> {
    let read = |path| fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"))?;
    let name = name.trim().to_string();
    (!name.is_empty()).then_some(name)
}

/// Which bus a plane shall have.
enum Road {
    Own { addresses: Vec<String>, ca: Option<String> },
    Embedded(Embedded),
}

impl Wishes {
    fn road(&self) -> Result<Road, InitError> {
        if !self.bus.is_empty() {
            if self.embedded.is_some() || self.tls {
                let message =
                    "--bus means a broker of your own; --embedded and --tls are for the embedded one: choose one";
                return Err(InitError::Wish(message.into()));
            }
            for text in &self.bus {
                text.parse::<BusAddress>()
                    .map_err(|error| InitError::Wish(format!("--bus: {error}")))?;
            }
            let ca = self.ca.as_deref().map(authorities).transpose()?;
            return Ok(Road::Own {
                addresses: self.bus.clone(),
                ca,
            });
        }
        if self.ca.is_some() {
            let message =
                "--ca is for a broker of your own: name it with --bus; the embedded one makes its own with --tls";
            return Err(InitError::Wish(message.into()));
        }
        Embedded::parse(self.embedded.as_deref().unwrap_or(EMBEDDED), self.tls).map(Road::Embedded)
    }

    /// Where the bus is, as the settings will say.
    fn addresses(&self) -> Result<Vec<String>, InitError> {
        Ok(match self.road()? {
            Road::Own { addresses, .. } => addresses,
            Road::Embedded(embedded) => vec![embedded.own_address()],
        })
    }

    /// Fails when a plane that is made already has another bus than is wished for now: flags do not change it.
    pub fn compare(&self, dir: &Path, addresses: &[String]) -> Result<(), InitError> {
        if self.bus.is_empty() && self.embedded.is_none() && !self.tls {
            return Ok(());
        }
        let parse = |texts: &[String]| {
            texts
                .iter()
                .map(|text| text.parse().ok())
                .collect::<Vec<Option<BusAddress>>>()
        };
        if parse(&self.addresses()?) == parse(addresses) {
            return Ok(());
        }
        let file = dir.join(FILE);
        Err(InitError::Wish(format!(
            "this plane was made for {}; to move it to another bus, edit [bus] in {} (and make members new enrolment strings), \
             or leave out --bus, --embedded and --tls",
            addresses.join(", "),
            file.display()
        )))
    }
}

/// What was made, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The fleet.
    pub fleet: FleetId,
    /// The embedded broker's settings, if there is one.
    pub broker: Option<PathBuf>,
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, InitError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(InitError::Random)?;
    Ok(bytes)
}

fn write(path: PathBuf, text: &str) -> Result<(), InitError> {
    write_atomic(&path, text.as_bytes()).map_err(|source| InitError::Write { path, source })
}

/// The fleet's root key; made on first use.
pub fn root(home: &Home) -> Result<Identity, InitError> {
    if let Some(bytes) = home.load(ROOT)?.map(Zeroizing::new) {
        let path = home.dir().join(ROOT).display().to_string();
        let damaged = |_| HomeError::Damaged {
            path,
            cause: "wrong length",
        };
        let bytes: &[u8; Identity::BYTES] = bytes.as_slice().try_into().map_err(damaged)?;
        return Ok(Identity::from_bytes(bytes));
    }
    let bytes = random::<{ Identity::BYTES }>()?;
    home.store(ROOT, &*bytes)?;
    Ok(Identity::from_bytes(&bytes))
}

/// What anybody may know of the plane, kept in the store for programs that do not hold the keys.
pub fn public(store: &Store) -> Result<Option<Public>, StoreError> {
    Ok(store.setting(PUBLIC)?.and_then(|bytes| bus_schema::decode(&bytes)))
}

/// Keeps that.
pub fn note_public(store: &Store, public: &Public) -> Result<(), StoreError> {
    store.set(PUBLIC, &bus_schema::encode(public))
}

/// Makes a plane in `dir`.
pub fn init(dir: &Path, wishes: &Wishes) -> Result<Made, InitError> {
    if is_made(dir) {
        return Err(InitError::Exists {
            dir: dir.display().to_string(),
        });
    }
    let road = wishes.road()?;
    let home = Home::open(dir)?;
    let (root, plane) = (root(&home)?, home.identity()?);
    let membership = match home.membership()? {
        Some(membership) => membership,
        None => {
            let membership = found(&root, &plane, random::<32>()?)?;
            home.save_membership(&membership)?;
            membership
        }
    };
    let public = Public {
        root: root.public().sign,
        plane: membership.plane,
        plane_seal: plane.public().seal,
    };
    note_public(&Store::open(&dir.join(STORE))?, &public)?;
    let mut settings = header(wishes.http);
    let broker = match &road {
        Road::Own { addresses, ca } => {
            if let Some(pem) = ca {
                write(dir.join(CA_FILE), pem)?;
            }
            settings.push_str(&own_bus(addresses, ca.is_some()));
            None
        }
        Road::Embedded(embedded) => {
            make_broker(dir, embedded, &public)?;
            settings.push_str(&embedded_bus(embedded));
            Some(dir.join(BROKER_FILE))
        }
    };
    write(dir.join(FILE), &settings)?;
    Ok(Made {
        fleet: membership.fleet,
        broker,
    })
}

/// A fleet of nobody but the plane.
fn found(root: &Identity, plane: &Identity, group: Zeroizing<[u8; 32]>) -> Result<Membership, InitError> {
    let root_public = root.public().sign;
    let (fleet, keys) = (FleetId::of_root(&root_public), plane.public());
    let certificate = Certificate {
        fleet,
        node: keys.node_id(),
        name: PLANE_NAME.into(),
        role: Role::Plane,
        keys,
        key_epoch: 0,
    };
    let roster = Roster {
        fleet,
        version: FIRST_ROSTER,
        members: vec![certificate.clone()],
        revoked: Vec::new(),
    };
    Ok(Membership {
        fleet,
        root: root_public,
        plane: certificate.node,
        certificate: Signed::new(&certificate, root),
        roster: Signed::new(&roster, root),
        group: GroupKey {
            key_epoch: 0,
            key: SecretKey::new(*group),
        },
        login: None,
        bus: Vec::new(),
        ca: None,
    })
}

fn header(http: Option<SocketAddr>) -> String {
    let http = http.map_or_else(|| HTTP.to_string(), |address| address.to_string());
    format!(
        "# Settings of this plane. Every mistake is named with its line when the plane starts.\n\n\
         # Where the web page listens. Keep it on this machine, or put a proxy with TLS in front of it.\n\
         http = \"{http}\"\n\
         # Names under which such a proxy is reached, and from where it reaches this page: it is believed whose request it is.\n\
         # http_names = [\"plane.example.org\"]\n# web.proxies = [\"127.0.0.1\"]\n\n\
         # Metrics at /metrics, for a Prometheus that shows the token in this file.\n# metrics_token_file = \"metrics.token\"\n\n\
         # TLS for the page: a certificate that is made here (its fingerprint is printed), or files.\n\
         # web.tls = true\n# web.tls_cert = \"page.pem\"\n# web.tls_key = \"page.key\"\n\n\
         # Let the page show records and set secrets: the plane then holds an operator's keys (see docs/SECURITY.md).\n\
         # web.operator = true\n\n"
    )
}

fn quoted(texts: &[String]) -> String {
    // Addresses have been parsed: they hold nothing that would need an escape.
    texts
        .iter()
        .map(|text| format!("\"{text}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

fn own_bus(addresses: &[String], has_ca: bool) -> String {
    let off = if has_ca { "" } else { "# " };
    format!(
        "[bus]\n# Tried in order.\naddresses = [{}]\n\
         # Authorities to trust instead of the system's; members are told.\n{off}ca = \"{CA_FILE}\"\n\
         # user = \"…\"\n# password_file = \"bus.password\"\n# nats_creds = \"bus.creds\"\n\
         # client_cert = \"plane.pem\"\n# client_key = \"plane.key\"\n\n\
         # What enrolment strings tell members, where that differs.\n[members]\n# addresses = [\"mqtts://broker.example.org:8883\"]\n\
         # user = \"…\"                 # one user for all members\n# password_file = \"members.password\"\n",
        quoted(addresses)
    )
}

fn embedded_bus(embedded: &Embedded) -> String {
    let ca = if embedded.tls {
        format!("ca = \"{TLS_DIR}/ca.pem\"\n")
    } else {
        String::new()
    };
    let members = match embedded.members_address() {
        Some(address) => format!("addresses = [{}]\n", quoted(&[address])),
        None => "# addresses = [\"mqtts://broker.example.org:8883\"]\n".to_string(),
    };
    format!(
        "[bus]\naddresses = [{}]\n{ca}\n\
         # The embedded broker: mycelial-broker --config {BROKER_FILE}\n[broker]\nsecret_file = \"{BROKER_SECRET}\"\n\n\
         # Where members find the bus, if it is elsewhere for them.\n[members]\n{members}",
        quoted(&[embedded.own_address()])
    )
}

fn make_broker(dir: &Path, embedded: &Embedded, public: &Public) -> Result<(), InitError> {
    let secret = dir.join(BROKER_SECRET);
    if !secret.exists() {
        write(secret, &Zeroizing::new(format!("{}\n", base32(&*random::<32>()?))))?;
    }
    let fleet = FleetId::of_root(&public.root);
    let listen = embedded.listen;
    let listeners = if embedded.tls {
        make_certificates(&dir.join(TLS_DIR), listen.ip())?;
        format!(
            "# Nothing without TLS.\nlisten = []\n\n[tls]\nlisten = \"{listen}\"\ncert = \"{TLS_DIR}/server.pem\"\n\
             key = \"{TLS_DIR}/server.key\"\n"
        )
    } else {
        format!("listen = \"{listen}\"\n")
    };
    let text = format!(
        "# Settings of the embedded broker, made by mycelial-plane. All keys: mycelial-broker --help\n\n\
         fleet = \"{fleet}\"\nplane = \"{}\"\n# Shared with the plane; every log-in follows from it.\n\
         secret_file = \"{BROKER_SECRET}\"\n{listeners}",
        public.plane
    );
    write(dir.join(BROKER_FILE), &text)
}

/// A certificate authority of this fleet's own, and the broker's certificate by it. Kept when they exist.
fn make_certificates(dir: &Path, listen: IpAddr) -> Result<(), InitError> {
    if dir.join("server.key").exists() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|source| InitError::Write {
        path: dir.to_path_buf(),
        source,
    })?;
    // Valid from 1970 to far away: a gateway whose clock is wrong must still get in; who is trusted is this one authority.
    let valid = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    };
    let mut params = CertificateParams::default();
    let label = base32(&hash("mycelial authority label v1", &[&*random::<16>()?])[..5]);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Mycelial bus authority {label}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut names = vec!["localhost".to_string(), "127.0.0.1".to_string(), "::1".to_string()];
    names.extend(host_name());
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "mycelial-broker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    write(dir.join("ca.pem"), &authority.pem())?;
    write(dir.join("server.pem"), &certificate.pem())?;
    // Last: it says that all are there. The authority's own key is not kept: nothing else will ever be signed with it.
    write(dir.join("server.key"), &Zeroizing::new(key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_plane_is_made_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path(), &Wishes::default()).unwrap();
        assert_eq!(made.broker, Some(dir.path().join(BROKER_FILE)));
        let config = Config::read(dir.path()).unwrap();
        assert_eq!(config.bus.addresses, [EMBEDDED]);
        let home = Home::open(dir.path()).unwrap();
        let membership = home.membership().unwrap().unwrap();
        assert_eq!(membership.fleet, made.fleet);
        let roster = membership.roster.open(&membership.root).unwrap();
        assert_eq!((roster.version, roster.members.len()), (1, 1));
        let public = public(&Store::open(&dir.path().join(STORE)).unwrap()).unwrap().unwrap();
        assert_eq!(public.root, root(&home).unwrap().public().sign);
        let inviter = config.inviter(&public).unwrap();
        assert!(config.bus_config(dir.path(), &public.plane, &inviter).is_ok());
        drop(home);
        assert!(matches!(
            init(dir.path(), &Wishes::default()),
            Err(InitError::Exists { .. })
        ));
    }

    #[test]
    fn what_was_begun_is_finished_with_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let first = init(dir.path(), &Wishes::default()).unwrap();
        let secret = fs::read(dir.path().join(BROKER_SECRET)).unwrap();
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_eq!(init(dir.path(), &Wishes::default()).unwrap(), first);
        assert_eq!(fs::read(dir.path().join(BROKER_SECRET)).unwrap(), secret);
    }

    #[test]
    fn with_tls_everything_fits_together() {
        let dir = tempfile::tempdir().unwrap();
        let wishes = Wishes {
            embedded: Some("mqtt://127.0.0.1:18830".into()),
            tls: true,
            ..Wishes::default()
        };
        init(dir.path(), &wishes).unwrap();
        let config = Config::read(dir.path()).unwrap();
        assert_eq!(config.bus.addresses, ["mqtts://127.0.0.1:18830"]);
        let public = public(&Store::open(&dir.path().join(STORE)).unwrap()).unwrap().unwrap();
        let inviter = config.inviter(&public).unwrap();
        assert!(inviter.ca.is_some());
        assert!(config.bus_config(dir.path(), &public.plane, &inviter).is_ok());
        let broker = fs::read_to_string(dir.path().join(BROKER_FILE)).unwrap();
        for line in [
            "listen = []",
            "listen = \"127.0.0.1:18830\"",
            "cert = \"tls/server.pem\"",
            "key = \"tls/server.key\"",
        ] {
            assert!(broker.contains(line), "{line} in\n{broker}");
        }
        for file in ["server.key", "ca.pem"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join(TLS_DIR).join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn wishes_that_make_no_sense() {
        let wish = |bus: &[&str], embedded: Option<&str>, tls| Wishes {
            bus: bus.iter().map(ToString::to_string).collect(),
            embedded: embedded.map(str::to_string),
            tls,
            ..Wishes::default()
        };
        for (wishes, part) in [
            (
                Wishes {
                    ca: Some("/nowhere/ca.pem".into()),
                    ..wish(&["mqtts://a"], None, false)
                },
                "--ca /nowhere/ca.pem: No such file",
            ),
            (
                Wishes {
                    ca: Some("Cargo.toml".into()),
                    ..wish(&["mqtts://a"], None, false)
                },
                "--ca Cargo.toml: holds no certificate",
            ),
            (
                Wishes {
                    ca: Some("Cargo.toml".into()),
                    ..wish(&[], None, true)
                },
                "--ca is for a broker of your own",
            ),
            (wish(&["nats://a"], Some(EMBEDDED), false), "choose one"),
            (wish(&["nats://a"], None, true), "choose one"),
            (wish(&["a:1"], None, false), "--bus: 'a:1' has no scheme"),
            (
                wish(&[], Some("nats://127.0.0.1:1"), false),
                "the embedded broker speaks MQTT",
            ),
            (
                wish(&[], Some("mqtt://example.org"), false),
                "give the IP address to listen on",
            ),
            (wish(&[], Some("x"), false), "--embedded x: 'x' has no scheme"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let error = init(dir.path(), &wishes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!is_made(dir.path()));
        }
    }

    #[test]
    fn the_same_command_works_again_and_another_one_says_what_to_do() {
        let dir = Path::new("/var/lib/plane");
        let made = ["mqtt://127.0.0.1:1883".to_string()];
        let wish = |embedded: &str| Wishes {
            embedded: Some(embedded.into()),
            ..Wishes::default()
        };
        for (wishes, same) in [
            (Wishes::default(), true),
            (wish("mqtt://127.0.0.1:1883"), true),
            (wish("mqtt://localhost"), true),
            (wish("mqtt://127.0.0.1:1884"), false),
            (
                Wishes {
                    tls: true,
                    ..Wishes::default()
                },
                false,
            ),
            (
                Wishes {
                    bus: vec!["mqtt://127.0.0.1".into()],
                    ..Wishes::default()
                },
                true,
            ),
            (
                Wishes {
                    bus: vec!["nats://127.0.0.1".into()],
                    ..Wishes::default()
                },
                false,
            ),
        ] {
            let compared = wishes.compare(dir, &made);
            assert_eq!(compared.is_ok(), same, "{wishes:?}");
            if let Err(error) = compared {
                assert!(
                    error.to_string().contains("edit [bus] in /var/lib/plane/plane.toml"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn a_broker_that_listens_everywhere_is_found_by_name() {
        let embedded = Embedded::parse("mqtt://0.0.0.0:1883", false).unwrap();
        assert_eq!(embedded.own_address(), EMBEDDED);
        if let Some(name) = host_name() {
            assert_eq!(embedded.members_address(), Some(format!("mqtt://{name}:1883")));
        }
        assert_eq!(
            Embedded::parse("mqtts://[::1]", false).unwrap().own_address(),
            "mqtts://[::1]:8883"
        );
    }
}
