//! Many concurrent connections: the memory of idle ones, and that slow ones do not disturb others.
//!
//! The variable `CROWD` sets their number, 1,000 by default; docs/performance.md has the figure for 10,000.

use std::{
    env,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
};

use crate::support::{
    TIMEOUT,
    process::Proxy,
    upstream::{Reply, Upstream},
};

/// The maximum resident memory of a parked idle connection. One that is not parked takes 16 KiB.
const IDLE_KIB: f64 = 12.0;

/// The connections are opened in this many parts, and each part is parked before the next one is opened, so that only one part at a time
/// needs the memory of active connections.
const PARTS: usize = 3;

/// `limits.header_timeout`: longer than the time after which an idle connection is parked.
const REST: &str = "2s";

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The number of connections: `CROWD`, or else `default`.
fn size(default: usize) -> usize {
    env::var("CROWD").map_or(default, |size| size.parse().unwrap())
}

/// A proxy with a limit of `connections`, and its upstream. Also raises the file limit of this process, which opens the connections.
fn start(connections: usize, header_timeout: &str) -> (Upstream, Proxy) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(
        &upstream,
        &[
            ("FINICITY__LIMITS__CONNECTIONS", &connections.to_string()),
            // Few upstream connections, so that RLIMIT_NOFILE permits the others.
            ("FINICITY__LIMITS__CONCURRENCY", "16"),
            ("FINICITY__LIMITS__HEADER_TIMEOUT", header_timeout),
            ("FINICITY__LOG__LEVEL", "info,finicity_proxy::access=warn"),
        ],
    );
    proxy.wait_for_metric("connections_limit", connections as u64);
    (upstream, proxy)
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task)
}

/// Sends a request on `stream`, and reads the response.
async fn call(stream: &mut TcpStream) {
    stream.write_all(REQUEST).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n{}") {
        assert_ne!(stream.read_buf(&mut response).await.unwrap(), 0, "closed in the middle of a response");
    }
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
}

/// Opens `count` connections, and makes one request on each.
async fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        call(&mut stream).await;
        streams.push(stream);
    }
    streams
}

/// Waits until connections that are idle now are parked: until the proxy times out an unfinished head, by its own clock.
async fn wait_until_parked(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"G").await.unwrap();
    let mut response = Vec::new();
    while stream.read_buf(&mut response).await.is_ok_and(|length| length > 0) {}
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is what a run with CROWD is for")]
fn i07_an_idle_connection_takes_little_memory() {
    let count = size(1_000);
    let part = count / PARTS;
    let (_upstream, proxy) = start(count + part + 100, REST);
    block_on(async {
        // Memory that grows only once has grown before the measurement.
        let mut first = connect(proxy.proxy[0], part).await;
        wait_until_parked(proxy.proxy[0]).await;
        let before = proxy.process.status_kib("VmRSS");
        let mut crowd = Vec::with_capacity(count);
        while crowd.len() < count {
            crowd.append(&mut connect(proxy.proxy[0], part.min(count - crowd.len())).await);
            wait_until_parked(proxy.proxy[0]).await;
        }
        let each = (proxy.process.status_kib("VmRSS") - before) as f64 / count as f64;
        proxy.wait_for_metric("connections", (part + count) as u64);
        println!("{count} idle connections: {each:.1} KiB each");
        assert!(each <= IDLE_KIB, "{each:.1} KiB each");
        for stream in first.iter_mut().take(1).chain(crowd.iter_mut().rev().take(1)) {
            call(stream).await;
        }
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is what a run with CROWD is for")]
fn i07_slow_writers_are_closed_and_others_stay_served() {
    let count = size(2_000) / 10;
    let (_upstream, proxy) = start(count + 200, "3s");
    block_on(async {
        let started = Instant::now();
        let mut slow = Vec::with_capacity(count);
        for _ in 0..count {
            slow.push(TcpStream::connect(proxy.proxy[0]).await.unwrap());
        }
        // In each round, every slow client sends one byte of an endless head, and another client makes a request.
        let (mut served, mut longest) = (0, Duration::ZERO);
        while !slow.is_empty() {
            assert!(started.elapsed() < TIMEOUT, "{} are still open", slow.len());
            slow.retain(|stream| stream.try_write(b"G").is_ok() && is_open(stream));
            let start = Instant::now();
            connect(proxy.proxy[0], 1).await;
            (served, longest) = (served + 1, longest.max(start.elapsed()));
        }
        println!(
            "{count} slow writers closed within {:?}; {served} others served, {longest:?} at most",
            started.elapsed()
        );
    });
    proxy.wait_for_metric("connections", 0);
}

/// Whether the peer has not closed `stream`. Discards received bytes.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1024]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
