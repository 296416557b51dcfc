//! Whether a connection that is open also lives. All requests of a worker share one, so a dead one that TCP still takes for open would
//! fail them all.

use std::{future::pending, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::upstream::counting_io::BytesRead;

/// After how long without a word from it a server is asked, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Ready when the server of a connection, whose bytes `bytes_read` counts, does not answer one of `pings` (RFC 9113, 6.7).
pub(super) async fn ping_timed_out(mut pings: PingPong, bytes_read: BytesRead) {
    let mut previous = bytes_read.get();
    loop {
        sleep(PING_INTERVAL).await;
        if bytes_read.get() == previous {
            match timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // It has ended, and whoever runs it knows that.
                Ok(Err(_)) => pending().await,
                Err(_) => return,
            }
        }
        previous = bytes_read.get();
    }
}
