//! Hosts, compared by meaning instead of spelling.
//!
//! Spellings that only some parsers read as an address, such as `127.1` or `0x7f000001`, are names here. No host has such a name.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// A host: the `uri-host` of RFC 9110, 7.2, in normalized form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address. An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) is stored as IPv4.
    Address(IpAddr),
    /// A name in lower case, without a trailing dot.
    Name(String),
}

/// A borrowed host, as it appears in a request: a name may have upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRef<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl Host {
    /// Parses a host as in a URL: an IPv6 address has brackets. One trailing dot is ignored. `None` when `text` is not a host.
    pub fn parse(text: &str) -> Option<Self> {
        HostRef::parse(text).map(|host| match host {
            HostRef::Address(address) => Self::Address(address),
            HostRef::Name(name) => Self::Name(name.to_ascii_lowercase()),
        })
    }

    /// Parses a host that stands alone: the brackets of an IPv6 address are optional.
    pub fn parse_alone(text: &str) -> Option<Self> {
        let address = text.parse::<Ipv6Addr>().ok();
        address.map(|address| Self::Address(IpAddr::V6(address).to_canonical())).or_else(|| Self::parse(text))
    }
}

/// The form used in a URL: an IPv6 address has brackets.
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
    /// Parses a host like [`Host::parse`].
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let address = bracketed.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // An IPv4 address begins with a digit, so the first byte rules it out for nearly every name.
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

    /// Whether it is `localhost` or a loopback address.
    pub(super) fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Whether `name` consists of labels separated by dots. Underscores are allowed because container names have them.
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
    fn malformed_hosts_are_none() {
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
        fn display_round_trips(text in "(\\[[0-9a-f:.]{2,20}\\]|[0-9a-zA-Z._-]{1,20})") {
            if let Some(host) = Host::parse(&text) {
                let displayed = host.to_string();
                prop_assert_eq!(Host::parse(&displayed), Some(host.clone()));
                prop_assert!(HostRef::parse(&text).unwrap().is(&host));
            }
        }
    }
}
