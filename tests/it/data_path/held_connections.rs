//! Connections held by clients: at the limit of a listener, they are evicted for new ones.
//!
//! By their timeouts, the held connections would stay open for an hour, so each response shows that one was evicted. With
//! `-- --nocapture` the tests print the latencies in docs/operations.md.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::{
    TIMEOUT,
    client::Client,
    process::Proxy,
    upstream::{Gate, Reply, Upstream},
};

/// The limits of the shipped sidecar manifests, and timeouts that no connection reaches.
const SIDECAR: [(&str, &str); 5] = [
    ("FINICITY__LIMITS__CONNECTIONS", "1000"),
    ("FINICITY__LIMITS__CONCURRENCY", "128"),
    ("FINICITY__LIMITS__HEADER_TIMEOUT", "1h"),
    ("FINICITY__LIMITS__KEEPALIVE_TIMEOUT", "1h"),
    ("FINICITY__LOG__LEVEL", "info,finicity_proxy::access=warn"),
];

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The maximum number of connections of the ops and admin listeners.
const SIDE_LIMIT: usize = 64;

/// What clients send on the connections that they hold.
#[derive(Clone, Copy, Debug)]
enum Held {
    Silent,
    HalfAHead,
    /// One byte of a head per second.
    ByteASecond,
}

const KINDS: [Held; 3] = [Held::Silent, Held::HalfAHead, Held::ByteASecond];

/// Connections that are held until this is dropped.
struct Crowd<S> {
    _streams: Vec<S>,
    dripping: Option<(Sender<()>, JoinHandle<()>)>,
}

impl<S: Write + Send + 'static> Crowd<S> {
    fn hold(held: Held, count: usize, connect: impl Fn() -> S, clone: impl Fn(&S) -> S) -> Self {
        let mut streams: Vec<S> = (0..count).map(|_| connect()).collect();
        let mut dripping = None;
        match held {
            Held::Silent => {}
            // The proxy can have closed it already.
            Held::HalfAHead => streams.iter_mut().for_each(|stream| drop(stream.write_all(b"GET /x HTTP/1.1\r\nHo"))),
            Held::ByteASecond => {
                let mut writers: Vec<S> = streams.iter().map(clone).collect();
                let (stop, stopped) = channel();
                let thread = thread::spawn(move || {
                    loop {
                        writers.retain_mut(|writer| writer.write_all(b"G").is_ok());
                        if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                            return;
                        }
                    }
                });
                dripping = Some((stop, thread));
            }
        }
        Self { _streams: streams, dripping }
    }
}

impl<S> Drop for Crowd<S> {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.dripping.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }
}

/// A connection to `to` from the loopback address 127.0.0.`host`, which the proxy sees as a separate peer.
fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Reuses ports of earlier connections, and leaves none in TIME_WAIT.
    socket.set_reuse_address(true).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads its response, which must have the body `{}`. Returns its status, or `None` if the connection was closed.
fn call(stream: &mut TcpStream) -> Option<u16> {
    stream.write_all(REQUEST).ok()?;
    let mut response = Vec::new();
    while !response.ends_with(b"{}") {
        let mut part = [0; 1024];
        match stream.read(&mut part) {
            Ok(0) => return None,
            Ok(read) => response.extend_from_slice(&part[..read]),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "no response in time");
                return None;
            }
        }
    }
    String::from_utf8_lossy(&response)["HTTP/1.1 ".len()..][..3].parse().ok()
}

