//! Detects dead connections with pings. All requests of a worker share a connection, so one that is dead while TCP still considers it open
//! would fail them all.

use std::{future::pending, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::upstream::counting_io::BytesRead;

/// How long a server may be silent before it is pinged, and how long its response may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Ready when one of `pings` has timed out (RFC 9113, section 6.7). `bytes_read` counts the bytes from the server.
pub(super) async fn ping_timed_out(mut pings: PingPong, bytes_read: BytesRead) {
    let mut previous = bytes_read.get();
    loop {
        sleep(PING_INTERVAL).await;
        if bytes_read.get() == previous {
            match timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The connection has ended; its task handles that.
                Ok(Err(_)) => pending().await,
                Err(_) => return,
            }
        }
        previous = bytes_read.get();
    }
}
