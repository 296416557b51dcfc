//! The transport of a connection, and its peer as the system identifies it.

use std::{fmt, net::SocketAddr};

/// How a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP port, which every program of the machine can reach, browsers included.
    Tcp,
    /// A Unix socket, which only those can open whom the file system lets.
    Unix,
}

/// Who is at the other end of a connection, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A program of this machine, or another, by its address.
    Port(Option<SocketAddr>),
    /// A user, by number.
    User(Option<u32>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(Some(address)) => address.fmt(f),
            Self::User(Some(uid)) => write!(f, "uid {uid}"),
            Self::Port(None) | Self::User(None) => f.write_str("unknown"),
        }
    }
}

/// Something for each [`Transport`].
#[derive(Clone, Copy, Debug)]
pub struct PerTransport<T> {
    /// For TCP ports.
    pub port: T,
    /// For Unix sockets.
    pub socket: T,
}

impl<T> PerTransport<T> {
    /// What `make` makes for each.
    pub fn new(make: impl Fn(Transport) -> T) -> Self {
        Self { port: make(Transport::Tcp), socket: make(Transport::Unix) }
    }

    /// The one for `door`.
    pub fn get(&self, door: Transport) -> &T {
        match door {
            Transport::Tcp => &self.port,
            Transport::Unix => &self.socket,
        }
    }
}
