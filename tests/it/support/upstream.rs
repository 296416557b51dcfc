//! A TLS upstream that keeps every byte it receives and answers with the bytes it is told to.

use std::{
    fs,
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

use super::{PATIENCE, TOKEN_PREFIX};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and header fields, byte for byte, without the empty line.
    pub head: String,
    /// The body, without chunked framing, up to [`KEPT_BODY`].
    pub body: Vec<u8>,
    /// The length of the whole body.
    pub body_len: u64,
    /// A hash of the whole body.
    pub body_hash: u64,
    /// Which connection it came on, and as which request on that one, both from 0.
    pub connection: usize,
    pub place: usize,
}

/// More of a body is counted and hashed, not kept.
const KEPT_BODY: usize = 64 * 1024;

/// What is read of a large body before an early answer.
const EARLY: u64 = 64 * 1024;

impl Received {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The values of the field `name` (in lower case), in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).map(|line| line.split_once(':').unwrap());
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// What the upstream does with a request.
pub enum Reply {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Sends these bytes, then cuts the TCP connection without a word.
    Cut(Vec<u8>),
    /// Sends these bytes, then ends TLS and TCP in good order.
    Close(Vec<u8>),
    /// Sends these bytes, then resets the TCP connection.
    Reset(Vec<u8>),
    /// Sends these bytes once the gate is open.
    Held(Gate, Vec<u8>),
    /// Sends these bytes, then nothing more until the gate is open.
    Stalled(Vec<u8>, Gate),
    /// Sends a head and then so many bytes of `pattern`.
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
            _ => panic!("only a reply that is nothing but bytes can be held"),
        }
    }
}

/// Something that replies can be held at.
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

/// The byte at each place of a streamed body.
pub fn pattern(place: u64) -> u8 {
    (place % 251) as u8
}

/// Hashes bytes one after another (FNV-1a), to compare bodies that are too large to keep.
pub fn hash(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

type Handler = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// The upstream, on a thread of its own. Dropping it ends it.
pub struct Upstream {
    port: u16,
    dir: TempDir,
    shared: Arc<Shared>,
    stop: Option<(watch::Sender<()>, thread::JoinHandle<()>)>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    /// Connections that were accepted, and those of them that have ended.
    accepted: AtomicUsize,
    ended: AtomicUsize,
    more: Condvar,
    config: Mutex<Arc<ServerConfig>>,
    early: AtomicBool,
}

impl Upstream {
    /// Answers token calls with a new token that lives `lifetime_s`, and everything else as `handler` says.
    pub fn start(lifetime_s: u64, handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let versions = AtomicU64::new(0);
        Self::start_raw(move |request| {
            if request.target() == "/oauth/token" {
                let version = versions.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::json(&token_answer(version, lifetime_s));
            }
            handler(request)
        })
    }

    /// Like [`start`](Self::start), but answers a request with a body of 1 MiB or more as soon as it has 64 KiB of it, and reads
    /// the rest only to throw it away.
    pub fn start_early(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let upstream = Self::start(3600, handler);
        upstream.shared.early.store(true, Ordering::SeqCst);
        upstream
    }

    /// Answers everything as `handler` says.
    pub fn start_raw(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = server_config(&dir.path().join("ca.pem"), &[]);
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            accepted: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            more: Condvar::new(),
            config: Mutex::new(config),
            early: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || serve(listener, Arc::new(handler), serving, stopped));
        Self { port, dir, shared, stop: Some((stop, thread)) }
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

    /// Ends it, and keeps others from listening where it did.
    pub fn into_dead_port(self) -> DeadPort {
        let port = self.port;
        drop(self);
        DeadPort::at(port)
    }

    /// From now on, shows new connections a certificate of an authority that nobody trusts.
    pub fn become_an_impostor(&self) {
        self.present(server_config(&self.dir.path().join("other-ca.pem"), &[]));
    }

    /// From now on, serves new connections with `config`.
    pub fn present(&self, config: Arc<ServerConfig>) {
        *self.shared.config.lock().unwrap() = config;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything received so far, token calls included.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Forgets what was received so far, for a test that goes on for long.
    pub fn forget(&self) {
        self.shared.received.lock().unwrap().clear();
    }

    /// Everything received so far but token calls.
    pub fn requests(&self) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.target() != "/oauth/token").collect()
    }

    pub fn token_calls(&self) -> usize {
        self.received().len() - self.requests().len()
    }

    /// Waits until a request for `target` has arrived whole.
    #[track_caller]
    pub fn wait_for(&self, target: &str) -> Received {
        self.wait_until(target, |received| received.iter().find(|request| request.target() == target).cloned())
    }

    /// Waits until `count` requests that match have arrived whole.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize, matches: impl Fn(&Received) -> bool) {
        self.wait_until("the request", |received| {
            (received.iter().filter(|request| matches(request)).count() >= count).then_some(())
        });
    }

    /// Waits until `count` connections have ended, and nothing more can be said on them.
    #[track_caller]
    pub fn wait_for_ended(&self, count: usize) {
        self.wait_until("the end", |_| (self.shared.ended.load(Ordering::SeqCst) >= count).then_some(()));
    }

    /// The connections so far, those of token calls included.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_until<T>(&self, what: &str, found: impl Fn(&[Received]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.shared.received.lock().unwrap();
        loop {
            if let Some(found) = found(&received) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} does not come");
            received = self.shared.more.wait_timeout(received, left).unwrap().0;
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

