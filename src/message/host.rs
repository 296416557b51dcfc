//! Hosts, compared by what they mean and not by how they are spelt.
//!
//! Spellings that only some readers take for an address, such as `127.1` or `0x7f000001`, are names here, which no one has.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// A host: the `uri-host` of RFC 9110, 7.2, without spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address. One of IPv4 that is mapped into IPv6 (RFC 4291, 2.5.5.2) is that of IPv4.
    Address(IpAddr),
    /// A name in lower case, without a dot at its end.
    Name(String),
}

/// The same as it stands in a request: the name's letters may be in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRef<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl Host {
    /// Reads a host as it stands in a URL: an IPv6 address has brackets. One dot at the end is left out. `None` when it is no host.
    pub fn parse(text: &str) -> Option<Self> {
        HostRef::parse(text).map(|host| match host {
            HostRef::Address(address) => Self::Address(address),
            HostRef::Name(name) => Self::Name(name.to_ascii_lowercase()),
        })
    }

    /// The same of a host that stands by itself, where an IPv6 address needs no brackets.
    pub fn parse_alone(text: &str) -> Option<Self> {
        let address = text.parse::<Ipv6Addr>().ok();
        address.map(|address| Self::Address(IpAddr::V6(address).to_canonical())).or_else(|| Self::parse(text))
    }
}

/// As in a URL: an IPv6 address has brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl<'a> HostRef<'a> {
    /// Reads a host as [`Host::parse`] does.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let address = bracketed.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // Only an address begins with a digit and parses as one; nearly every name is known by its first letter.
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && let Ok(address) = name.parse()
        {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        is_name(name).then_some(Self::Name(name))
    }

    /// Whether it is the same host as `other`.
    pub(super) fn is(self, other: &Host) -> bool {
        match (self, other) {
            (Self::Address(address), Host::Address(other)) => address == *other,
            (Self::Name(name), Host::Name(other)) => name.eq_ignore_ascii_case(other),
            (Self::Address(_), Host::Name(_)) | (Self::Name(_), Host::Address(_)) => false,
        }
    }

    /// Whether it is this machine by its loopback name or address.
    pub(super) fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Whether `name` is labels with dots between them. An underscore occurs in the names of containers.
fn is_name(name: &str) -> bool {
    let mut is_label = false;
    for byte in name.bytes() {
        is_label = match byte {
            b'.' if is_label => false,
            b'-' | b'_' => true,
            _ if byte.is_ascii_alphanumeric() => true,
            _ => return false,
        };
    }
    is_label
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_host_are_equal() {
        for (spellings, displayed) in [
            (&["api.finicity.com", "API.Finicity.COM", "api.finicity.com."][..], "api.finicity.com"),
            (
                &["127.0.0.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:7f00:0001]"],
                "127.0.0.1",
            ),
            (&["[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"], "[::1]"),
            (&["[2001:db8::5]", "[2001:DB8:0:0::5]"], "[2001:db8::5]"),
            (&["my_app-1"], "my_app-1"),
            (&["127.1"], "127.1"),
        ] {
            for spelling in spellings {
                let host = Host::parse(spelling).unwrap();
                assert_eq!(host.to_string(), displayed, "{spelling}");
                assert!(HostRef::parse(displayed).unwrap().is(&host), "{spelling}");
                assert_eq!(Host::parse_alone(spelling), Some(host), "{spelling}");
            }
        }
        assert_eq!(Host::parse_alone("::ffff:10.0.0.1"), Host::parse("10.0.0.1"));
        assert_eq!(Host::parse_alone("2001:DB8::5"), Host::parse("[2001:db8::5]"));
    }

    #[test]
    fn what_is_no_host_is_none() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "a..",
            ".a",
            "a b",
            "a/b",
            "u@a",
            "a:80",
            "[::1",
            "::1]",
            "[]",
            "[127.0.0.1]",
            "[a]",
            "[::1]x",
            "[::1].",
            "[::1%25lo]",
            "caf\u{e9}",
            "a%2eb",
            "*",
            "[[::1]]",
        ] {
            assert_eq!(Host::parse(text), None, "{text}");
            assert_eq!(Host::parse_alone(text), None, "{text}");
        }
        assert_eq!(Host::parse("::1"), None);
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_the_same_host(text in "(\\[[0-9a-f:.]{2,20}\\]|[0-9a-zA-Z._-]{1,20})") {
            if let Some(host) = Host::parse(&text) {
                let displayed = host.to_string();
                prop_assert_eq!(Host::parse(&displayed), Some(host.clone()));
                prop_assert!(HostRef::parse(&text).unwrap().is(&host));
            }
        }
    }
}
