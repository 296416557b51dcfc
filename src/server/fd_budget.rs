//! How many connections the limit of open files has room for.
//!
//! A connection from a caller needs a descriptor, and its request one or two more: for the connection to the upstream, or, before
//! there is one, for looking up its name or trying two addresses. When callers may take the last descriptor, requests fail for
//! want of one, and so do probes; so the limit of connections is kept below that from the start.

/// Kept free for everything else: the program's own, and three side listeners with 64 connections each.
const RESERVED: usize = 256;

/// What a request may need towards the upstream.
const UPSTREAM: usize = 2;

/// How many of the `wanted` connections fit when `open_files` may be open, and when at most `requests` are sent to the upstream at
/// once. A small limit is shared: half for everything else. There is always room for one.
pub(super) fn fitting(wanted: usize, requests: usize, open_files: usize) -> usize {
    let left = open_files - RESERVED.min(open_files / 2);
    // Either every connection has a request, or there are more connections than requests.
    let fit = (left / (1 + UPSTREAM)).max(left.saturating_sub(requests.saturating_mul(UPSTREAM)));
    wanted.min(fit).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn i08_the_limit_of_open_files_bounds_the_connections() {
        for (wanted, requests, open_files, fit) in [
            (10_000, 2048, 1_048_576, 10_000),
            (10_000, 2048, 20_000, 10_000),
            (10_000, 2048, 4096, 1280),
            (10_000, 2048, 1024, 256),
            (10_000, 2048, 64, 10),
            (10_000, 2, 1024, 764),
            (5, 2048, 1024, 5),
            (5, 2048, 0, 1),
        ] {
            assert_eq!(fitting(wanted, requests, open_files), fit, "{wanted} {requests} {open_files}");
        }
    }

    proptest! {
        #[test]
        fn i08_all_that_is_allowed_at_once_fits(wanted in 1..20_000_usize, requests in 1..5_000_usize, files in 16..100_000_usize) {
            let connections = fitting(wanted, requests, files);
            let needed = connections + UPSTREAM * connections.min(requests) + RESERVED.min(files / 2);
            prop_assert!((1..=wanted).contains(&connections));
            prop_assert!(needed <= files, "{connections} connections need {needed}");
        }
    }
}
