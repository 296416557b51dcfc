//! Listen addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use crate::secret::absolute;

/// The prefix of a Unix socket address.
const UNIX_PREFIX: &str = "unix:";

/// A TCP address, or the path of a Unix socket. As text: `127.0.0.1:3464`, `[::1]:3464`, `unix:/run/finicity-proxy.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

/// The text is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT or unix:/absolute/path")]
pub struct AddressError;

impl Address {
    /// The address and port, for TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The replacement on a machine without IPv6: `0.0.0.0` for `[::]`.
    pub(super) fn ipv4_fallback(&self) -> Option<SocketAddr> {
        let wildcard = self.tcp().filter(|address| address.is_ipv6() && address.ip().is_unspecified())?;
        Some((Ipv4Addr::UNSPECIFIED, wildcard.port()).into())
    }

    /// Whether one process cannot listen on both: the same socket, or the same port of one IP address. An unspecified address includes all
    /// addresses of its family, and `[::]` those of IPv4 as well. Port 0 never overlaps: it is a different port each time.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => absolute(one) == absolute(other),
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
                let covers = |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
                let same = one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip);
                one.port() != 0 && one.port() == other.port() && same
            }
            _ => false,
        }
    }

    /// Whether other machines may be able to connect.
    pub fn is_remote(&self) -> bool {
        self.tcp().is_some_and(|address| !address.ip().is_loopback())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix(UNIX_PREFIX) {
            Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(AddressError),
            None => text.parse().map(Self::Tcp).map_err(|_| AddressError),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", absolute(path).display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_from_their_display_form_only() {
        for text in ["127.0.0.1:3464", "[::1]:0", "0.0.0.0:80", "unix:/run/p.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "3464", "localhost:3464", "unix:", "unix:p.sock", "unix:/run/", "/run/p.sock", "UNIX:/run/p"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }

    #[test]
    fn q12_only_the_ipv6_wildcard_has_an_ipv4_fallback() {
        for (text, fallback) in [
            ("[::]:3465", Some("0.0.0.0:3465")),
            ("[::1]:1", None),
            ("0.0.0.0:1", None),
            ("[fe80::1]:1", None),
            ("unix:/p", None),
        ] {
            let found = text.parse::<Address>().unwrap().ipv4_fallback().map(|fallback| fallback.to_string());
            assert_eq!(found.as_deref(), fallback, "{text}");
        }
    }

    #[test]
    fn addresses_overlap_when_one_process_cannot_bind_both() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "[::1]:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::1]:1", "127.0.0.1:1", false),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("unix:/run/p", "unix:/run/p", true),
            ("unix:/run/p", "unix:/run//p", true),
            ("unix:/run/p", "unix:/run/q", false),
            ("unix:/run/p", "127.0.0.1:1", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse::<Address>().unwrap());
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn k05_only_loopback_addresses_and_sockets_are_local() {
        let is_remote = |text: &str| text.parse::<Address>().unwrap().is_remote();
        for text in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "unix:/run/p.sock"] {
            assert!(!is_remote(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_remote(text), "{text}");
        }
    }
}
