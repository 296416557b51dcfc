//! The client of the upstream: connections, their pool, and HTTP/1.1 and HTTP/2.
//!
//! It has its own pool because a retry depends on what exactly happened to a request, on which connection (`Disposition`), and pooled
//! clients do not expose that. It does not depend on the proxy's layers; the lowest layer, `proxy::forward`, is the only one that
//! uses it.

mod body;
mod body_source;
mod config;
mod connect;
mod counting_io;
mod disposition;
mod early_response;
mod http1;
mod http2;
mod lifecycle;
mod pool;
mod send;
mod stream;

#[cfg(test)]
pub(crate) use self::connect::Protocol;
pub(crate) use self::{
    body::UpstreamBody,
    connect::{Connect, ConnectError, Connector},
    disposition::Disposition,
    http1::Error as Http1Error,
    http2::Error as Http2Error,
    pool::{Checkout, ExclusiveConnection, MultiplexedConnection, Pool, PooledConnection},
    send::{Http1Request, Http2Request, RequestError, UnansweredRequest},
};
pub use self::{config::UpstreamConfig, connect::server_name};
