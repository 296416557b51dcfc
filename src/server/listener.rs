//! Binding addresses and accepting from them.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tracing::{error, warn};

/// Connections that the kernel keeps for us until we accept them; a burst after a pause needs some hundreds.
const BACKLOG: u32 = 1024;

/// How long accepting pauses when the process has no file descriptor left. Trying at once would spin.
const PAUSE: Duration = Duration::from_secs(1);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}{hint}", hint = hint(.source))]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ", another process has this port: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => ", ports below 1024 need a privilege: choose another port",
        io::ErrorKind::AddrNotAvailable => ", this machine does not have that address",
        _ => "",
    }
}

/// Listens on every one of `addresses`, which the configuration key `key` named. `[::1]` is left out, with a warning, on a
/// machine without IPv6, as long as another address remains.
///
/// # Errors
///
/// The first address that cannot be bound.
pub fn bind(key: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error)
                if address.is_ipv6() && addresses.len() > 1 && address.ip().is_loopback() && has_no_ipv6(&error) =>
            {
                warn!(key, %address, "this machine has no IPv6; the address is left out");
            }
            Err(source) => return Err(BindError { key, address, source }),
        }
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // For a restart while connections of the previous process linger; it does not let two processes share the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// The next connection. Errors of a single connection are skipped; when descriptors run out, accepting pauses.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                error!(%error, pause_s = PAUSE.as_secs(), "cannot accept connections: raise the limit of open files");
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
