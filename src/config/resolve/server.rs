//! `[limits]` and `[runtime]`: limits of connections and requests, worker threads.

use std::{num::NonZeroUsize, thread, time::Duration};

use super::{
    super::{Kind, reader::Reader},
    HOUR, SECOND,
};
use crate::{message::framing::HeadLimits, proxy, server};

/// Maximum number of worker threads for `auto`: more than the vendor can use, see `runtime.worker_threads`.
const MAX_AUTO_WORKERS: usize = 2;

/// Maximum of `limits.unfinished_heads_bytes`: a sanity limit, as no machine should spend more memory on incomplete requests.
const MAX_UNFINISHED_HEADS: usize = 1024 * 1024 * 1024;

/// Minimums of `limits.target_bytes` and `limits.header_bytes`.
const MIN_TARGET_BYTES: usize = 256;
const MIN_HEADER_BYTES: usize = 1024;

/// Worker threads and limits. `write_timeout` is `upstream.idle_timeout`, `concurrency` is `limits.concurrency`.
pub(super) fn server(read: &mut Reader<'_>, write_timeout: Duration, concurrency: usize) -> server::Config {
    let worker_threads = worker_threads(read);
    let head = HeadLimits {
        target_bytes: read.number("limits.target_bytes", MIN_TARGET_BYTES..=60 * 1024),
        header_bytes: read.number("limits.header_bytes", MIN_HEADER_BYTES..=1024 * 1024),
        headers: read.number("limits.headers", 8..=1000),
    };
    server::Config {
        worker_threads,
        connections: read.number("limits.connections", 1..=1_000_000),
        upstream_connections: concurrency * worker_threads.get(),
        unfinished_heads_bytes: unfinished_heads_bytes(read, &head),
        limits: server::Limits {
            head,
            header_timeout: read.duration("limits.header_timeout", SECOND..=HOUR),
            keepalive_timeout: read.duration("limits.keepalive_timeout", SECOND..=HOUR),
            write_timeout,
        },
    }
}

/// Limits of a request body. `idle_timeout` is `upstream.idle_timeout`.
pub(super) fn body_limits(read: &mut Reader<'_>, idle_timeout: Duration) -> proxy::BodyLimits {
    proxy::BodyLimits {
        max_bytes: read.number("limits.body_bytes", 0..=usize::MAX) as u64,
        idle_timeout,
        min_rate: read.number("limits.body_min_rate", 0..=1024 * 1024) as u64,
    }
}

/// Limit of incomplete heads. One head of the maximum size must fit.
fn unfinished_heads_bytes(read: &mut Reader<'_>, head: &HeadLimits) -> usize {
    let key = "limits.unfinished_heads_bytes";
    let bounds = MIN_TARGET_BYTES + MIN_HEADER_BYTES..=MAX_UNFINISHED_HEADS;
    read.describe(key, Kind::Number { bounds, word: None });
    read.number(key, head.target_bytes + head.header_bytes..=MAX_UNFINISHED_HEADS)
}

fn worker_threads(read: &mut Reader<'_>) -> NonZeroUsize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let auto = NonZeroUsize::new(cores.min(MAX_AUTO_WORKERS)).unwrap_or(NonZeroUsize::MIN);
    read.number_or("runtime.worker_threads", 1..=64, Some("auto")).and_then(NonZeroUsize::new).unwrap_or(auto)
}
