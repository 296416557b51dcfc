//! Notifies a service manager by the protocol of `sd_notify(3)`: a datagram to the socket in `NOTIFY_SOCKET`.
//!
//! Does not use the `sd-notify` crate, which reads the variable itself: `demo` and `sandbox` must ignore the environment.

use std::{
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
};

use tracing::warn;

/// The variable that names the socket.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The service manager that started this process, if any.
#[derive(Debug, Default)]
pub struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// Uses the socket `address`: an absolute path, or `@` and an abstract name. If the socket is unusable, this is logged and nothing is
    /// sent.
    pub fn new(address: Option<&str>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Self::default() };
        let connected = socket_address(address).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // A service manager that does not read must not block the process.
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        if let Err(error) = &connected {
            warn!(%error, "cannot notify the service manager: {NOTIFY_SOCKET} is not a usable socket");
        }
        Self(connected.ok())
    }

    /// Sends assignments such as `READY=1`, one per line. Logs failures.
    pub fn notify(&self, state: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            warn!(%error, "cannot notify the service manager");
        }
    }
}

fn socket_address(address: &str) -> io::Result<SocketAddr> {
    match address.strip_prefix('@') {
        Some(name) => abstract_address(name),
        None if address.starts_with('/') => SocketAddr::from_pathname(address),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

/// Only Linux has abstract socket names.
#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_and_abstract_names_are_sockets() {
        for good in ["/run/systemd/notify", "@name"] {
            assert!(ServiceManager::new(Some(good)).0.is_some(), "{good}");
        }
        for bad in ["run/notify", "vsock:2:1", "/run/\0"] {
            assert!(ServiceManager::new(Some(bad)).0.is_none(), "{bad}");
        }
        assert!(ServiceManager::new(Some("")).0.is_none() && ServiceManager::new(None).0.is_none());
    }

    #[test]
    fn an_absent_or_stalled_manager_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = ServiceManager::new(path.to_str());
        manager.notify("READY=1");
        let socket = UnixDatagram::bind(&path).unwrap();
        // More than fits into the socket's queue.
        for _ in 0..5000 {
            manager.notify("STATUS=x");
        }
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"STATUS=x");
    }
}
