//! Binds the sockets of the process, and warns of exposed ones.

use std::io;

use tracing::warn;

use crate::{
    config::{AdminSocket, Listen},
    error_chain,
    server::{self, Address, BindError, Listener, SocketAccess},
};

/// The bound addresses, with the assigned port in place of port 0.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The addresses of the proxy listener.
    pub proxy: Vec<Address>,
    /// The addresses of the ops listener: probes and metrics.
    pub ops: Vec<Address>,
    /// The addresses of the admin port.
    pub admin: Vec<Address>,
    /// The addresses of the webhook listener.
    pub webhook: Vec<Address>,
}

/// The addresses as text, separated by commas.
pub fn join_addresses(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The bound sockets, by purpose.
pub(super) struct Listeners {
    pub(super) proxy: Vec<Listener>,
    pub(super) ops: Vec<Listener>,
    pub(super) admin_port: Vec<Listener>,
    pub(super) admin_socket: Vec<Listener>,
    pub(super) webhook: Vec<Listener>,
}

impl Listeners {
    /// Binds all configured addresses.
    ///
    /// # Errors
    ///
    /// The error for the first address that cannot be bound. The sockets bound before it are closed.
    pub(super) fn bind(listen: &Listen, admin_socket: Option<AdminSocket>) -> Result<Self, BindError> {
        let owner = SocketAccess::owner_only();
        Ok(Self {
            proxy: server::bind("listen.proxy", &listen.proxy, &listen.access)?,
            ops: server::bind("listen.ops", &listen.ops, &owner)?,
            admin_port: server::bind("listen.admin", &listen.admin, &owner)?,
            admin_socket: bind_admin_socket(admin_socket, &owner)?,
            webhook: server::bind("webhook.listen", &listen.webhook, &owner)?,
        })
    }

    /// The bound addresses.
    ///
    /// # Errors
    ///
    /// Fails when the system cannot return an address.
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let addresses = |of: &[Listener]| of.iter().map(Listener::address).collect::<io::Result<Vec<_>>>();
        Ok(Addresses {
            proxy: addresses(&self.proxy)?,
            ops: addresses(&self.ops)?,
            admin: addresses(&self.admin_port)?,
            webhook: addresses(&self.webhook)?,
        })
    }
}

/// Binds the admin socket, if one is configured. If it is only the default of the container image and cannot be bound, logs a warning
/// and continues without it.
fn bind_admin_socket(socket: Option<AdminSocket>, access: &SocketAccess) -> Result<Vec<Listener>, BindError> {
    let Some(AdminSocket { path, is_optional }) = socket else { return Ok(Vec::new()) };
    match server::bind("admin.socket", &[Address::Unix(path)], access) {
        Err(error) if is_optional => {
            warn!(
                error = error_chain::one_line(&error),
                "no admin socket at the image's default path: `finicity-proxy status` uses the admin port, and `finicity-proxy \
                 lockout reset` and `shutdown` need FINICITY_ADMIN_TOKEN; mount a writable directory, or set admin.socket"
            );
            Ok(Vec::new())
        }
        bound => bound,
    }
}

/// Warns if other machines, or all users of this machine, can use the credentials through a listener.
pub(super) fn warn_of_exposure(listen: &Listen) {
    for address in &listen.proxy {
        if address.is_remote() {
            warn!(%address, "other machines can reach this address and use the credentials through it");
        }
        if address.tcp().is_none() && listen.access.is_open_to_all() {
            warn!(%address, "any user of this machine can use the credentials through it: restrict listen.socket_mode");
        }
    }
}
