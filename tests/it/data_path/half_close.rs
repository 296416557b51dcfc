//! Clients that shut down their sending direction after a request, and clients that close or lose the connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use socket2::SockRef;

use crate::support::{
    TIMEOUT,
    client::{Client, Response},
    process::Proxy,
    upstream::{Gate, Reply, Upstream, pattern},
};

/// Far more than the kernel buffers.
const LARGE: u64 = 16 * 1024 * 1024;

/// The client side of a connection over any transport.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn shutdown(&self, how: Shutdown) {
        match self {
            Self::Tcp(stream) => stream.shutdown(how).unwrap(),
            Self::Unix(stream) => stream.shutdown(how).unwrap(),
        }
    }

    /// Moves the connection into a process that reads it.
    fn into_process(self) -> Child {
        let fd: OwnedFd = match self {
            Self::Tcp(stream) => stream.into(),
            Self::Unix(stream) => stream.into(),
        };
        Command::new("cat").stdin(Stdio::from(fd)).stdout(Stdio::piped()).spawn().unwrap()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A proxy with one worker that listens on IPv4, IPv6 and a Unix socket, and its upstream.
struct Setup {
    upstream: Upstream,
    gate: Gate,
    proxy: Proxy,
    _directory: tempfile::TempDir,
}

const TRANSPORTS: [&str; 3] = ["IPv4", "IPv6", "Unix"];

impl Setup {
    /// Starts both. The upstream holds all responses except `/large` until the gate is open.
    fn start() -> Self {
        let gate = Gate::new();
        let held = gate.clone();
        let upstream = Upstream::start(3600, move |request| match request.target() {
            "/large" => Reply::Stream(LARGE),
            target => Reply::json(&format!("{{\"target\":\"{target}\",\"bytes\":{}}}", request.body_len)).held(&held),
        });
        let directory = tempfile::tempdir().unwrap();
        let addresses = format!("127.0.0.1:0,[::1]:0,unix:{}", directory.path().join("proxy.sock").display());
        let variables = [("FINICITY__LISTEN__PROXY", addresses.as_str()), ("FINICITY__RUNTIME__WORKER_THREADS", "1")];
        let proxy = Proxy::start_with(&upstream, &variables);
        Self { upstream, gate, proxy, _directory: directory }
    }

    fn connect(&self, transport: &str) -> Stream {
        let tcp = |index: usize| {
            let stream = TcpStream::connect(self.proxy.proxy[index]).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            Stream::Tcp(stream)
        };
        match transport {
            "IPv4" => tcp(0),
            "IPv6" => tcp(1),
            _ => {
                let stream = UnixStream::connect(&self.proxy.sockets[0]).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                Stream::Unix(stream)
            }
        }
    }

    /// The transports that this machine supports.
    fn transports(&self) -> impl Iterator<Item = &'static str> {
        let has_ipv6 = self.proxy.proxy.len() > 1;
        TRANSPORTS.into_iter().filter(move |transport| has_ipv6 || *transport != "IPv6")
    }

    /// Waits until the worker has processed all events that the kernel reported before the call, by sending a request that gets a local
    /// reply.
    fn wait_for_worker(&self) {
        self.proxy.connect().get("/a/../b").assert_problem(400, "bad_request");
    }

    /// Waits for the access line of a request that its client aborted.
    fn wait_for_aborted(&self, target: &str, count: usize) {
        self.proxy.process.wait_for_lines(count, |line| line.contains(r#""outcome":"aborted""#));
        self.proxy.wait_for_metric("requests_in_flight", 0);
        assert_eq!(self.upstream.requests().iter().filter(|request| request.target() == target).count(), 1);
    }
}

fn send(stream: &mut Stream, bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).unwrap();
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn assert_json(response: &Response, target: &str, bytes: usize) {
    assert_eq!(response.status, 200, "{target}: {response:?}");
    assert_eq!(response.text(), format!("{{\"target\":\"{target}\",\"bytes\":{bytes}}}"));
}

#[test]
fn a_client_that_shuts_down_its_sending_side_gets_the_response() {
    let setup = Setup::start();
    let mut expected = Vec::new();
    for transport in setup.transports() {
        for (name, head, body) in [
            ("get", "GET @ HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
            ("close", "GET @ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 0),
            ("http10", "GET @ HTTP/1.0\r\nHost: localhost\r\n\r\n", 0),
            ("http10-kept", "GET @ HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", 0),
            ("body", "POST @ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", 100_000),
            (
                "chunked",
                "POST @ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                5,
            ),
        ] {
            // A Unix socket does not accept HTTP/1.0.
            if transport == "Unix" && name.starts_with("http10") {
                continue;
            }
            let target = format!("/{transport}/{name}");
            let mut stream = setup.connect(transport);
            send(&mut stream, head.replace('@', &target));
            if name == "body" {
                send(&mut stream, vec![b'x'; body]);
            }
            stream.shutdown(Shutdown::Write);
            setup.upstream.wait_for(&target);
            expected.push((stream, target, body));
        }
    }
    setup.wait_for_worker();
    setup.gate.open();
    for (stream, target, body) in expected {
        let mut client = Client::over(stream);
        assert_json(&client.read_response(false).unwrap(), &target, body);
        client.assert_closed();
    }
    setup.proxy.wait_for_metric("connections", 0);
    assert_eq!(setup.proxy.process.logs("request").iter().filter(|line| line["outcome"] != "complete").count(), 0);
}

#[test]
fn each_request_sent_before_the_half_close_gets_its_response() {
    let setup = Setup::start();
    for transport in setup.transports() {
        let target = |index: usize| format!("/{transport}/{index}");
        let mut stream = setup.connect(transport);
        // The third is longer than one read.
        let long = format!("GET {} HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", target(3), "x".repeat(20_000));
        send(&mut stream, [get(&target(1)), get(&target(2)), long, get(&target(4))].concat());
        stream.shutdown(Shutdown::Write);
        setup.upstream.wait_for(&target(1));
        setup.wait_for_worker();
        setup.gate.open();
        let mut client = Client::over(stream);
        for index in 1..=4 {
            assert_json(&client.read_response(false).unwrap(), &target(index), 0);
        }
        client.assert_closed();
    }
    setup.proxy.wait_for_metric("connections", 0);
}

#[test]
fn a_slow_reader_gets_a_large_response_after_a_half_close() {
    let setup = Setup::start();
    for transport in setup.transports() {
        let mut stream = setup.connect(transport);
        send(&mut stream, "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        // The client has started to read.
        stream.read_exact(&mut [0]).unwrap();
        stream.shutdown(Shutdown::Write);
        // The kernel's buffers are full, and the proxy waits for the client, which reads a part in each iteration.
        let mut bytes = Vec::new();
        for _ in 0..20 {
            setup.wait_for_worker();
            let mut part = vec![0; 4096];
            stream.read_exact(&mut part).unwrap();
            bytes.extend(part);
        }
        stream.read_to_end(&mut bytes).unwrap();
        let start = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let body = &bytes[start..];
        assert_eq!(body.len() as u64, LARGE, "{transport}");
        // The pattern repeats.
        let expected: Vec<u8> = (0..251 * 1024).map(pattern).collect();
        assert!(body.chunks(expected.len()).all(|chunk| *chunk == expected[..chunk.len()]), "{transport}");
    }
}

#[test]
fn a_half_closed_connection_is_served_during_a_drain() {
    let mut setup = Setup::start();
    let mut stream = setup.connect("IPv4");
    send(&mut stream, get("/x"));
    stream.shutdown(Shutdown::Write);
    setup.upstream.wait_for("/x");
    setup.proxy.process.signal(Signal::TERM);
    setup.proxy.process.wait_for_log("draining");
    setup.gate.open();
    let mut client = Client::over(stream);
    assert_json(&client.read_response(false).unwrap(), "/x", 0);
    client.assert_closed();
    assert_eq!(setup.proxy.process.wait().code(), Some(0));
}

#[test]
fn g07_a_client_killed_after_a_half_close_is_detected() {
    let setup = Setup::start();
    for (index, transport) in setup.transports().enumerate() {
        let target = format!("/{transport}");
        let mut stream = setup.connect(transport);
        send(&mut stream, get(&target));
        stream.shutdown(Shutdown::Write);
        let mut process = stream.into_process();
        setup.upstream.wait_for(&target);
        setup.wait_for_worker();
        // It is half-closed and still being served.
        assert_eq!(setup.proxy.process.output().matches(r#""outcome":"aborted""#).count(), index);
        process.kill().unwrap();
        process.wait().unwrap();
        setup.wait_for_aborted(&target, index + 1);
    }
}

#[test]
fn g07_a_close_or_reset_is_detected_on_each_transport() {
    let setup = Setup::start();
    let mut aborted = 0;
    for transport in setup.transports() {
        for how in ["close", "shut-down", "reset", "reset-after-half-close", "close-after-more", "shut-down-after-more"]
        {
            let target = format!("/{transport}/{how}");
            let mut stream = setup.connect(transport);
            send(&mut stream, get(&target));
            setup.upstream.wait_for(&target);
            if how.ends_with("after-more") {
                // The proxy does not read this before it has responded.
                send(&mut stream, get("/more"));
                setup.wait_for_worker();
            }
            match (how, &stream) {
                ("shut-down" | "shut-down-after-more", stream) => stream.shutdown(Shutdown::Both),
                ("reset", Stream::Tcp(tcp)) => SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap(),
                ("reset-after-half-close", Stream::Tcp(tcp)) => {
                    SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                    stream.shutdown(Shutdown::Write);
                    setup.wait_for_worker();
                }
                _ => {}
            }
            let kept = how.starts_with("shut-down").then_some(stream);
            aborted += 1;
            setup.wait_for_aborted(&target, aborted);
            drop(kept);
        }
    }
    assert!(setup.upstream.requests().iter().all(|request| request.target() != "/more"));
}

#[test]
fn a22_a_half_close_within_a_body_is_an_error() {
    let setup = Setup::start();
    for transport in setup.transports() {
        for (head, body) in [("Content-Length: 10", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n")] {
            let mut stream = setup.connect(transport);
            send(&mut stream, format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n{body}"));
            stream.shutdown(Shutdown::Write);
            match Client::over(stream).read_response(false) {
                Ok(response) => response.assert_problem(400, "bad_request"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            }
        }
    }
    setup.proxy.wait_for_metric("connections", 0);
    assert_eq!(setup.upstream.requests().len(), 0);
}
