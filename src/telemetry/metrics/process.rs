//! Metrics of the process, with the standard names.
//!
//! The `prometheus` crate's own collector depends on a parser for all of `/proc`, on libc and on a second version of rustix. This one makes
//! three reads at each scrape. Values that the system does not provide are omitted.

use std::fs;

use prometheus::{
    Counter, Gauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{factory::MetricFactory, unix_time};

/// Reads the metrics of the process at each scrape.
pub(super) struct ProcessCollector {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start_time: Gauge,
}

impl ProcessCollector {
    /// Creates and registers the collector. The current time becomes the start time of the process.
    pub(super) fn register(factory: &MetricFactory) {
        let collector = Self {
            cpu: factory.standard_counter("process_cpu_seconds_total", "User and system CPU time used."),
            resident: factory.standard_gauge("process_resident_memory_bytes", "Resident memory."),
            virtual_memory: factory.standard_gauge("process_virtual_memory_bytes", "Virtual memory."),
            threads: factory.standard_gauge("process_threads", "Threads of the process."),
            open_fds: factory.standard_gauge("process_open_fds", "Open file descriptors."),
            max_fds: factory.standard_gauge("process_max_fds", "Maximum number of open file descriptors."),
            start_time: factory.standard_gauge(
                "process_start_time_seconds",
                "Start time of the process, in seconds since the Unix epoch.",
            ),
        };
        collector.start_time.set(unix_time());
        factory.register(collector);
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges =
            [&self.resident, &self.virtual_memory, &self.threads, &self.open_fds, &self.max_fds, &self.start_time];
        self.cpu.desc().into_iter().chain(gauges.into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        let mut families = self.cpu.collect();
        families.extend(self.start_time.collect());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let readings = [
            (&self.resident, field(&status, "VmRSS:").map(|kib| kib * 1024)),
            (&self.virtual_memory, field(&status, "VmSize:").map(|kib| kib * 1024)),
            (&self.threads, field(&status, "Threads:")),
            // Minus the descriptor of this directory.
            (&self.open_fds, fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64 - 1)),
            (&self.max_fds, getrlimit(Resource::Nofile).current),
        ];
        for (gauge, reading) in readings {
            if let Some(reading) = reading {
                gauge.set(reading as f64);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

/// The number after `name` in the text of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_numbers_are_omitted() {
        let status = "Name:\tVmRSS: 7\nVmPeak:\t  900 kB\nVmRSS:\t  12084 kB\nThreads:\t5\nVmSize:\tmany kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(12_084));
        assert_eq!(field(status, "Threads:"), Some(5));
        assert_eq!((field(status, "VmSize:"), field(status, "VmSwap:")), (None, None));
    }
}
