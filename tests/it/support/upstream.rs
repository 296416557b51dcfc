//! A TLS upstream that records every byte it receives and responds with the bytes that a test chooses.

use std::{
    fs,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{CLIENT_SECRET, TIMEOUT, TOKEN_PREFIX};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// Request line and header fields, byte for byte, without the empty line.
    pub head: String,
    /// The body, without chunked framing, up to [`MAX_KEPT_BODY`].
    pub body: Vec<u8>,
    /// The length of the whole body.
    pub body_len: u64,
    /// A hash of the whole body.
    pub body_hash: u64,
    /// The index of the connection, and the index of the request on that connection, both from 0.
    pub connection: usize,
    pub index: usize,
}

/// The rest of a body is counted and hashed, but not kept.
const MAX_KEPT_BODY: usize = 64 * 1024;

/// The token endpoint of partner authentication.
pub const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";

/// The token endpoints of both schemes.
const TOKEN_PATHS: [&str; 2] = ["/oauth/token", PARTNER_PATH];

/// How much of a large body is read before an early response.
const EARLY_BYTES: u64 = 64 * 1024;

impl ReceivedRequest {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The values of the field `name` (in lower case), in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).map(|line| line.split_once(':').unwrap());
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// The reaction of the upstream to a request.
pub enum Reply {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Sends these bytes, then closes the TCP connection without `close_notify`.
    Cut(Vec<u8>),
    /// Sends these bytes, then closes TLS and TCP cleanly.
    Close(Vec<u8>),
    /// Sends these bytes, then resets the TCP connection.
    Reset(Vec<u8>),
    /// Waits until the gate is open, then sends these bytes.
    Held(Gate, Vec<u8>),
    /// Sends these bytes, then waits until the gate is open.
    Stalled(Vec<u8>, Gate),
    /// Sends a head and then this number of bytes of `pattern`.
    Stream(u64),
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(body: &str) -> Self {
        Self::status(200, "OK", body)
    }

    pub fn status(status: u16, reason: &str, body: &str) -> Self {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        Self::Bytes((head + body).into_bytes())
    }

    /// The same bytes, once the gate is open.
    pub fn held(self, gate: &Gate) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Held(gate.clone(), bytes),
            _ => panic!("only `Reply::Bytes` can be held"),
        }
    }
}

/// Holds replies until [`open`](Self::open) is called.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// The byte at `offset` of a streamed body.
pub fn pattern(offset: u64) -> u8 {
    (offset % 251) as u8
}

