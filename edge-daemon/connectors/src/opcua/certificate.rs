//! Certificates of both sides: ours from files, the server's as it shows it, and whether it is the one that was written down.
//! Speaks no protocol.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use rsa::{
    PrivateKey, PublicKey,
    pkcs1::DecodeRsaPrivateKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey},
    traits::PublicKeyParts,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    der::{Decode, Encode, Reader, SliceReader},
    ext::pkix::{SubjectAltName, name::GeneralName},
};
use zeroize::{Zeroize, Zeroizing};

use super::security::KEY_BYTES;

/// Largest file that is read, in bytes; anything longer is a wrong path.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What PEM begins with.
const PEM_BEGINS: &[u8] = b"-----BEGIN ";
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 32;

/// A certificate that cannot be used, with what would mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unusable {
    pub cause: String,
    pub remedy: String,
}

impl Unusable {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }

    /// The same, with whose it is.
    fn of(self, whose: &str) -> Self {
        Self {
            cause: format!("{whose}: {}", self.cause),
            ..self
        }
    }
}

/// The certificate that we show, and its key.
pub(super) struct Own {
    /// As DER.
    pub certificate: Vec<u8>,
    /// What its owner is called: a server compares it with what we say that we are.
    pub uri: String,
    /// Does not print, and is wiped from memory when dropped.
    pub key: PrivateKey,
}

impl Own {
    /// Reads both files, and sees whether they go together and hold now.
    pub(super) fn load(cert_file: &Path, key_file: &Path, now: SystemTime) -> Result<Self, Unusable> {
        let shown = |path: &Path| path.display().to_string();
        let der = certificate_file(cert_file)?;
        let parsed = parsed(&der).map_err(|error| error.of(&shown(cert_file)))?;
        let public = public_key(&parsed).map_err(|error| error.of(&shown(cert_file)))?;
        valid(&parsed, now)
            .map_err(|cause| Unusable::new(cause, MAKE_ONE))
            .map_err(|error| error.of(&shown(cert_file)))?;
        let names = parsed.tbs_certificate.get::<SubjectAltName>();
        let names = names.ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
        let uri = names.into_iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        });
        let uri = uri.ok_or_else(|| {
            let cause = "there is no URI among its alternative names, and servers want one";
            Unusable::new(cause, MAKE_ONE).of(&shown(cert_file))
        })?;
        let key = private_key(key_file)?;
        if key.as_public_key() != &public {
            let cause = format!("{} is not the key to {}", shown(key_file), shown(cert_file));
            return Err(Unusable::new(cause, "name the two files that were made together"));
        }
        Ok(Self {
            certificate: der,
            uri,
            key,
        })
    }
}

/// What helps when our own certificate does not.
const MAKE_ONE: &str = "make a new certificate, as the reference of this source says, and let the server trust it";

/// The server's certificate, and the key in it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// As DER.
    pub certificate: Vec<u8>,
    pub key: PublicKey,
}

impl Known {
    /// Reads what a server has shown: its certificate, perhaps with those who signed it behind. Taken only if it is the one
    /// to trust, and holds now.
    pub(super) fn met(shown: &[u8], trust: &Trust, now: SystemTime) -> Result<Self, Unusable> {
        let remedy = "look at the server's certificate: does it still have the one it was given?";
        let der = first(shown).map_err(|cause| Unusable::new(format!("the server's certificate: {cause}"), remedy))?;
        trust.accepts(der)?;
        let of = |error: Unusable| error.of("the server's certificate");
        let parsed = parsed(der).map_err(of)?;
        let renew = "renew it at the server, and write the new one down here; or set the clock of this machine";
        valid(&parsed, now).map_err(|cause| of(Unusable::new(cause, renew)))?;
        Ok(Self {
            key: public_key(&parsed).map_err(of)?,
            certificate: der.to_vec(),
        })
    }
}

/// Which certificate of a server is the right one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// SHA-256 of each that was written down.
    pub fingerprints: Vec<[u8; FINGERPRINT_BYTES]>,
}

impl Trust {
    /// Trusts the certificate in a file.
    pub(super) fn load(&mut self, server_cert_file: &Path) -> Result<(), Unusable> {
        let der = certificate_file(server_cert_file)?;
        self.fingerprints.push(Sha256::digest(&der).into());
        Ok(())
    }

