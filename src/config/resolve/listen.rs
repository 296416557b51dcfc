//! `[listen]` and `[guard]`: addresses and who may connect, host names and the required header.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, header};

use super::{
    super::{AdminSocket, Listen, reader::Reader},
    webhook,
};
use crate::{
    message::{guard::RequiredHeader, host::Host},
    server::{Address, SocketAccess},
};

/// Header fields that HTTP or the upstream uses. They cannot be the required header, which is removed before forwarding.
const RESERVED_HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::ORIGIN,
    header::TRANSFER_ENCODING,
];

pub(super) fn listen(read: &mut Reader<'_>) -> Listen {
    let allow_remote = read.flag("listen.allow_remote");
    let listen = Listen {
        proxy: read.addresses("listen.proxy", true),
        access: SocketAccess {
            mode: read.parsed("listen.socket_mode", socket_mode).unwrap_or_default(),
            uids: uids(read),
        },
        ops: ops(read),
        admin: admin(read),
        webhook: webhook::listen(read),
    };
    if listen.proxy.iter().any(Address::is_remote) && !allow_remote {
        read.problem(
            "listen.proxy",
            "is not a loopback address: anyone who can reach it can use the credentials; set listen.allow_remote = true to \
             permit this",
        );
    }
    if listen.webhook.iter().any(Address::is_remote) && !allow_remote {
        read.problem(
            "webhook.listen",
            "is not a loopback address: anyone who can reach it can post to it; set listen.allow_remote = true to permit this",
        );
    }
    if listen.admin.iter().any(Address::is_remote) {
        read.problem("listen.admin", "must be a loopback address, such as \"127.0.0.1:3466\"");
    }
    listen
}

/// Adds a problem for each address that overlaps an earlier one, in the order in which they are bound. Ignores an optional admin socket:
/// if it overlaps, the process runs without it.
pub(super) fn check_overlaps(read: &mut Reader<'_>, listen: &Listen, admin_socket: Option<&AdminSocket>) {
    let socket = admin_socket.filter(|socket| !socket.is_optional).map(|socket| Address::Unix(socket.path.clone()));
    let of_each = [
        ("listen.proxy", &listen.proxy),
        ("listen.ops", &listen.ops),
        ("listen.admin", &listen.admin),
        ("webhook.listen", &listen.webhook),
        ("admin.socket", &socket.into_iter().collect()),
    ];
    let addresses =
        of_each.into_iter().flat_map(|(key, addresses)| addresses.iter().map(move |address| (key, address)));
    let addresses: Vec<(&'static str, &Address)> = addresses.collect();
    for (number, (key, address)) in addresses.iter().enumerate() {
        let earlier = addresses[..number].iter().find(|(_, earlier)| earlier.overlaps(address));
        if let Some((other_key, other)) = earlier {
            read.problem(key, format!("{address} is already used by {other} of {other_key}: choose another address"));
        }
    }
}

pub(super) fn ops(read: &mut Reader<'_>) -> Vec<Address> {
    read.addresses("listen.ops", false)
}

pub(super) fn admin(read: &mut Reader<'_>) -> Vec<Address> {
    read.addresses("listen.admin", false)
}

/// The admin socket. It is optional if it is the container image's default.
pub(super) fn admin_socket(read: &mut Reader<'_>) -> Option<AdminSocket> {
    let path = read.optional("admin.socket", |path| Ok(PathBuf::from(path)))?;
    Some(AdminSocket { path, is_optional: read.is_image_default("admin.socket") })
}

/// An octal mode of permission bits only, which permits at least the proxy's own user.
fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| mode & 0o600 == 0o600 && mode & !0o777 == 0)
        .ok_or_else(|| "must be an octal mode from \"0600\" to \"0777\", such as \"0660\"".to_owned())
}

fn uids(read: &mut Reader<'_>) -> Vec<u32> {
    let uids: Option<Vec<u32>> = read.list("listen.socket_uids").iter().map(|uid| uid.parse().ok()).collect();
    uids.unwrap_or_else(|| {
        read.problem("listen.socket_uids", "must be UIDs, such as [1000, 1001]");
        Vec::new()
    })
}

/// The header that clients must send, with a value or any value.
pub(super) fn required_header(read: &mut Reader<'_>) -> Option<RequiredHeader> {
    read.optional("guard.required_header", |text| {
        let (name, value) = text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value.trim())));
        let name = name.parse().ok().filter(|name| !RESERVED_HEADERS.contains(name));
        let value = value.map(HeaderValue::from_str).transpose().ok();
        name.zip(value).map(|(name, value)| RequiredHeader { name, value }).ok_or_else(|| {
            "must be a custom header, such as \"X-Finicity-Proxy\" or \"X-Finicity-Proxy: 1\"; it is not forwarded"
                .to_owned()
        })
    })
}

/// Additional hosts that clients may name.
pub(super) fn host_names(read: &mut Reader<'_>) -> Vec<Host> {
    let hosts: Option<Vec<Host>> = read.list("guard.hosts").iter().map(|host| Host::parse_alone(host)).collect();
    hosts.unwrap_or_else(|| {
        read.problem(
            "guard.hosts",
            "must be host names or addresses without a scheme or a port, such as \"finicity-proxy.payments.svc\" or \
             \"2001:db8::5\"",
        );
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k07_a_socket_mode_is_octal_permission_bits_only() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
            assert_eq!(socket_mode(text), Ok(mode));
        }
        for text in ["", "0", "0060", "1777", "4755", "rw-rw----", "0o660", "+660", "0880", "-1"] {
            assert!(socket_mode(text).is_err(), "{text}");
        }
    }
}
