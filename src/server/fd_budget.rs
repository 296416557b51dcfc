//! The number of connections that fits the limit of open files (`RLIMIT_NOFILE`).
//!
//! A connection from a client needs a descriptor, and its request one or two more: for the connection to the upstream, or, before
//! there is one, for looking up its name or trying two addresses. If clients could take the last descriptor, requests and probes
//! would fail for want of one, so the limit of connections is kept below that from the start.

/// Kept free for everything else: the program's own, and three operator listeners with 64 connections each.
const RESERVED_FDS: usize = 256;

/// The descriptors that a request may need towards the upstream.
const FDS_PER_REQUEST: usize = 2;

/// The number of the `configured` connections that fits the limit `open_files`, when at most `requests` are sent to the upstream at once.
/// It is at least 1. Of a small limit, half is kept for everything else.
pub(super) fn connection_limit(configured: usize, requests: usize, open_files: usize) -> usize {
    let available = open_files - RESERVED_FDS.min(open_files / 2);
    // Either every connection has a request, or there are more connections than requests.
    let fitting =
        (available / (1 + FDS_PER_REQUEST)).max(available.saturating_sub(requests.saturating_mul(FDS_PER_REQUEST)));
    configured.min(fitting).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn i08_the_limit_of_open_files_bounds_the_connections() {
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
        fn i08_all_that_is_allowed_at_once_fits(configured in 1..20_000_usize, requests in 1..5_000_usize, files in 16..100_000_usize) {
            let connections = connection_limit(configured, requests, files);
            let needed = connections + FDS_PER_REQUEST * connections.min(requests) + RESERVED_FDS.min(files / 2);
            prop_assert!((1..=configured).contains(&connections));
            prop_assert!(needed <= files, "{connections} connections need {needed}");
        }
    }
}
