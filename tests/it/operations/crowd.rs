//! Many connections at once: what idle ones cost, and that slow ones disturb nobody.
//!
//! `CROWD` is how many there are, 1,000 unless it is set; docs/performance.md has the figure for 10,000.

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

/// The most resident memory that an idle connection may take when it rests. One that does not takes 16 KiB.
const IDLE_KIB: f64 = 12.0;

/// The crowd comes in so many parts, and each rests before the next one comes: what it takes until then is taken once, and by few.
const PARTS: usize = 3;

/// A time in which a connection without requests is at rest, as `limits.header_timeout`.
const REST: &str = "2s";

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The size of the crowd: `CROWD`, or else `usual`.
fn size(usual: usize) -> usize {
    env::var("CROWD").map_or(usual, |size| size.parse().unwrap())
}

/// A proxy with room for `connections`, and its upstream. This process, which is at the other end, gets room for them too.
fn start(connections: usize, header_timeout: &str) -> (Upstream, Proxy) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(
        &upstream,
        &[
            ("FINICITY__LIMITS__CONNECTIONS", &connections.to_string()),
            // Few upstream connections, so that the limit of open files has room for the others.
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

/// Makes a request on `stream`, and reads its answer.
async fn call(stream: &mut TcpStream) {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n{}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed in the middle of an answer");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

/// So many connections, each with one request made on it.
async fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        call(&mut stream).await;
        streams.push(stream);
    }
    streams
}

/// Waits until connections that are idle now are at rest: until the proxy gives up a head that never ends, by its own clock.
async fn rest(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"G").await.unwrap();
    let mut answer = Vec::new();
    while stream.read_buf(&mut answer).await.is_ok_and(|length| length > 0) {}
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is what a run with CROWD is for")]
fn i07_an_idle_connection_takes_little_memory() {
    let count = size(1_000);
    let part = count / PARTS;
    let (_upstream, proxy) = start(count + part + 100, REST);
    block_on(async {
        // What grows once has grown before anything is measured.
        let mut first = connect(proxy.proxy[0], part).await;
        rest(proxy.proxy[0]).await;
        let before = proxy.process.status_kib("VmRSS");
        let mut crowd = Vec::with_capacity(count);
        while crowd.len() < count {
            crowd.append(&mut connect(proxy.proxy[0], part.min(count - crowd.len())).await);
            rest(proxy.proxy[0]).await;
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
        // A byte of each in every round, of a head that never ends. A request of somebody else's in every round too.
        let (mut served, mut longest) = (0, Duration::ZERO);
        while !slow.is_empty() {
            assert!(started.elapsed() < TIMEOUT, "{} are still open", slow.len());
            slow.retain(|stream| stream.try_write(b"G").is_ok() && is_open(stream));
            let asked = Instant::now();
            connect(proxy.proxy[0], 1).await;
            (served, longest) = (served + 1, longest.max(asked.elapsed()));
        }
        println!(
            "{count} slow writers closed within {:?}; {served} others served, {longest:?} at most",
            started.elapsed()
        );
    });
    proxy.wait_for_metric("connections", 0);
}

/// Whether the other side has not closed `stream`; what it says before that is not looked at.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1024]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
