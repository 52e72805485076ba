//! What checks of connectors have in common: is there such a host, does somebody answer, is the connection protected as it is
//! wanted, may a file be read, is there such a program. Says what is wrong and how to mend it; sends nothing, writes nothing.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) use flow::check::trouble_of as as_trouble;
use flow::{Trouble, TroubleKind as Kind};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::secret::{Secret, SecretError, SecretRef};

/// How long one address may take to answer.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// A connection to one of the addresses of a host, which is let go of at once.
pub(crate) async fn tcp(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let found = timeout(CONNECT_WAIT, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(nameless(host, &error.to_string())),
        Err(_) => return Err(nameless(host, "the name service does not answer")),
    };
    let mut cause = "it has no address".to_string();
    for address in addresses {
        cause = match timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer for {} seconds", CONNECT_WAIT.as_secs()),
        };
    }
    Err(Trouble::new(
        Kind::Unreachable,
        format!("cannot connect to {host}:{port}: {cause}"),
        format!(
            "is the server running, is {port} its port, and does every firewall on the way let this machine through?"
        ),
    ))
}

fn nameless(host: &str, cause: &str) -> Trouble {
    Trouble::new(
        Kind::Name,
        format!("'{host}' has no address: {cause}"),
        format!("look for a mistake in the name, and at the name service of this machine: getent hosts {host}"),
    )
}

/// Sees whether a protected connection comes about.
pub(crate) async fn tls(stream: TcpStream, host: &str, config: Result<ClientConfig, String>) -> Result<(), Trouble> {
    let config = config.map_err(|cause| certificates(&cause))?;
    let name = ServerName::try_from(host.to_string())
        .map_err(|_| Trouble::new(Kind::Tls, format!("'{host}' is no name a certificate can have"), NAMES))?;
    let greeted = timeout(CONNECT_WAIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    match greeted {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unprotected(&error.to_string())),
        Err(_) => Err(unprotected("the server does not answer to the greeting")),
    }
}

const NAMES: &str = "write the host as its certificate has it";

/// A protected connection that does not come about.
pub(crate) fn unprotected(cause: &str) -> Trouble {
    Trouble::new(
        Kind::Tls,
        format!("TLS: {cause}"),
        "name the authority that signed the server's certificate (tls.ca_file), write the host as the certificate has it, or, \
         if the server has no TLS, do without",
    )
}

/// Whether an error comes from TLS, however deep inside.
pub(crate) fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_of_tls(inner)) || error.source().is_some_and(is_of_tls)
}

/// Files of certificates that cannot be used.
pub(crate) fn certificates(cause: &str) -> Trouble {
    Trouble::new(
        Kind::Tls,
        cause,
        "put a PEM file there that the daemon may read, or correct the path in tls",
    )
}

/// A secret, or why it cannot be had. What it is is said to nobody.
pub(crate) fn secret(secret: &SecretRef, base_dir: &Path) -> Result<Secret, Trouble> {
    secret.fetch(base_dir).map_err(|error| secretless(&error))
}

/// A secret that cannot be had.
fn secretless(error: &SecretError) -> Trouble {
    let text = error.to_string();
    let (cause, hint) = text.split_once("\n  hint: ").unwrap_or((&text, ""));
    let usual = "set it for the daemon: in its store (mycelial secret set), its environment, or a file it may read";
    Trouble::new(Kind::Secret, cause, if hint.is_empty() { usual } else { hint })
}

/// All secrets can be had.
pub(crate) fn secrets<'a>(secrets: impl IntoIterator<Item = &'a SecretRef>, base_dir: &Path) -> Result<(), Trouble> {
    secrets
        .into_iter()
        .try_for_each(|reference| secret(reference, base_dir).map(drop))
}

/// A login that is refused.
pub(crate) fn refused(cause: impl Into<String>) -> Trouble {
    Trouble::new(
        Kind::Login,
        cause,
        "correct the user, the password or the key; what is kept in the daemon's store is set with: mycelial secret set",
    )
}

/// Something that is not there.
pub(crate) fn missing(cause: impl Into<String>, remedy: impl Into<String>) -> Trouble {
    Trouble::new(Kind::Missing, cause, remedy)
}

/// A right that is not there.
pub(crate) fn forbidden(cause: impl Into<String>, remedy: impl Into<String>) -> Trouble {
    Trouble::new(Kind::Right, cause, remedy)
}

/// A file that can be read, or is not there (`false`). It is not opened.
pub(crate) fn readable_file(path: &Path) -> Result<bool, Trouble> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Trouble::new(
            Kind::Path,
            format!("{} is a directory", path.display()),
            "name the file",
        )),
        Ok(_) => allowed(path, Access::READ_OK, "read").map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory(parent(path), Access::EXEC_OK, "look into")?;
            Ok(false)
        }
        Err(error) => Err(unreadable(path, "read", &error)),
    }
}

/// A directory that can be read.
pub(crate) fn readable_directory(path: &Path) -> Result<(), Trouble> {
    directory(path, Access::READ_OK | Access::EXEC_OK, "read")
}

/// A directory in which files can be made.
pub(crate) fn writable_directory(path: &Path) -> Result<(), Trouble> {
    directory(path, Access::WRITE_OK | Access::EXEC_OK, "write into")
}

