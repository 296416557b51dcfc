//! Binding addresses.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tracing::{debug, warn};

use super::{
    Address,
    socket_stream::SocketStream,
    syn_filter,
    unix_socket::{Socket, SocketAccess},
};

/// Connections that the kernel keeps for us until we accept them; a burst after a pause needs some hundreds.
const BACKLOG: u32 = 1024;

/// The most connections that are taken from a queue before it is closed: all of it, and those that come meanwhile. Callers that
/// connect faster than they are accepted must not keep a process from ending.
const LAST_CONNECTIONS: usize = 2 * BACKLOG as usize;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}{hint}", hint = hint(.address, .source))]
pub struct BindError {
    key: &'static str,
    address: Address,
    source: io::Error,
}

fn hint(address: &Address, error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (Address::Tcp(_), AddrInUse) => ", another process has this port: stop it, or choose another port",
        (Address::Tcp(_), PermissionDenied) => ", ports below 1024 need a privilege: choose another port",
        (Address::Tcp(_), AddrNotAvailable) => ", this machine does not have that address",
        (Address::Unix(_), AddrInUse) => ", another process listens there: stop it, or choose another path",
        (Address::Unix(_), AlreadyExists) => ", there is a file that is no socket: choose another path",
        (Address::Unix(_), NotFound) => ", the directory does not exist",
        (Address::Unix(_), PermissionDenied) => ", the proxy's user cannot make a file there",
        _ => "",
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(Socket),
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
                .or_else(|error| match address.without_ipv6() {
                    Some(instead) if has_no_ipv6(&error) => {
                        warn!(key, %address, %instead, "this machine has no IPv6; the address of IPv4 takes its place");
                        listen(instead)
                    }
                    _ => Err(error),
                })
                .map(Kind::Tcp),
            Address::Unix(path) => Socket::bind(path, access.clone()).map(Kind::Unix),
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // For a restart while connections of the previous process linger; it does not let two processes share the port.
    socket.set_reuseaddr(true)?;
    // Some systems are set up so that `[::]` alone would keep IPv4 callers out (net.ipv6.bindv6only).
    if address.is_ipv6() && address.ip().is_unspecified() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_ipv6_loopback(address: &Address) -> bool {
    address.tcp().is_some_and(|address| address.is_ipv6() && address.ip().is_loopback())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

impl Listener {
    /// On a Unix socket.
    #[cfg(test)]
    pub(super) fn on_socket(socket: Socket) -> Self {
        Self(Kind::Unix(socket))
    }

    /// The address, with the real port where 0 was asked for.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::Unix(socket) => Ok(Address::Unix(socket.path().to_owned())),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// Those of a single connection, and those of the process.
    pub(super) async fn accept(&self) -> io::Result<SocketStream> {
        match &self.0 {
            Kind::Tcp(listener) => listener.accept().await.map(|(stream, _)| SocketStream::Tcp(stream)),
            Kind::Unix(socket) => socket.listener().accept().await.map(|(stream, _)| SocketStream::Unix(stream)),
        }
    }

    /// Has the kernel take no new connections over TCP. Returns whether those that are being made are to be waited for: callers of a
    /// Unix socket are in its queue at once, and it does not end before that is empty.
    pub(super) fn drop_new(&self) -> bool {
        match &self.0 {
            Kind::Tcp(listener) => {
                let dropping = syn_filter::drop_new(listener);
                if let Err(error) = &dropping {
                    debug!(%error, "a connection that is made in the very last moment may be lost");
                }
                dropping.is_ok()
            }
            Kind::Unix(_) => false,
        }
    }

    /// Stops listening. Returns the connections of users who may connect that the kernel had taken for us already, and why they are
    /// perhaps not all: left in its queue, they would be reset, with the requests that are on them.
    pub(super) fn close(self) -> (Vec<SocketStream>, Option<io::Error>) {
        let mut waiting = Vec::new();
        let error = self.accept_waiting(&mut waiting).err();
        (waiting, error)
    }

    /// Asks the kernel and not the reactor, which may not have heard of the latest connections.
    fn accept_waiting(self, waiting: &mut Vec<SocketStream>) -> io::Result<()> {
        match self.0 {
            Kind::Tcp(listener) => {
                let listener = listener.into_std()?;
                take_waiting(waiting, || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    TcpStream::from_std(stream).map(SocketStream::Tcp).map(Some)
                })
            }
            Kind::Unix(socket) => {
                let (listener, admission) = socket.into_parts();
                let listener = listener.into_std()?;
                take_waiting(waiting, || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    let stream = UnixStream::from_std(stream).map(SocketStream::Unix)?;
                    Ok(admission.admits(stream.peer_uid()).then_some(stream))
                })
            }
        }
    }

    /// Whether the user at the other end of `stream` may connect here.
    pub(super) fn admits(&self, stream: &SocketStream) -> bool {
        match &self.0 {
            Kind::Tcp(_) => true,
            Kind::Unix(socket) => socket.admission().admits(stream.peer_uid()),
        }
    }
}

/// Adds what `accept` accepts to `waiting`, until nothing more waits.
fn take_waiting(
    waiting: &mut Vec<SocketStream>,
    mut accept: impl FnMut() -> io::Result<Option<SocketStream>>,
) -> io::Result<()> {
    for _ in 0..LAST_CONNECTIONS {
        match accept() {
            Ok(stream) => waiting.extend(stream),
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
