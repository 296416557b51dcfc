//! The number of connections that fits `RLIMIT_NOFILE`.
//!
//! A client connection needs one file descriptor, and its request up to two more: for the upstream connection, or before that for the DNS
//! lookup or for trying two addresses. If clients could use the last descriptor, requests and probes would fail, so the connection limit
//! leaves room for them from the start.

/// Reserved for everything else: the program's own files, and three operator listeners with 64 connections each.
const RESERVED_FDS: usize = 256;

/// The descriptors that a request may need for the upstream.
const FDS_PER_REQUEST: usize = 2;

/// Returns how many of the `configured` connections fit `open_files` (`RLIMIT_NOFILE`), with at most `requests` in flight to the upstream.
/// The result is at least 1. If the limit is small, half of it is reserved.
pub(super) fn connection_limit(configured: usize, requests: usize, open_files: usize) -> usize {
    let available = open_files - RESERVED_FDS.min(open_files / 2);
    // Either every connection has a request in flight, or there are more connections than requests.
    let fitting =
        (available / (1 + FDS_PER_REQUEST)).max(available.saturating_sub(requests.saturating_mul(FDS_PER_REQUEST)));
    configured.min(fitting).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn i08_rlimit_nofile_bounds_the_connections() {
        for (configured, requests, open_files, fitting) in [
            (10_000, 2048, 1_048_576, 10_000),
            (10_000, 2048, 20_000, 10_000),
            (10_000, 2048, 4096, 1280),
            (10_000, 2048, 1024, 256),
            (10_000, 2048, 64, 10),
            (10_000, 2, 1024, 764),
            (5, 2048, 1024, 5),
            (5, 2048, 0, 1),
        ] {
            assert_eq!(
                connection_limit(configured, requests, open_files),
                fitting,
                "{configured} {requests} {open_files}"
            );
        }
    }

    proptest! {
        #[test]
        fn i08_all_allowed_connections_and_requests_fit(configured in 1..20_000_usize, requests in 1..5_000_usize, files in 16..100_000_usize) {
            let connections = connection_limit(configured, requests, files);
            let needed = connections + FDS_PER_REQUEST * connections.min(requests) + RESERVED_FDS.min(files / 2);
            prop_assert!((1..=configured).contains(&connections));
            prop_assert!(needed <= files, "{connections} connections need {needed}");
        }
    }
}
