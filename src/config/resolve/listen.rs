//! `[listen]` and `[guard]`: who can reach the proxy, and under which names.

use std::net::SocketAddr;

use super::super::{Listen, reader::Reader};

/// The addresses.
pub(super) fn listen(read: &mut Reader<'_>) -> Listen {
    let allow_remote = read.flag("listen.allow_remote");
    let listen = Listen {
        proxy: read.addresses("listen.proxy"),
        ops: read.addresses("listen.ops"),
        admin: read.addresses("listen.admin"),
    };
    let is_remote = |addresses: &[SocketAddr]| addresses.iter().any(|address| !address.ip().is_loopback());
    if is_remote(&listen.proxy) && !allow_remote {
        read.problem(
            "listen.proxy",
            "is not a loopback address: whoever can reach it can use the credentials; set listen.allow_remote = true if that \
             is meant",
        );
    }
    if is_remote(&listen.admin) {
        read.problem("listen.admin", "must be a loopback address, such as \"127.0.0.1:3466\"");
    }
    listen
}

/// The host names that callers may use.
pub(super) fn host_names(read: &mut Reader<'_>) -> Vec<String> {
    let hosts = read.list("guard.hosts");
    let legal =
        |host: &String| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !hosts.iter().all(legal) {
        read.problem(
            "guard.hosts",
            "must be host names without a scheme or a port, such as \"finicity-proxy.payments.svc\"",
        );
    }
    hosts
}
