//! Looks up a TCP socket of this machine by its addresses (`sock_diag(7)`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, recv, send, socket_with,
};

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The lengths of `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// The attribute with the directions that a socket has shut down: [`RCV_SHUTDOWN`] and a bit for sending.
const INET_DIAG_SHUTDOWN: u8 = 8;
const RCV_SHUTDOWN: u8 = 1;

/// `TCP_FIN_WAIT1` and `TCP_FIN_WAIT2`: the socket has sent a FIN and received none.
const FIN_WAIT: [u8; 2] = [4, 5];

/// Whether the TCP socket at `local`, connected to `remote`, has shut down only its sending direction.
///
/// # Errors
///
/// If no such socket is in this network namespace, or the kernel cannot be asked.
pub(super) fn reads(local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG))?;
    send(&netlink, &request(local, remote), SendFlags::empty())?;
    // The response is available when `send` returns.
    let mut response = [0; 512];
    let (_, length) = recv(&netlink, &mut response, RecvFlags::empty())?;
    parse(&response[..length.min(512)])
}

/// Encodes a request for the socket at `local` connected to `remote`, as in `linux/netlink.h` and `linux/inet_diag.h`.
fn request(local: SocketAddr, remote: SocketAddr) -> [u8; HEADER + REQUEST] {
    // The kernel lists an IPv4 connection as IPv4 even if the proxy's socket is IPv6.
    let ips = [local, remote].map(|address| address.ip().to_canonical());
    let is_v4 = ips.iter().all(IpAddr::is_ipv4);
    let family = if is_v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let interface = match local {
        SocketAddr::V6(local) if !is_v4 => local.scope_id(),
        _ => 0,
    };
    let mut request = [0; HEADER + REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &u32::try_from(HEADER + REQUEST).unwrap_or_default().to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(HEADER, &[family.as_raw().try_into().unwrap_or_default(), IPPROTO_TCP, 1 << (INET_DIAG_SHUTDOWN - 1), 0]);
    // In any state.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &local.port().to_be_bytes());
    put(HEADER + 10, &remote.port().to_be_bytes());
    for (at, ip) in [HEADER + 12, HEADER + 28].into_iter().zip(ips) {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    put(HEADER + 44, &interface.to_ne_bytes());
    // With any cookie.
    put(HEADER + 48, &[u8::MAX; 8]);
    request
}

/// Whether the socket in `response` has shut down only its sending direction. A socket that no process holds has no inode.
fn parse(response: &[u8]) -> io::Result<bool> {
    let u16_at = |at: usize| response.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if u16_at(4) != Some(SOCK_DIAG_BY_FAMILY) {
        // An error response has the negated errno after the header.
        let errno = response.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(errno.and_then(i32::checked_neg).unwrap_or_default()));
    }
    let after_header = response.get(HEADER..).unwrap_or_default();
    let Some((message, mut attributes)) = after_header.split_at_checked(MESSAGE) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let has_inode = message[MESSAGE - 4..] != [0; 4];
    let mut shut_down = 0;
    while let [len_0, len_1, kind_0, kind_1, value @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*len_0, *len_1]));
        if u16::from_ne_bytes([*kind_0, *kind_1]) == u16::from(INET_DIAG_SHUTDOWN) {
            shut_down = value.first().copied().unwrap_or_default();
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Ok(has_inode && FIN_WAIT.contains(&message[1]) && shut_down & RCV_SHUTDOWN == 0)
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use rustix::io::Errno;

    use super::*;

    fn connect(address: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(address).ok()?;
        let client = TcpStream::connect(listener.local_addr().ok()?).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    #[test]
    fn a_half_closed_socket_reads_and_a_closed_one_does_not() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let Some((client, server)) = connect(address) else { continue };
            let (local, remote) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
            assert!(!reads(local, remote).unwrap(), "{address}: open");
            client.shutdown(Shutdown::Write).unwrap();
            assert!(reads(local, remote).unwrap(), "{address}: half-closed");
            drop(client);
            assert!(!reads(local, remote).unwrap_or(false), "{address}: closed");
        }
    }

    #[test]
    fn a_socket_shut_down_in_both_directions_does_not_read() {
        let (client, server) = connect("127.0.0.1:0").unwrap();
        client.shutdown(Shutdown::Both).unwrap();
        assert!(!reads(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap());
    }

    #[test]
    fn a_socket_of_another_machine_is_not_found() {
        let [local, remote] = ["192.0.2.1:1", "192.0.2.2:2"].map(|address| address.parse().unwrap());
        let error = reads(local, remote).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOENT));
    }

    #[test]
    fn truncated_responses_are_errors() {
        let mut response = [0; HEADER + MESSAGE - 1];
        response[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for length in 0..response.len() {
            assert!(parse(&response[..length]).is_err(), "{length}");
        }
    }
}