fn raise_rlimit_nofile() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The metric `name`, with its labels.
fn metric(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.ops().get("/metrics").text();
    let line = format!("finicity_proxy_{name} ");
    text.lines().find_map(|shown| shown.strip_prefix(&line)).map_or(0, |value| value.parse().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are for the documents")]
fn probes_respond_while_ops_connections_are_held() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &SIDECAR);
    let connect = || connect_from(1, proxy.ops);
    for held in KINDS {
        let _crowd = Crowd::hold(held, 3 * SIDE_LIMIT, connect, |stream| stream.try_clone().unwrap());
        let mut longest = Duration::ZERO;
        for probe in ["/livez", "/readyz", "/startupz", "/metrics"].repeat(25) {
            let start = Instant::now();
            assert_eq!(proxy.ops().get(probe).status, 200, "{probe} {held:?}");
            longest = longest.max(start.elapsed());
        }
        println!("{} held ops connections, {held:?}: a probe takes {longest:?} at most", 3 * SIDE_LIMIT);
    }
    assert!(metric(&proxy, r#"connections_evicted_total{listener="ops",reason="idle"}"#) > 0);
    assert!(metric(&proxy, r#"connections_evicted_total{listener="ops",reason="unfinished_head"}"#) > 0);
    let line = proxy.process.wait_for_log("connection limit reached; closed the longest idle connection for a new one");
    assert_eq!((line["level"].as_str(), line["listener"].as_str()), (Some("WARN"), Some("ops")));
}

#[test]
fn probes_respond_while_clients_do_not_read_responses() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &SIDECAR);
    let crowd: Vec<TcpStream> = (0..2 * SIDE_LIMIT)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // Too small for a response.
            socket.set_recv_buffer_size(1).unwrap();
            socket.connect(&proxy.ops.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for probe in ["/livez", "/readyz"].repeat(2 * SIDE_LIMIT) {
        assert_eq!(proxy.ops().get(probe).status, 200, "{probe}");
    }
    drop(crowd);
}

#[test]
fn status_responds_while_admin_connections_are_held() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let socket = path.display().to_string();
    let proxy = Proxy::start_with(&upstream, &[&SIDECAR[..], &[("FINICITY__ADMIN__SOCKET", &*socket)]].concat());
    let connect = || connect_from(1, proxy.admin);
    let connect_socket = || UnixStream::connect(Path::new(&path)).unwrap();
    for held in KINDS {
        let _crowd = Crowd::hold(held, 2 * SIDE_LIMIT, connect, |stream| stream.try_clone().unwrap());
        assert_eq!(Client::connect(proxy.admin).get("/api/status").status, 200, "{held:?}");
        let _crowd = Crowd::hold(held, 2 * SIDE_LIMIT, connect_socket, |stream| stream.try_clone().unwrap());
        assert_eq!(Client::connect_socket(&path).get("/api/status").status, 200, "{held:?}");
    }
}

#[test]
fn ops_closes_after_one_request_and_admin_closes_when_idle() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &SIDECAR);
    let mut ops = proxy.ops();
    assert_eq!(ops.get("/livez").header("connection"), Some("close"));
    ops.assert_closed();
    let (mut silent, mut used) = (Client::connect(proxy.admin), Client::connect(proxy.admin));
    for _ in 0..2 {
        assert_eq!(used.get("/api/status").header("connection"), None);
    }
    used.assert_closed();
    silent.assert_closed();
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are for the documents")]
fn a_client_with_1000_connections_does_not_block_others() {
    raise_rlimit_nofile();
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    for held in KINDS {
        let proxy = Proxy::start_with(&upstream, &SIDECAR);
        let address = proxy.proxy[0];
        let mut other = connect_from(2, address);
        assert_eq!(call(&mut other), Some(200));
        let connect = || connect_from(1, address);
        let _crowd = Crowd::hold(held, 1000, connect, |stream| stream.try_clone().unwrap());
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            let start = Instant::now();
            assert_eq!(call(&mut connect_from(3, address)), Some(200), "{held:?}");
            longest = longest.max(start.elapsed());
        }
        assert_eq!(call(&mut other), Some(200), "connections of a peer with fewer of them are not evicted");
        let evicted: u64 = ["idle", "unfinished_head"]
            .map(|reason| {
                metric(&proxy, &format!(r#"connections_evicted_total{{listener="proxy",reason="{reason}"}}"#))
            })
            .iter()
            .sum();
        println!("1000 held connections, {held:?}: a new one is served within {longest:?}; {evicted} evicted");
        assert!((1..=101).contains(&evicted), "{evicted}");
    }
}

#[test]
fn the_longest_idle_connection_is_evicted_first() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    // With one worker, responses are sent in the order of the requests.
    let variables = [("FINICITY__LIMITS__CONNECTIONS", "4"), ("FINICITY__RUNTIME__WORKER_THREADS", "1")];
    let proxy = Proxy::start_with(&upstream, &[&SIDECAR[1..], &variables].concat());
    let address = proxy.proxy[0];
    let mut half = connect_from(1, address);
    half.write_all(b"GET /x HTTP/1.1\r\nHost: loc").unwrap();
    proxy.wait_for_metric("unfinished_heads_bytes", 26);
    let [mut first, mut second, mut third] = [(); 3].map(|()| connect_from(1, address));
    for stream in [&mut first, &mut second, &mut third] {
        assert_eq!(call(stream), Some(200));
    }
    assert_eq!(call(&mut first), Some(200));

    let new = || {
        let mut stream = connect_from(1, address);
        assert_eq!(call(&mut stream), Some(200));
        stream
    };
    let mut fourth = new();
    let mut response = String::new();
    half.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("request_timeout"), "{response}");
    let [mut fifth, mut sixth] = [(); 2].map(|()| new());
    assert_eq!([call(&mut second), call(&mut third)], [None, None]);
    for stream in [&mut first, &mut fourth, &mut fifth, &mut sixth] {
        assert_eq!(call(stream), Some(200));
    }
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
}

#[test]
fn a_request_in_flight_is_never_evicted() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |request| match request.target() {
        "/held" => Reply::Held(held.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start_with(&upstream, &[&SIDECAR[1..], &[("FINICITY__LIMITS__CONNECTIONS", "4")]].concat());
    let address = proxy.proxy[0];
    let mut busy: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = proxy.connect();
            client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client
        })
        .collect();
    proxy.wait_for_metric("requests_in_flight", 3);
    // One slot for all of them; their peer has fewer connections than the busy one.
    let new: Vec<_> = (0..20).map(|_| thread::spawn(move || call(&mut connect_from(2, address)))).collect();
    for new in new {
        assert_eq!(new.join().unwrap(), Some(200));
    }
    gate.open();
    for client in &mut busy {
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
}

#[test]
fn lingering_connections_do_not_block_new_ones() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[&SIDECAR[1..], &[("FINICITY__LIMITS__CONNECTIONS", "2")]].concat());
    let evicted = r#"connections_evicted_total{listener="proxy",reason="closing"}"#;
    let deadline = Instant::now() + TIMEOUT;
    while metric(&proxy, evicted) == 0 {
        assert!(Instant::now() < deadline);
        let refused = [(); 2].map(|()| {
            let mut client = proxy.connect();
            client
                .send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.read_response(false).unwrap().assert_problem(400, "bad_request");
            client
        });
        assert_eq!(call(&mut connect_from(2, proxy.proxy[0])), Some(200));
        drop(refused);
    }
}

#[test]
fn busy_connections_do_not_block_a_new_one() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[&SIDECAR[1..], &[("FINICITY__LIMITS__CONNECTIONS", "4")]].concat());
    let address = proxy.proxy[0];
    let (stop, stopped) = channel::<()>();
    let crowd = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..4).map(|_| connect_from(1, address)).collect();
        while stopped.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
            streams.retain_mut(|stream| call(stream).is_some());
        }
    });
    proxy.wait_for_metric("connections", 4);
    assert_eq!(call(&mut connect_from(2, address)), Some(200));
    drop(stop);
    crowd.join().unwrap();
}