/// Hashes bytes incrementally (FNV-1a), to compare bodies that are too large to keep.
pub fn hash(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

type Handler = Arc<dyn Fn(&ReceivedRequest) -> Reply + Send + Sync>;

/// The upstream on its own thread. Dropping it stops it.
pub struct Upstream {
    port: u16,
    dir: TempDir,
    state: Arc<UpstreamState>,
    stop: Option<(watch::Sender<()>, thread::JoinHandle<()>)>,
}

struct UpstreamState {
    received: Mutex<Vec<ReceivedRequest>>,
    /// The numbers of connections that were accepted and closed.
    accepted: AtomicUsize,
    closed: AtomicUsize,
    /// The client ports of the connections that were closed since the last [`Upstream::wait_for_closed`].
    closed_ports: Mutex<Vec<u16>>,
    /// Notified when a request was received or a connection was closed.
    changed: Condvar,
    config: Mutex<Arc<ServerConfig>>,
    early_responses: AtomicBool,
}

impl Upstream {
    /// Responds to token requests with a new token that is valid for `lifetime_s`, and to all others with `handler`.
    pub fn start(lifetime_s: u64, handler: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let versions = AtomicU64::new(0);
        Self::start_raw(move |request| {
            if request.target() == "/oauth/token" {
                let version = versions.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::json(&token_response(version, lifetime_s));
            }
            handler(request)
        })
    }

    /// Like [`start`](Self::start), for partner authentication.
    pub fn start_partner(handler: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let versions = AtomicU64::new(0);
        Self::start_raw(move |request| {
            if request.target() == PARTNER_PATH {
                let version = versions.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::json(&format!(r#"{{"token":"{}"}}"#, token(version)));
            }
            handler(request)
        })
    }

    /// Like [`start`](Self::start), but responds to a request with a body of 1 MiB or more after reading 64 KiB of it, then
    /// discards the rest.
    pub fn start_with_early_responses(handler: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let upstream = Self::start(3600, handler);
        upstream.state.early_responses.store(true, Ordering::SeqCst);
        upstream
    }

    /// Responds to all requests with `handler`, token requests included.
    pub fn start_raw(handler: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = server_config(&dir.path().join("ca.pem"), &[]);
        let state = Arc::new(UpstreamState {
            received: Mutex::default(),
            accepted: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            closed_ports: Mutex::default(),
            changed: Condvar::new(),
            config: Mutex::new(config),
            early_responses: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&state);
        let thread = thread::spawn(move || serve(listener, Arc::new(handler), serving, stopped));
        Self { port, dir, state, stop: Some((stop, thread)) }
    }

    /// Issues tokens for `CLIENT_SECRET`, rejects every other secret, and responds to other requests with an empty object.
    pub fn start_checking_secret() -> Self {
        Self::start_raw(|request| {
            let is_right = String::from_utf8_lossy(&request.body).contains(CLIENT_SECRET);
            match request.target() {
                "/oauth/token" if is_right => Reply::json(&token_response(1, 3600)),
                "/oauth/token" => Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#),
                _ => Reply::json("{}"),
            }
        })
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Stops the upstream, and reserves its port so that connections to it are refused.
    pub fn into_closed_port(self) -> ClosedPort {
        let port = self.port;
        drop(self);
        ClosedPort::at(port)
    }

    /// From now on, uses a certificate of an untrusted CA for new connections.
    pub fn use_untrusted_certificate(&self) {
        self.set_tls_config(server_config(&self.dir.path().join("other-ca.pem"), &[]));
    }

    /// From now on, serves new connections with `config`.
    pub fn set_tls_config(&self, config: Arc<ServerConfig>) {
        *self.state.config.lock().unwrap() = config;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All requests so far, including token requests.
    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.state.received.lock().unwrap().clone()
    }

    /// Forgets the requests so far, for a long test.
    pub fn clear_received(&self) {
        self.state.received.lock().unwrap().clear();
    }

    /// All requests so far, except token requests.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.received().into_iter().filter(|request| !TOKEN_PATHS.contains(&request.target())).collect()
    }

    pub fn token_requests(&self) -> usize {
        self.received().len() - self.requests().len()
    }

    /// Waits until a complete request for `target` has arrived.
    #[track_caller]
    pub fn wait_for(&self, target: &str) -> ReceivedRequest {
        self.wait_until(target, |received| received.iter().find(|request| request.target() == target).cloned())
    }

    /// Waits until `count` complete requests that match have arrived.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize, matches: impl Fn(&ReceivedRequest) -> bool) {
        self.wait_until("the request", |received| {
            (received.iter().filter(|request| matches(request)).count() >= count).then_some(())
        });
    }

    /// Waits until `count` connections have been closed, and until the kernel has delivered the close to the client's sockets: on a busy
    /// machine, a FIN can arrive later than data that is sent after it on another connection.
    #[track_caller]
    pub fn wait_for_closed(&self, count: usize) {
        self.wait_until("the close", |_| (self.state.closed.load(Ordering::SeqCst) >= count).then_some(()));
        let ports = std::mem::take(&mut *self.state.closed_ports.lock().unwrap());
        let deadline = Instant::now() + TIMEOUT;
        while established(self.port).iter().any(|port| ports.contains(port)) {
            assert!(Instant::now() < deadline, "the kernel does not deliver the close");
            thread::yield_now();
        }
    }

    /// The number of connections so far, including those of token requests.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_until<T>(&self, what: &str, found: impl Fn(&[ReceivedRequest]) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        let mut received = self.state.received.lock().unwrap();
        loop {
            if let Some(found) = found(&received) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} does not arrive");
            received = self.state.changed.wait_timeout(received, left).unwrap().0;
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let (stop, thread) = self.stop.take().unwrap();
        drop(stop);
        let _ = thread.join();
    }
}

/// A port that is reserved without a listener. Connections to it are refused until this is dropped.
pub struct ClosedPort(tokio::net::TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        Self::at(0)
    }

    fn at(port: u16) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        Self(socket)
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.0.local_addr().unwrap().port())
    }
}

/// The `version`th token.
pub fn token(version: u64) -> String {
    format!("{TOKEN_PREFIX}{version}")
}

pub fn token_response(version: u64, lifetime_s: u64) -> String {
    format!(r#"{{"access_token":"{}","token_type":"Bearer","expires_in":{lifetime_s}}}"#, token(version))
}

/// A server configuration for `localhost`. Writes the CA certificate to `ca_file`.
pub fn server_config(ca_file: &std::path::Path, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    server_config_for(&["localhost", "127.0.0.1"], ca_file, alpn)
}

/// Like [`server_config`], for other hosts.
pub fn server_config_for(hosts: &[&str], ca_file: &std::path::Path, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(ca_file, issuer.pem()).unwrap();
    let params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

fn serve(
    listener: std::net::TcpListener,
    handler: Handler,
    state: Arc<UpstreamState>,
    mut stopped: watch::Receiver<()>,
) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let stream = tokio::select! {
                _ = stopped.changed() => return,
                accepted = listener.accept() => accepted.unwrap().0,
            };
            stream.set_nodelay(true).unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&state.config.lock().unwrap()));
            let (handler, state) = (Arc::clone(&handler), Arc::clone(&state));
            let number = state.accepted.fetch_add(1, Ordering::SeqCst);
            let client = stream.peer_addr().unwrap();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = serve_connection(BufReader::new(stream), number, handler, &state).await;
                }
                let _received = state.received.lock().unwrap();
                state.closed_ports.lock().unwrap().push(client.port());
                state.closed.fetch_add(1, Ordering::SeqCst);
                state.changed.notify_all();
            });
        }
    });
}

