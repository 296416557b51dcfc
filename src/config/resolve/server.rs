//! `[limits]` and `[runtime]`: how connections are served.

use std::{num::NonZeroUsize, thread, time::Duration};

use super::{super::reader::Reader, HOUR, SECOND};
use crate::{message::framing::HeadLimits, proxy, server};

/// The most worker threads that `auto` starts; see `config/default.toml`.
const MAX_AUTO_WORKERS: usize = 2;

/// More than any machine should give to requests that are not there yet.
const MAX_UNFINISHED_HEADS: usize = 1024 * 1024 * 1024;

/// Workers and limits. `write_timeout` is `upstream.idle_timeout`, `concurrency` is `limits.concurrency`.
pub(super) fn server(read: &mut Reader<'_>, write_timeout: Duration, concurrency: usize) -> server::Config {
    let worker_threads = worker_threads(read);
    let head = HeadLimits {
        target_bytes: read.number("limits.target_bytes", 256..=60 * 1024),
        header_bytes: read.number("limits.header_bytes", 1024..=1024 * 1024),
        headers: read.number("limits.headers", 8..=1000),
    };
    server::Config {
        worker_threads,
        connections: read.number("limits.connections", 1..=1_000_000),
        upstream_connections: concurrency * worker_threads.get(),
        // One head of the largest size must fit.
        unfinished_heads_bytes: read
            .number("limits.unfinished_heads_bytes", head.target_bytes + head.header_bytes..=MAX_UNFINISHED_HEADS),
        limits: server::Limits {
            head,
            header_timeout: read.duration("limits.header_timeout", SECOND..=HOUR),
            keepalive_timeout: read.duration("limits.keepalive_timeout", SECOND..=HOUR),
            write_timeout,
        },
    }
}

/// The limits of a request's body. `idle_timeout` is `upstream.idle_timeout`.
pub(super) fn body_limits(read: &mut Reader<'_>, idle_timeout: Duration) -> proxy::BodyLimits {
    proxy::BodyLimits {
        max_bytes: read.number("limits.body_bytes", 0..=usize::MAX) as u64,
        idle_timeout,
        min_rate: read.number("limits.body_min_rate", 0..=1024 * 1024) as u64,
    }
}

fn worker_threads(read: &mut Reader<'_>) -> NonZeroUsize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let auto = NonZeroUsize::new(cores.min(MAX_AUTO_WORKERS)).unwrap_or(NonZeroUsize::MIN);
    if read.is_text("runtime.worker_threads", "auto") {
        return auto;
    }
    NonZeroUsize::new(read.number("runtime.worker_threads", 1..=64)).unwrap_or(NonZeroUsize::MIN)
}
