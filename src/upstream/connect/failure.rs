//! Counts the step at which opening a connection failed.

use super::ConnectError;
use crate::{
    telemetry::{ConnectFailure, Metrics},
    tls::TlsFailure,
};

/// Counts a connection that could not be opened.
pub(in crate::upstream) fn count_failure(metrics: &Metrics, error: &ConnectError) {
    let failure = match error {
        ConnectError::Resolve(_) => ConnectFailure::Dns,
        ConnectError::Tcp(_) => ConnectFailure::Tcp,
        ConnectError::Egress(_) => ConnectFailure::Egress,
        ConnectError::Tls(_) => ConnectFailure::Tls,
        ConnectError::Http(_) => ConnectFailure::Http,
        ConnectError::TimedOut => ConnectFailure::Timeout,
    };
    metrics.upstream().connect_failed(failure, TlsFailure::find(error));
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::dns::ResolveError;

    #[test]
    fn connect_failures_are_counted_by_reason() {
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let metrics = Metrics::new();
        for error in [
            ConnectError::Tcp(Box::new(broken())),
            ConnectError::Resolve(ResolveError::TimedOut),
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