/// The ports of the sockets that are connected to `port` of 127.0.0.1 and have not received a FIN or RST (`proc_net_tcp` in the kernel's
/// documentation).
fn established(port: u16) -> Vec<u16> {
    const ESTABLISHED: &str = "01";
    let upstream = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == upstream && row[3] == ESTABLISHED)
        .map(|row| u16::from_str_radix(row[1].split(':').nth(1).unwrap(), 16).unwrap())
        .collect()
}

async fn serve_connection(
    mut stream: BufReader<TlsStream<TcpStream>>,
    connection: usize,
    handler: Handler,
    state: &UpstreamState,
) -> std::io::Result<()> {
    let mut index = 0;
    while let Some(head) = read_head(&mut stream).await? {
        let mut request =
            ReceivedRequest { head, body: Vec::new(), body_len: 0, body_hash: hash(0, b""), connection, index };
        index += 1;
        let length = request.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
        let early = state.early_responses.load(Ordering::SeqCst) && length >= 1 << 20;
        let unread = if early { length - EARLY_BYTES } else { 0 };
        if early {
            read_bytes(&mut stream, EARLY_BYTES, &mut request).await?;
        } else {
            read_body(&mut stream, &mut request).await?;
        }
        state.received.lock().unwrap().push(request.clone());
        state.changed.notify_all();
        if send_reply(&mut stream, handler(&request)).await?.is_break() {
            return Ok(());
        }
        stream.flush().await?;
        read_bytes(&mut stream, unread, &mut request).await?;
    }
    Ok(())
}

/// Sends `reply`. Breaks if the connection must not be used any more.
async fn send_reply(stream: &mut BufReader<TlsStream<TcpStream>>, reply: Reply) -> std::io::Result<ControlFlow<()>> {
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
        Reply::Held(gate, bytes) => {
            tokio::select! {
                () = gate.opened() => stream.write_all(&bytes).await?,
                // The client sends nothing before the response, so this means that it has closed the connection.
                _ = stream.fill_buf() => return Ok(ControlFlow::Break(())),
            }
        }
        Reply::Stalled(bytes, gate) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            gate.opened().await;
        }
        Reply::Cut(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            return Ok(ControlFlow::Break(()));
        }
        Reply::Close(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            return Ok(ControlFlow::Break(()));
        }
        Reply::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            stream.get_ref().get_ref().0.set_zero_linger()?;
            return Ok(ControlFlow::Break(()));
        }
        Reply::Stream(length) => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
            let mut offset = 0;
            while offset < length {
                let chunk: Vec<u8> = (offset..length.min(offset + 16_384)).map(pattern).collect();
                stream.write_all(&chunk).await?;
                offset += chunk.len() as u64;
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

async fn read_head(stream: &mut BufReader<TlsStream<TcpStream>>) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 {
            return Ok(None);
        }
    }
    head.truncate(head.len() - 4);
    Ok(Some(head.iter().map(|byte| char::from(*byte)).collect()))
}

async fn read_body(stream: &mut BufReader<TlsStream<TcpStream>>, request: &mut ReceivedRequest) -> std::io::Result<()> {
    let chunked = request.headers("transfer-encoding") == ["chunked"];
    let length = request.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
    if !chunked {
        return read_bytes(stream, length, request).await;
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap();
        read_bytes(stream, size, request).await?;
        let mut end = String::new();
        stream.read_line(&mut end).await?;
        assert_eq!(end, "\r\n", "trailers, or a wrong chunk size");
        if size == 0 {
            return Ok(());
        }
    }
}

async fn read_bytes(
    stream: &mut BufReader<TlsStream<TcpStream>>,
    length: u64,
    request: &mut ReceivedRequest,
) -> std::io::Result<()> {
    let mut remaining = length;
    let mut buffer = vec![0; 16 * 1024];
    while remaining > 0 {
        let limit = buffer.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..limit]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &buffer[..read];
        request.body_hash = hash(request.body_hash, bytes);
        request.body_len += read as u64;
        if request.body.len() + read <= MAX_KEPT_BODY {
            request.body.extend_from_slice(bytes);
        }
        remaining -= read as u64;
    }
    Ok(())
}