/// A file that can be written, or made.
pub(crate) fn writable_file(path: &Path) -> Result<(), Trouble> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let cause = format!("{} is a directory", path.display());
            Err(Trouble::new(Kind::Path, cause, "name a file in it"))
        }
        Ok(_) => allowed(path, Access::WRITE_OK, "write"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => writable_directory(parent(path)),
        Err(error) => Err(unreadable(path, "write", &error)),
    }
}

fn directory(path: &Path, access: Access, doing: &str) -> Result<(), Trouble> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => allowed(path, access, doing),
        Ok(_) => Err(Trouble::new(
            Kind::Path,
            format!("{} is no directory", path.display()),
            "name a directory",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Trouble::new(
            Kind::Path,
            format!("there is no directory {}", path.display()),
            "make it, for the user the daemon runs as, or correct the path",
        )),
        Err(error) => Err(unreadable(path, doing, &error)),
    }
}

/// As the user the daemon is at this moment.
fn allowed(path: &Path, access: Access, doing: &str) -> Result<(), Trouble> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|error| unreadable(path, doing, &error.into()))
}

fn unreadable(path: &Path, doing: &str, error: &io::Error) -> Trouble {
    Trouble::new(
        Kind::Path,
        format!("the daemon cannot {doing} {}: {error}", path.display()),
        "give the user the daemon runs as the right to do so, or choose another place",
    )
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// A program that can be started, by name or path. It is not started.
pub(crate) fn program(name: &str, dir: &Path) -> Result<PathBuf, Trouble> {
    if !dir.as_os_str().is_empty() {
        directory(dir, Access::EXEC_OK, "go into")?;
    }
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![dir.join(name)]
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|place| place.join(name)).collect()
    };
    let runs =
        |path: &&PathBuf| path.is_file() && accessat(CWD, path.as_path(), Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if let Some(found) = candidates.iter().find(runs) {
        return Ok(found.clone());
    }
    let (cause, remedy) = match candidates.iter().find(|path| path.exists()) {
        Some(path) => (
            format!("{} cannot be run", path.display()),
            "make it executable: chmod +x".to_string(),
        ),
        None => (
            format!("there is no program '{name}'"),
            "install it, or write its whole path".to_string(),
        ),
    };
    Err(Trouble::new(Kind::Program, cause, remedy))
}

/// An address to listen at for connections. It is free again afterwards.
pub(crate) async fn listen_tcp(address: SocketAddr) -> Result<(), Trouble> {
    TcpListener::bind(address)
        .await
        .map(drop)
        .map_err(|error| deaf("tcp", address, &error))
}

/// The same for datagrams.
pub(crate) async fn listen_udp(address: SocketAddr) -> Result<(), Trouble> {
    UdpSocket::bind(address)
        .await
        .map(drop)
        .map_err(|error| deaf("udp", address, &error))
}

fn deaf(what: &str, address: SocketAddr, error: &io::Error) -> Trouble {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "if this workflow runs already, it is the one that listens there; else stop the other program, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "choose an address that this machine has, or 0.0.0.0 for all of them",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one, or give it that"
        }
        _ => "choose another address",
    };
    Trouble::new(
        Kind::Listen,
        format!("cannot listen at {what} {address}: {error}"),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(checked: Result<T, Trouble>) -> Option<Kind> {
        let trouble = checked.err()?;
        assert!(!trouble.cause.is_empty() && !trouble.remedy.is_empty(), "{trouble:?}");
        Some(trouble.kind)
    }

    #[tokio::test]
    async fn every_part_of_the_way_has_its_own_trouble() {
        let port = testkit::free_port();
        assert_eq!(kind(tcp("127.0.0.1", port).await), Some(Kind::Unreachable));
        assert_eq!(kind(tcp("no-such-host.invalid", port).await), Some(Kind::Name));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        assert_eq!(kind(tcp("127.0.0.1", port).await), None);
        let address = listener.local_addr().unwrap();
        assert_eq!(kind(listen_tcp(address).await), Some(Kind::Listen));
        drop(listener);
        assert_eq!(kind(listen_tcp(address).await), None);
        assert_eq!(kind(listen_udp(address).await), None);
        assert_eq!(
            kind(listen_udp("192.0.2.1:9".parse().unwrap()).await),
            Some(Kind::Listen)
        );
    }

    #[test]
    fn files_directories_and_programs() {
        let dir = tempfile::tempdir().unwrap();
        let (file, none) = (dir.path().join("file"), dir.path().join("none"));
        fs::write(&file, "x").unwrap();
        assert_eq!(readable_file(&file), Ok(true));
        assert_eq!(readable_file(&none), Ok(false));
        for (checked, wanted) in [
            (readable_file(dir.path()).map(drop), Some(Kind::Path)),
            (readable_file(&none.join("deep")).map(drop), Some(Kind::Path)),
            (readable_directory(dir.path()), None),
            (readable_directory(&file), Some(Kind::Path)),
            (writable_directory(&none), Some(Kind::Path)),
            (writable_file(&none), None),
            (writable_file(&file), None),
            (writable_file(&none.join("deep")), Some(Kind::Path)),
            (writable_file(dir.path()), Some(Kind::Path)),
            (program("sh", Path::new("")).map(drop), None),
            (program("/bin/sh", Path::new("")).map(drop), None),
            (program("no-such-program", Path::new("")).map(drop), Some(Kind::Program)),
            (program("./file", dir.path()).map(drop), Some(Kind::Program)),
            (program("sh", &none).map(drop), Some(Kind::Path)),
        ] {
            assert_eq!(kind(checked), wanted);
        }
    }
}
