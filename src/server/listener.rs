//! Binding addresses.

use std::{io, net::SocketAddr};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tracing::{debug, warn};

use super::{
    Address,
    socket_stream::SocketStream,
    syn_filter,
    unix_socket::{self, SocketAccess, UnixSocket},
};

/// The accept queue's length; a burst after a pause needs some hundreds.
const BACKLOG: u32 = 1024;

/// How many connections are accepted from a queue before it closes: a full queue, and as many that arrive in the meantime. The limit
/// keeps clients that connect faster than they are accepted from blocking the shutdown.
const MAX_QUEUED_CONNECTIONS: usize = 2 * BACKLOG as usize;

/// How many unsent bytes of a response the kernel buffers (`TCP_NOTSENT_LOWAT`). With this limit, the socket becomes writable when the
/// client's kernel has taken bytes, and not only when it has acknowledged whole buffers (`DownstreamIo::limit_stall`). At 128 KiB, bulk
/// transfers cost some per cent more CPU time; at this value, no more than without a limit.
const MAX_UNSENT_BYTES: u32 = 1024 * 1024;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}{hint}", hint = hint(.address, .source))]
pub struct BindError {
    key: &'static str,
    address: Address,
    source: io::Error,
}

impl BindError {
    /// Whether the configuration does not fit this machine, so a retry is pointless. False if another process uses the address or the
    /// process lacks resources.
    pub fn is_configuration(&self) -> bool {
        use io::ErrorKind::{AddrInUse, Interrupted, OutOfMemory};
        let is_exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS]
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&self.source.raw_os_error());
        !is_exhausted && !matches!(self.source.kind(), AddrInUse | Interrupted | OutOfMemory)
    }
}

fn hint(address: &Address, error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        AddrInUse, AddrNotAvailable, AlreadyExists, InvalidInput, NotADirectory, NotFound, PermissionDenied,
        ReadOnlyFilesystem,
    };
    match (address, error.kind()) {
        (Address::Tcp(_), AddrInUse) => ": another process uses this port; stop it, or choose another port",
        (Address::Tcp(_), PermissionDenied) => ": ports below 1024 require a privilege; choose another port",
        (Address::Tcp(_), AddrNotAvailable) => ": this machine does not have that address",
        (Address::Unix(_), AddrInUse) => ": another process listens there; stop it, or choose another path",
        (Address::Unix(_), AlreadyExists) => ": the file there is not a socket; choose another path",
        (Address::Unix(_), NotFound) => ": the directory does not exist",
        (Address::Unix(_), NotADirectory) => ": a part of the path is not a directory",
        (Address::Unix(_), PermissionDenied) => ": the proxy's user cannot create a file there",
        (Address::Unix(_), ReadOnlyFilesystem) => ": the file system is read-only; choose a path on a writable one",
        (Address::Unix(_), InvalidInput) => {
            ": the path exceeds the system's limit of about 100 bytes; choose a shorter one"
        }
        _ => "",
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// Listens on all `addresses`, the value of the configuration key `key`; `access` applies to Unix sockets. `[::]` includes IPv4. On a
/// machine without IPv6, `0.0.0.0` replaces `[::]`, and `[::1]` is skipped if there are other addresses, each with a warning.
///
/// # Errors
///
/// For the first address that cannot be bound.
pub fn bind(key: &'static str, addresses: &[Address], access: &SocketAccess) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let bound = match address {
            Address::Tcp(tcp) => listen(*tcp)
                .or_else(|error| match address.ipv4_fallback() {
                    Some(fallback) if has_no_ipv6(&error) => {
                        warn!(key, %address, %fallback, "this machine has no IPv6; using the IPv4 address instead");
                        listen(fallback)
                    }
                    _ => Err(error),
                })
                .map(ListenerKind::Tcp),
            Address::Unix(path) => UnixSocket::bind(path, access.clone()).map(ListenerKind::Unix),
        };
        match bound {
            Ok(kind) => listeners.push(Listener(kind)),
            Err(error) if addresses.len() > 1 && is_ipv6_loopback(address) && has_no_ipv6(&error) => {
                warn!(key, %address, "this machine has no IPv6; skipping the address");
            }
            Err(source) => return Err(BindError { key, address: address.clone(), source }),
        }
    }
    Ok(listeners)
}

