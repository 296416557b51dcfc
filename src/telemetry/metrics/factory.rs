//! Creates, registers and lists metrics.

use std::cell::RefCell;

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
    core::{Collector, GenericCounter, GenericGauge},
};

/// Prefix of all metric names, except the standard ones of the process.
const NAMESPACE: &str = "finicity_proxy";

/// A metric family that `/metrics` can show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricFamily {
    /// The full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels, in alphabetical order.
    pub labels: Vec<String>,
}

/// Creates metrics and registers them.
pub(super) struct MetricFactory {
    registry: Registry,
    families: RefCell<Vec<MetricFamily>>,
}

impl MetricFactory {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), families: RefCell::default() }
    }

    /// The registry with all metrics, and the sorted list of their families.
    pub(super) fn finish(self) -> (Registry, Vec<MetricFamily>) {
        let mut families = self.families.into_inner();
        families.sort();
        (self.registry, families)
    }

    /// Creates and lists a metric. The caller registers it, or a collector that contains it.
    fn create<C: Collector>(&self, kind: &'static str, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("names and labels are constant and valid");
        for desc in collector.desc() {
            let mut labels = desc.variable_labels.clone();
            labels.sort();
            self.families.borrow_mut().push(MetricFamily { name: desc.fq_name.clone(), kind, labels });
        }
        collector
    }

    fn create_registered<C: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        collector: prometheus::Result<C>,
    ) -> C {
        let collector = self.create(kind, collector);
        self.register(collector.clone());
        collector
    }

    /// Registers a collector that contains metrics created with `standard_gauge` or `standard_counter`.
    pub(super) fn register(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect("every name is registered once");
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.create_registered("counter", GenericCounter::with_opts(opts(name, help)))
    }

    pub(super) fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.create_registered("counter", IntCounterVec::new(opts(name, help), labels))
    }

    /// A counter for each of `values` of `label`. All exist from the start at zero, because `increase()` misses the first event of a series
    /// that appears with it.
    pub(super) fn counters_by_label<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [IntCounter; N] {
        let counters = self.counter_vec(name, help, &[label]);
        values.map(|value| counters.with_label_values(&[value]))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.create_registered("gauge", GenericGauge::with_opts(opts(name, help)))
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.create_registered("gauge", GenericGauge::with_opts(opts(name, help)))
    }

    pub(super) fn float_gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.create_registered("gauge", GaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.create_registered("gauge", IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.create_registered("histogram", Histogram::with_opts(histogram_opts(name, help, buckets)))
    }

    pub(super) fn histogram_vec(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.create_registered("histogram", HistogramVec::new(histogram_opts(name, help, buckets), labels))
    }

    /// A gauge with a standard name (no prefix), for a custom collector, which the caller registers.
    pub(super) fn standard_gauge(&self, name: &str, help: &str) -> Gauge {
        self.create("gauge", Gauge::with_opts(Opts::new(name, help)))
    }

    /// Like [`standard_gauge`](Self::standard_gauge), as a counter.
    pub(super) fn standard_counter(&self, name: &str, help: &str) -> Counter {
        self.create("counter", Counter::with_opts(Opts::new(name, help)))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec())
}
