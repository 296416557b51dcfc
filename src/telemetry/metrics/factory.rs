//! Making metrics, all in one registry and most under one prefix, and keeping a list of what was made.

use std::cell::RefCell;

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
    core::{Collector, GenericCounter, GenericGauge},
};

/// What all names of this program's own begin with.
const NAMESPACE: &str = "finicity_proxy";

/// A metric family that `/metrics` can show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    /// The whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels, in alphabetical order.
    pub labels: Vec<String>,
}

/// Makes metrics and registers them.
pub(super) struct Register {
    registry: Registry,
    families: RefCell<Vec<Family>>,
}

impl Register {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), families: RefCell::default() }
    }

    /// The registry with all that was made, and the list of it.
    pub(super) fn done(self) -> (Registry, Vec<Family>) {
        let mut families = self.families.into_inner();
        families.sort();
        (self.registry, families)
    }

    /// Makes one that is registered by itself, or is a part of `collector`.
    fn make<C: Collector>(&self, kind: &'static str, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("names and labels are constant and valid");
        for desc in collector.desc() {
            let mut labels = desc.variable_labels.clone();
            labels.sort();
            self.families.borrow_mut().push(Family { name: desc.fq_name.clone(), kind, labels });
        }
        collector
    }

    fn add<C: Collector + Clone + 'static>(&self, kind: &'static str, collector: prometheus::Result<C>) -> C {
        let collector = self.make(kind, collector);
        self.collector(collector.clone());
        collector
    }

    /// Registers a collector whose metrics were made one by one.
    pub(super) fn collector(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect("every name is registered once");
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add("counter", GenericCounter::with_opts(opts(name, help)))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add("counter", IntCounterVec::new(opts(name, help), labels))
    }

    /// A counter for each of `values` of the one `label`, all there from the start: what appears only with its first event
    /// hides that event from `increase()`.
    pub(super) fn counters_of<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [IntCounter; N] {
        let counters = self.counters(name, help, &[label]);
        values.map(|value| counters.with_label_values(&[value]))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add("gauge", GenericGauge::with_opts(opts(name, help)))
    }

    pub(super) fn float(&self, name: &str, help: &str) -> Gauge {
        self.add("gauge", GenericGauge::with_opts(opts(name, help)))
    }

    pub(super) fn floats(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add("gauge", GaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add("gauge", IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add("histogram", Histogram::with_opts(histogram_opts(name, help, buckets)))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add("histogram", HistogramVec::new(histogram_opts(name, help, buckets), labels))
    }

    /// A gauge under one of the names that every exporter uses, for a collector of its own.
    pub(super) fn standard_gauge(&self, name: &str, help: &str) -> Gauge {
        self.make("gauge", Gauge::with_opts(Opts::new(name, help)))
    }

    /// The same as a counter.
    pub(super) fn standard_counter(&self, name: &str, help: &str) -> Counter {
        self.make("counter", Counter::with_opts(Opts::new(name, help)))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec())
}
