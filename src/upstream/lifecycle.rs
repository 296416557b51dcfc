//! How a connection to the upstream lives and ends, for the metrics.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::connect::{ConnectError, NameError};
use crate::{
    error_chain,
    telemetry::{Closed, ConnectFailure, Metrics},
    tls::Fault,
};

/// Counts a connection as open, and remembers why it is going to end. Costs a request nothing.
#[derive(Debug)]
pub(super) struct Life {
    metrics: Arc<Metrics>,
    reason: OnceLock<Closed>,
}

impl Life {
    /// The life of a connection that took so long to open.
    pub(super) fn begin(metrics: Arc<Metrics>, took: Duration) -> Arc<Self> {
        metrics.upstream().opened(took);
        Arc::new(Self { metrics, reason: OnceLock::new() })
    }

    /// Notes why it ends; the first reason is the one that counts.
    pub(super) fn ends_because(&self, reason: Closed) {
        let _ = self.reason.set(reason);
    }

    /// To be held while an answer is waited for. Should it be dropped before [`Pending::ended`], that ends the connection.
    pub(super) fn pending(self: &Arc<Self>) -> Pending {
        Pending(Some(Arc::clone(self)))
    }
}

/// Counts the end of a connection when it is dropped. It belongs to whatever the connection belongs to.
#[derive(Debug)]
pub(super) struct Open(pub(super) Arc<Life>);

impl Drop for Open {
    fn drop(&mut self) {
        let Life { metrics, reason } = &*self.0;
        metrics.upstream().closed(reason.get().copied().unwrap_or(Closed::Upstream));
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending(Option<Arc<Life>>);

impl Pending {
    /// It waits no more.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.ends_because(Closed::Unfinished);
        }
    }
}

/// Counts a connection that could not be opened.
pub(super) fn count_failure(metrics: &Metrics, error: &ConnectError) {
    let failure = match error {
        ConnectError::Tcp(_) if error_chain::find::<NameError>(error).is_some() => ConnectFailure::Name,
        ConnectError::Tcp(_) => ConnectFailure::Tcp,
        ConnectError::Egress(_) => ConnectFailure::Egress,
        ConnectError::Tls(_) => ConnectFailure::Tls,
        ConnectError::Http(_) => ConnectFailure::Http,
        ConnectError::TimedOut => ConnectFailure::Timeout,
    };
    metrics.upstream().connect_failed(failure, Fault::find(error));
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_connection_that_cannot_be_opened_is_counted_by_what_was_in_the_way() {
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let metrics = Metrics::new();
        for error in [
            ConnectError::Tcp(Box::new(broken())),
            ConnectError::Tcp(Box::new(NameError(broken()))),
            ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidData, expired)),
            ConnectError::Tls(broken()),
            ConnectError::TimedOut,
        ] {
            count_failure(&metrics, &error);
        }
        let text = metrics.render();
        let counted = |name: &str, label: &str, count: u32| {
            let line = format!("finicity_proxy_upstream_{name}_total{{{label}}} {count}");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        };
        for (reason, count) in [("tcp", 1), ("name", 1), ("tls", 2), ("timeout", 1), ("egress", 0), ("http", 0)] {
            counted("connect_failures", &format!(r#"reason="{reason}""#), count);
        }
        for (fault, count) in [("expired", 1), ("other", 1), ("pin", 0)] {
            counted("tls_failures", &format!(r#"fault="{fault}""#), count);
        }
    }
}
