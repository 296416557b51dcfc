//! The transport of a connection, and its peer as identified by the operating system.

use std::{fmt, net::SocketAddr};

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP port, which every program on the machine can reach, including browsers.
    Tcp,
    /// A Unix socket, which file permissions protect.
    Unix,
}

/// The client of a connection, as identified by the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client, by its address.
    Tcp(Option<SocketAddr>),
    /// A client of a Unix socket, by its UID.
    Unix(Option<u32>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Some(address)) => address.fmt(f),
            Self::Unix(Some(uid)) => write!(f, "uid {uid}"),
            Self::Tcp(None) | Self::Unix(None) => f.write_str("unknown"),
        }
    }
}

/// A value for each [`Transport`].
#[derive(Clone, Copy, Debug)]
pub struct PerTransport<T> {
    /// For TCP ports.
    pub tcp: T,
    /// For Unix sockets.
    pub unix: T,
}

impl<T> PerTransport<T> {
    /// The values that `make` returns for each transport.
    pub fn new(make: impl Fn(Transport) -> T) -> Self {
        Self { tcp: make(Transport::Tcp), unix: make(Transport::Unix) }
    }

    /// The value for `transport`.
    pub fn get(&self, transport: Transport) -> &T {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Unix => &self.unix,
        }
    }
}
