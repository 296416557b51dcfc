//! Reloads of credentials and CAs.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::{factory::MetricFactory, unix_time};

labels! {
    /// Something that is reloaded at runtime.
    pub enum ReloadTarget {
        /// The vendor's credentials.
        Credentials = "credentials",
        /// The CAs of `upstream.ca_file`.
        CaFile = "ca_file",
    }
}

/// The metrics of all targets.
#[derive(Debug)]
pub(super) struct ReloadMetrics {
    targets: [TargetMetrics; ReloadTarget::ALL.len()],
    credentials_changed: Gauge,
    store_errors: IntCounterVec,
}

/// The metrics of one target.
#[derive(Debug)]
struct TargetMetrics {
    succeeded: IntCounter,
    failed: IntCounter,
    /// 1 while the last reload succeeded.
    last_succeeded: IntGauge,
    last_success_time: Gauge,
}

impl ReloadMetrics {
    /// All targets start as successfully loaded, because otherwise the process would not have started.
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let reloads = factory.counter_vec(
            "reloads_total",
            "Reloads at runtime, by subject and outcome.",
            &["subject", "outcome"],
        );
        let last_succeeded = factory.gauge_vec(
            "reload_last_successful",
            "1 if the last reload succeeded, or there was none yet.",
            &["subject"],
        );
        let last_success_time = factory.float_gauge_vec(
            "reload_last_success_timestamp_seconds",
            "Time of the last successful reload or initial load, in seconds since the Unix epoch.",
            &["subject"],
        );
        let targets = ReloadTarget::ALL.map(|target| {
            let target = target.as_str();
            let metrics = TargetMetrics {
                succeeded: reloads.with_label_values(&[target, "success"]),
                failed: reloads.with_label_values(&[target, "failure"]),
                last_succeeded: last_succeeded.with_label_values(&[target]),
                last_success_time: last_success_time.with_label_values(&[target]),
            };
            metrics.last_succeeded.set(1);
            metrics.last_success_time.set(unix_time());
            metrics
        });
        let metrics = Self {
            targets,
            credentials_changed: factory.float_gauge(
                "credentials_changed_timestamp_seconds",
                "Time of the last change of the credentials in use, in seconds since the Unix epoch.",
            ),
            store_errors: factory.counter_vec(
                "credentials_store_errors_total",
                "Failed reads and polls of the secret store, by kind of fault.",
                &["fault"],
            ),
        };
        metrics.credentials_changed();
        metrics
    }

    /// Records a reload of `target` and its outcome.
    pub(super) fn reloaded(&self, target: ReloadTarget, succeeded: bool) {
        let metrics = &self.targets[target as usize];
        metrics.last_succeeded.set(succeeded.into());
        if succeeded {
            metrics.succeeded.inc();
            metrics.last_success_time.set(unix_time());
        } else {
            metrics.failed.inc();
        }
    }

    /// Shows `fault` at zero, for a source that is a secret store.
    pub(super) fn init_store_error(&self, fault: &str) {
        self.store_errors.with_label_values(&[fault]);
    }

    /// Counts a failure of the secret store.
    pub(super) fn store_failed(&self, fault: &str) {
        self.store_errors.with_label_values(&[fault]).inc();
    }

    /// Records that the credentials in use have changed now.
    pub(super) fn credentials_changed(&self) {
        self.credentials_changed.set(unix_time());
    }
}
