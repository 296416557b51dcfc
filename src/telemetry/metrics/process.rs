//! What every exporter tells of its process, under the names that all of them use.
//!
//! The `prometheus` crate's own collector brings a parser of all of `/proc`, libc and a second rustix with it. This is three
//! reads at each scrape, and none between them. What the system does not tell is left out of the page.

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

use super::{factory::Register, unix_time};

/// Reads about the process at each scrape.
pub(super) struct Process {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start: Gauge,
}

impl Process {
    /// Makes the collector and registers it. The process counts as started now.
    pub(super) fn register(add: &Register) {
        let process = Self {
            cpu: add.standard_counter("process_cpu_seconds_total", "User and system CPU time spent."),
            resident: add.standard_gauge("process_resident_memory_bytes", "Resident memory."),
            virtual_memory: add.standard_gauge("process_virtual_memory_bytes", "Virtual memory."),
            threads: add.standard_gauge("process_threads", "Threads of the process."),
            open_fds: add.standard_gauge("process_open_fds", "Open file descriptors."),
            max_fds: add.standard_gauge("process_max_fds", "The most file descriptors that may be open."),
            start: add.standard_gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since the Unix epoch.",
            ),
        };
        process.start.set(unix_time());
        add.collector(process);
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [&self.resident, &self.virtual_memory, &self.threads, &self.open_fds, &self.max_fds, &self.start];
        self.cpu.desc().into_iter().chain(gauges.into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        let mut families = self.cpu.collect();
        families.extend(self.start.collect());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let readings = [
            (&self.resident, field(&status, "VmRSS:").map(|kib| kib * 1024)),
            (&self.virtual_memory, field(&status, "VmSize:").map(|kib| kib * 1024)),
            (&self.threads, field(&status, "Threads:")),
            // One of them is the reading itself.
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
    fn a_number_is_read_and_what_is_none_is_left_out() {
        let status = "Name:\tVmRSS: 7\nVmPeak:\t  900 kB\nVmRSS:\t  12084 kB\nThreads:\t5\nVmSize:\tmany kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(12_084));
        assert_eq!(field(status, "Threads:"), Some(5));
        assert_eq!((field(status, "VmSize:"), field(status, "VmSwap:")), (None, None));
    }
}