/// Returns an error for each address that [`bind`] could not listen on. It does not listen and creates no file. It binds each TCP address
/// for a moment, without blocking other processes.
pub fn inspect(key: &'static str, addresses: &[Address]) -> Vec<BindError> {
    let fault = |address: &Address| match address {
        Address::Tcp(tcp) => match bound_socket(*tcp) {
            Err(error) if has_no_ipv6(&error) && is_ipv6_loopback(address) && addresses.len() > 1 => None,
            Err(error) if has_no_ipv6(&error) => match address.ipv4_fallback() {
                Some(fallback) => bound_socket(fallback).err(),
                None => Some(error),
            },
            bound => bound.err(),
        },
        Address::Unix(path) => unix_socket::inspect(path).err(),
    };
    let error = |address: &Address| Some(BindError { key, address: address.clone(), source: fault(address)? });
    addresses.iter().filter_map(error).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bound_socket(address)?.listen(BACKLOG)
}

fn bound_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Allows a restart while connections of the previous process linger; it does not let two processes share the port.
    socket.set_reuseaddr(true)?;
    // With the sysctl net.ipv6.bindv6only, `[::]` would not accept IPv4.
    if address.is_ipv6() && address.ip().is_unspecified() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Inherited by the connections. Not every kernel other than Linux has it.
    if let Err(error) = SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
        debug!(%error, "cannot set TCP_NOTSENT_LOWAT; very slow readers may count as stalled");
    }
    socket.bind(address)?;
    Ok(socket)
}

fn is_ipv6_loopback(address: &Address) -> bool {
    address.tcp().is_some_and(|address| address.is_ipv6() && address.ip().is_loopback())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

impl Listener {
    /// On a Unix socket.
    #[cfg(test)]
    pub(super) fn on_socket(socket: UnixSocket) -> Self {
        Self(ListenerKind::Unix(socket))
    }

    /// The address, with the assigned port if the configured port is 0.
    ///
    /// # Errors
    ///
    /// If the system does not report the address.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            ListenerKind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            ListenerKind::Unix(socket) => Ok(Address::Unix(socket.path().to_owned())),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// Errors of one connection ([`is_per_connection`]) and of the process.
    pub(super) async fn accept(&self) -> io::Result<SocketStream> {
        match &self.0 {
            ListenerKind::Tcp(listener) => listener.accept().await.map(|(stream, _)| SocketStream::Tcp(stream)),
            ListenerKind::Unix(socket) => {
                socket.listener().accept().await.map(|(stream, _)| SocketStream::Unix(stream))
            }
        }
    }

    /// Makes the kernel drop new TCP connections. Returns whether to wait for handshakes that have begun. A Unix socket needs neither: its
    /// connections enter the queue immediately.
    pub(super) fn drop_new_connections(&self) -> bool {
        match &self.0 {
            ListenerKind::Tcp(listener) => {
                let filtered = syn_filter::drop_new_syns(listener);
                if let Err(error) = &filtered {
                    debug!(%error, "cannot drop new connections; one that is being established may be lost");
                }
                filtered.is_ok()
            }
            ListenerKind::Unix(_) => false,
        }
    }

    /// Stops listening. Returns the connections in the kernel's queue from permitted UIDs, and the error that ended accepting, if any. A
    /// connection left in the queue is reset, with the requests on it.
    pub(super) fn close(self) -> (Vec<SocketStream>, Option<io::Error>) {
        let mut queued = Vec::new();
        let error = self.accept_queued(&mut queued).err();
        (queued, error)
    }

    /// Accepts from the kernel without the reactor, which may not know of the latest connections.
    fn accept_queued(self, queued: &mut Vec<SocketStream>) -> io::Result<()> {
        match self.0 {
            ListenerKind::Tcp(listener) => {
                let listener = listener.into_std()?;
                collect_queued(queued, || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    TcpStream::from_std(stream).map(SocketStream::Tcp).map(Some)
                })
            }
            ListenerKind::Unix(socket) => {
                let (listener, uid_policy) = socket.into_parts();
                let listener = listener.into_std()?;
                collect_queued(queued, || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    let stream = UnixStream::from_std(stream).map(SocketStream::Unix)?;
                    Ok(uid_policy.admits(stream.peer_uid()).then_some(stream))
                })
            }
        }
    }

    /// Whether the peer of `stream` is permitted to connect.
    pub(super) fn admits(&self, stream: &SocketStream) -> bool {
        match &self.0 {
            ListenerKind::Tcp(_) => true,
            ListenerKind::Unix(socket) => socket.uid_policy().admits(stream.peer_uid()),
        }
    }
}

/// Adds the connections from `accept` to `queued` until the kernel's queue is empty.
fn collect_queued(
    queued: &mut Vec<SocketStream>,
    mut accept: impl FnMut() -> io::Result<Option<SocketStream>>,
) -> io::Result<()> {
    for _ in 0..MAX_QUEUED_CONNECTIONS {
        match accept() {
            Ok(stream) => queued.extend(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_per_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether accepting failed for one connection only, so the next one can be accepted.
pub(super) fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