/// A port that is taken and that nobody listens on: connections to it are refused for as long as this lives.
pub struct DeadPort(tokio::net::TcpSocket);

impl DeadPort {
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

pub fn token_answer(version: u64, lifetime_s: u64) -> String {
    format!(r#"{{"access_token":"{}","token_type":"Bearer","expires_in":{lifetime_s}}}"#, token(version))
}

/// A server configuration for `localhost`, whose authority's certificate is written to `ca_file`.
pub fn server_config(ca_file: &std::path::Path, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(ca_file, issuer.pem()).unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
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

fn serve(listener: std::net::TcpListener, handler: Handler, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let stream = tokio::select! {
                _ = stopped.changed() => return,
                accepted = listener.accept() => accepted.unwrap().0,
            };
            stream.set_nodelay(true).unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&shared.config.lock().unwrap()));
            let (handler, shared) = (Arc::clone(&handler), Arc::clone(&shared));
            let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = connection(BufReader::new(stream), number, handler, &shared).await;
                }
                let _received = shared.received.lock().unwrap();
                shared.ended.fetch_add(1, Ordering::SeqCst);
                shared.more.notify_all();
            });
        }
    });
}

async fn connection(
    mut stream: BufReader<TlsStream<TcpStream>>,
    connection: usize,
    handler: Handler,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut place = 0;
    while let Some(head) = read_head(&mut stream).await? {
        let mut request = Received { head, body: Vec::new(), body_len: 0, body_hash: hash(0, b""), connection, place };
        place += 1;
        let length = request.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
        let rest = if shared.early.load(Ordering::SeqCst) && length >= 1 << 20 { length - EARLY } else { 0 };
        if rest > 0 {
            take(&mut stream, EARLY, &mut request).await?;
        } else {
            read_body(&mut stream, &mut request).await?;
        }
        shared.received.lock().unwrap().push(request.clone());
        shared.more.notify_all();
        match handler(&request) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Held(gate, bytes) => {
                tokio::select! {
                    () = gate.opened() => stream.write_all(&bytes).await?,
                    // Nobody speaks before the answer, so this is the end.
                    _ = stream.fill_buf() => return Ok(()),
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
                return Ok(());
            }
            Reply::Close(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Reset(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                return stream.get_ref().get_ref().0.set_zero_linger();
            }
            Reply::Stream(length) => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
                let mut place = 0;
                while place < length {
                    let chunk: Vec<u8> = (place..length.min(place + 16_384)).map(pattern).collect();
                    stream.write_all(&chunk).await?;
                    place += chunk.len() as u64;
                }
            }
        }
        stream.flush().await?;
        take(&mut stream, rest, &mut request).await?;
    }
    Ok(())
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

async fn read_body(stream: &mut BufReader<TlsStream<TcpStream>>, request: &mut Received) -> std::io::Result<()> {
    let chunked = request.headers("transfer-encoding") == ["chunked"];
    let length = request.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
    if !chunked {
        return take(stream, length, request).await;
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap();
        take(stream, size, request).await?;
        let mut end = String::new();
        stream.read_line(&mut end).await?;
        assert_eq!(end, "\r\n", "trailers, or a chunk of another size");
        if size == 0 {
            return Ok(());
        }
    }
}

async fn take(
    stream: &mut BufReader<TlsStream<TcpStream>>,
    length: u64,
    request: &mut Received,
) -> std::io::Result<()> {
    let mut left = length;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &buffer[..read];
        request.body_hash = hash(request.body_hash, bytes);
        request.body_len += read as u64;
        if request.body.len() + read <= KEPT_BODY {
            request.body.extend_from_slice(bytes);
        }
        left -= read as u64;
    }
    Ok(())
}
