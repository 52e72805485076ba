//! On which road a request came: from which address, and whether with TLS. Behind a proxy each request comes from the proxy, which says
//! whose it is; anybody can say so, and only the proxies that the settings name are believed. Pure.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header::HeaderName};

/// From where to where, one address for each proxy, the nearest last.
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, the nearest last.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Most proxies one behind the other; what stands further ahead is not looked at.
const PROXIES_MAX: usize = 8;

/// How a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Road {
    /// An address of the network; with a port where there is no proxy.
    pub(super) from: String,
    /// With TLS, as far as we know.
    pub(super) is_secure: bool,
}

/// All roads there are.
#[derive(Debug)]
pub(super) struct Roads {
    proxies: Vec<IpAddr>,
    has_tls: bool,
}

impl Roads {
    /// `has_tls`: we speak it ourselves. `proxies`: who is believed.
    pub(super) fn new(has_tls: bool, proxies: &[IpAddr]) -> Self {
        let proxies = proxies.iter().map(IpAddr::to_canonical).collect();
        Self { proxies, has_tls }
    }

    /// Of a request with these headers from `peer`.
    pub(super) fn of(&self, peer: SocketAddr, headers: &HeaderMap) -> Road {
        let is_believed = self.is_proxy(peer.ip());
        let proxied = is_believed.then(|| self.behind(headers)).flatten();
        let said_tls = || {
            last(headers, &PROTO)
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("https"))
        };
        Road {
            from: proxied.map_or_else(|| peer.to_string(), |address| address.to_string()),
            is_secure: self.has_tls || (is_believed && said_tls()),
        }
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.contains(&address.to_canonical())
    }

    /// The nearest address that is no proxy's: what stands before it was written by whoever has that address.
    fn behind(&self, headers: &HeaderMap) -> Option<IpAddr> {
        for entry in last(headers, &FOR).take(PROXIES_MAX) {
            let address = read(entry)?;
            if !self.is_proxy(address) {
                return Some(address);
            }
        }
        None
    }
}

/// What stands in all headers of that name, the last first.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).iter().rev();
    // One that is no text is no address either: it must not be passed over.
    let texts = texts.map(|value| value.to_str().unwrap_or_default());
    texts.flat_map(|text| text.rsplit(',')).map(str::trim)
}

/// An address, whether a proxy writes the port with it or not.
fn read(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse().ok();
    let address = address.or_else(|| entry.parse().ok().map(|with_port: SocketAddr| with_port.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_proxies_that_are_named_are_believed() {
        let proxies = ["127.0.0.1", "10.0.0.1"].map(|text| text.parse().unwrap());
        let of = |peer: &str, said: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in said {
                headers.append(name, value.parse().unwrap());
            }
            Roads::new(false, &proxies).of(peer.parse().unwrap(), &headers)
        };
        for (peer, said, from, is_secure) in [
            ("127.0.0.1:5", &[][..], "127.0.0.1:5", false),
            (
                "127.0.0.1:5",
                &[(FOR, "192.0.2.7"), (PROTO, "https")],
                "192.0.2.7",
                true,
            ),
            // Somebody else says the same.
            (
                "192.0.2.9:5",
                &[(FOR, "192.0.2.7"), (PROTO, "https")],
                "192.0.2.9:5",
                false,
            ),
            // What somebody wrote before the proxy did is not believed.
            (
                "127.0.0.1:5",
                &[(FOR, "1.2.3.4, 192.0.2.7"), (PROTO, "https, http")],
                "192.0.2.7",
                false,
            ),
            (
                "127.0.0.1:5",
                &[(FOR, "1.2.3.4"), (FOR, "192.0.2.7"), (PROTO, "HTTPS")],
                "192.0.2.7",
                true,
            ),
            // A proxy before the proxy.
            (
                "127.0.0.1:5",
                &[(FOR, "1.2.3.4, 192.0.2.7, 10.0.0.1")],
                "192.0.2.7",
                false,
            ),
            ("[::ffff:127.0.0.1]:5", &[(FOR, "192.0.2.7:99")], "192.0.2.7", false),
            ("127.0.0.1:5", &[(FOR, "[2001:db8::7]:99")], "2001:db8::7", false),
            ("127.0.0.1:5", &[(FOR, "[2001:db8::7]")], "2001:db8::7", false),
            ("127.0.0.1:5", &[(FOR, "2001:db8::7")], "2001:db8::7", false),
            // No address at all: then it is the proxy's.
            ("127.0.0.1:5", &[(FOR, "1.2.3.4, unknown")], "127.0.0.1:5", false),
            ("127.0.0.1:5", &[(FOR, "")], "127.0.0.1:5", false),
            ("127.0.0.1:5", &[(FOR, "10.0.0.1, 127.0.0.1")], "127.0.0.1:5", false),
        ] {
            let from = from.to_string();
            assert_eq!(of(peer, said), Road { from, is_secure }, "{peer} {said:?}");
        }
        let own = Roads::new(true, &[]);
        assert!(own.of("192.0.2.9:5".parse().unwrap(), &HeaderMap::new()).is_secure);
    }
}