    fn accepts(&self, der: &[u8]) -> Result<(), Unusable> {
        let met: [u8; FINGERPRINT_BYTES] = Sha256::digest(der).into();
        if !self.fingerprints.is_empty() && self.fingerprints.iter().all(|known| *known == met) {
            return Ok(());
        }
        let met = shown(&met);
        let (cause, remedy) = match self.fingerprints.first() {
            None => (
                format!("the server shows a certificate that nothing was said about; its SHA-256 is {met}"),
                format!(
                    "compare it at the server, and if it is its own, write server_fingerprint = \"{met}\" into security"
                ),
            ),
            Some(known) => (
                format!(
                    "the server shows another certificate (SHA-256 {met}) than the one to trust ({})",
                    shown(known)
                ),
                format!(
                    "if it was given a new one, compare it there and write server_fingerprint = \"{met}\" into security; if \
                     not, somebody else answers in its place"
                ),
            ),
        };
        Err(Unusable::new(cause, remedy))
    }
}

/// Reads a fingerprint as people write it: hexadecimal, in pairs or not.
pub(super) fn fingerprint(text: &str) -> Option<[u8; FINGERPRINT_BYTES]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|char| !matches!(char, ':' | ' ' | '-'))
        .map(|char| char.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8))
        .collect();
    (digits.len() == 2 * FINGERPRINT_BYTES).then(|| bytes.try_into().ok())?
}

fn shown(fingerprint: &[u8]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file, as it is.
fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let failed = |error: std::io::Error| {
        let remedy = "put a PEM or DER file there that the daemon may read, or correct the path in security";
        Unusable::new(format!("{}: {error}", path.display()), remedy)
    };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(std::io::Error::other(
            "it is too large for a certificate or a key",
        )));
    }
    fs::read(path).map(Zeroizing::new).map_err(failed)
}

/// The first certificate in a file, as DER.
fn certificate_file(path: &Path) -> Result<Vec<u8>, Unusable> {
    let bytes = file(path)?;
    let der = match is_pem(&bytes) {
        true => CertificateDer::from_pem_slice(&bytes)
            .map(|der| der.to_vec())
            .map_err(|error| error.to_string()),
        false => first(&bytes).map(<[u8]>::to_vec),
    };
    der.map_err(|cause| {
        let remedy = "name a file with a certificate in it, as PEM or DER";
        Unusable::new(format!("{}: {cause}", path.display()), remedy)
    })
}

fn private_key(path: &Path) -> Result<PrivateKey, Unusable> {
    let bytes = file(path)?;
    let unusable = |cause: &str| {
        let remedy = "name a file with a private key of RSA in it, without a password, as PEM or DER";
        Unusable::new(format!("{}: {cause}", path.display()), remedy)
    };
    let mut der = match is_pem(&bytes) {
        true => PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| unusable(&error.to_string()))?,
        false => PrivateKeyDer::try_from(bytes.to_vec()).map_err(unusable)?,
    };
    let key = match &der {
        PrivateKeyDer::Pkcs8(der) => PrivateKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(der) => PrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).ok(),
        _ => None,
    };
    der.zeroize();
    key.ok_or_else(|| unusable("it is no key of RSA"))
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(PEM_BEGINS.len()).any(|part| part == PEM_BEGINS)
}

/// The first of several that stand one behind the other.
fn first(bytes: &[u8]) -> Result<&[u8], String> {
    let wrong = |_| "it is none".to_string();
    let mut reader = SliceReader::new(bytes).map_err(wrong)?;
    reader.tlv_bytes().map_err(wrong)
}

fn parsed(der: &[u8]) -> Result<Certificate, Unusable> {
    let remedy = "name a file with a certificate (X.509) in it";
    Certificate::from_der(der).map_err(|error| Unusable::new(format!("it cannot be read: {error}"), remedy))
}

fn public_key(certificate: &Certificate) -> Result<PublicKey, Unusable> {
    let remedy = "use a certificate with a key of RSA of 2048 to 4096 bits";
    let der = certificate.tbs_certificate.subject_public_key_info.to_der();
    let key = der.ok().and_then(|der| PublicKey::from_public_key_der(&der).ok());
    let key = key.ok_or_else(|| Unusable::new("its key is none of RSA", remedy))?;
    match KEY_BYTES.contains(&key.size()) {
        true => Ok(key),
        false => Err(Unusable::new(format!("its key has {} bits", key.size() * 8), remedy)),
    }
}

/// Whether it holds now.
fn valid(certificate: &Certificate, now: SystemTime) -> Result<(), String> {
    let validity = &certificate.tbs_certificate.validity;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if now > validity.not_after.to_unix_duration() {
        return Err(format!("it ended on {}", validity.not_after));
    }
    if now < validity.not_before.to_unix_duration() {
        return Err(format!("it begins on {} only", validity.not_before));
    }
    Ok(())
}
