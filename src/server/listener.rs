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

/// Connections that the kernel keeps for us until we accept them; a burst after a pause needs some hundreds.
const BACKLOG: u32 = 1024;

/// The most connections that are accepted from a queue before it is closed: all of it, and those that arrive meanwhile. Clients that
/// connect faster than they are accepted must not keep a process from ending.
const MAX_QUEUED_CONNECTIONS: usize = 2 * BACKLOG as usize;

/// How many bytes of a response the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`). With this limit, room for more depends on
/// the bytes that the client's kernel has taken, and not on whole buffers that it has acknowledged (`DownstreamIo::limit_stall`). With
/// 128 KiB, bulk transfers cost some per cent more CPU time; with this, they cost no more than without a limit.
const MAX_UNSENT_BYTES: u32 = 1024 * 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}{hint}", hint = hint(.address, .source))]
pub struct BindError {
    key: &'static str,
    address: Address,
    source: io::Error,
}

impl BindError {
    /// Whether the configuration does not fit this machine, so that trying again is of no use. False when another process has the
    /// address, or the process has no resources left.
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
        (Address::Tcp(_), AddrInUse) => ", another process has this port: stop it, or choose another port",
        (Address::Tcp(_), PermissionDenied) => ", ports below 1024 need a privilege: choose another port",
        (Address::Tcp(_), AddrNotAvailable) => ", this machine does not have that address",
        (Address::Unix(_), AddrInUse) => ", another process listens there: stop it, or choose another path",
        (Address::Unix(_), AlreadyExists) => ", there is a file that is no socket: choose another path",
        (Address::Unix(_), NotFound) => ", the directory does not exist",
        (Address::Unix(_), NotADirectory) => ", a part of the path is not a directory",
        (Address::Unix(_), PermissionDenied) => ", the proxy's user cannot make a file there",
        (Address::Unix(_), ReadOnlyFilesystem) => ", the file system is read-only: choose a path on a writable one",
        (Address::Unix(_), InvalidInput) => {
            ", the path is longer than the system allows, about 100 bytes: choose a shorter one"
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

/// Listens on every one of `addresses`, which the configuration key `key` named; `access` says who may use those that are Unix
/// sockets. `[::]` takes IPv4 as well. On a machine without IPv6, with a warning, `[::1]` is left out as long as another address
/// remains, and `0.0.0.0` takes the place of `[::]`.
///
/// # Errors
///
/// The first address that cannot be bound.
pub fn bind(key: &'static str, addresses: &[Address], access: &SocketAccess) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let bound = match address {
            Address::Tcp(tcp) => listen(*tcp)
                .or_else(|error| match address.ipv4_fallback() {
                    Some(fallback) if has_no_ipv6(&error) => {
                        warn!(key, %address, %fallback, "this machine has no IPv6; the address of IPv4 takes its place");
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
                warn!(key, %address, "this machine has no IPv6; the address is left out");
            }
            Err(source) => return Err(BindError { key, address: address.clone(), source }),
        }
    }
    Ok(listeners)
}

/// What keeps `addresses` from being listened on as [`bind`] does it, one error for each. Nothing listens and no file is made; a
/// TCP address is bound for a moment, in a way that keeps no other process from it.
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
    // For a restart while connections of the previous process linger; it does not let two processes share the port.
    socket.set_reuseaddr(true)?;
    // Some systems are set up so that `[::]` alone would keep IPv4 callers out (net.ipv6.bindv6only).
    if address.is_ipv6() && address.ip().is_unspecified() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // The connections inherit it. Some kernels that are not Linux do not have it.
    if let Err(error) = SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
        debug!(%error, "very slow readers may be taken for stopped ones");
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

    /// The address, with the real port where 0 was asked for.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
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
    /// Those of a single connection, and those of the process.
    pub(super) async fn accept(&self) -> io::Result<SocketStream> {
        match &self.0 {
            ListenerKind::Tcp(listener) => listener.accept().await.map(|(stream, _)| SocketStream::Tcp(stream)),
            ListenerKind::Unix(socket) => {
                socket.listener().accept().await.map(|(stream, _)| SocketStream::Unix(stream))
            }
        }
    }

    /// Makes the kernel drop new connections over TCP. Returns whether handshakes that have begun are to be waited for: connections to a
    /// Unix socket are in its queue at once.
    pub(super) fn drop_new_connections(&self) -> bool {
        match &self.0 {
            ListenerKind::Tcp(listener) => {
                let filtered = syn_filter::drop_new_syns(listener);
                if let Err(error) = &filtered {
                    debug!(%error, "a connection that is made in the very last moment may be lost");
                }
                filtered.is_ok()
            }
            ListenerKind::Unix(_) => false,
        }
    }

    /// Stops listening. Returns the connections in the kernel's queue whose users may connect, and the error after which there may be
    /// more: left in the queue, they would be reset, with the requests that are on them.
    pub(super) fn close(self) -> (Vec<SocketStream>, Option<io::Error>) {
        let mut queued = Vec::new();
        let error = self.accept_queued(&mut queued).err();
        (queued, error)
    }

    /// Asks the kernel and not the reactor, which may not have heard of the latest connections.
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

    /// Whether the user at the other end of `stream` may connect here.
    pub(super) fn admits(&self, stream: &SocketStream) -> bool {
        match &self.0 {
            ListenerKind::Tcp(_) => true,
            ListenerKind::Unix(socket) => socket.uid_policy().admits(stream.peer_uid()),
        }
    }
}

/// Adds what `accept` accepts to `queued`, until nothing more waits.
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

/// Whether accepting failed for one connection alone, so that the next one can be accepted.
pub(super) fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
