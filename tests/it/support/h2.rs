//! An HTTP/2 upstream that sends the frames that a test chooses.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http::{Response, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    process::Proxy,
    upstream::{Reply, Upstream, server_config, token_response},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// A request head that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct OpenedStream {
    /// The number of earlier requests on all connections.
    pub count: usize,
    /// The stream ID.
    pub stream: u32,
}

/// The reaction of the upstream to a request.
pub enum Action {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes when the first DATA frame has arrived.
    AfterData(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Close(Vec<u8>),
    /// Sends the first bytes, then the second ones repeatedly: the given number of times, or until the peer closes.
    Flood(Vec<u8>, Vec<u8>, usize),
}

pub struct H2Upstream {
    port: u16,
    dir: TempDir,
    opened: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
    // Only provides the environment of the child process.
    unused: Upstream,
}

type Script = Arc<dyn Fn(OpenedStream) -> Action + Send + Sync>;

#[derive(Clone)]
struct ServerState {
    script: Script,
    opened: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
}

impl H2Upstream {
    /// Reacts to each request as `script` returns. Token requests, which use HTTP/1.1, get a token.
    pub fn start(script: impl Fn(OpenedStream) -> Action + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = TlsAcceptor::from(server_config(&dir.path().join("ca.pem"), &[b"h2", b"http/1.1"]));
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (opened, flooded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let state =
            ServerState { script: Arc::new(script), opened: Arc::clone(&opened), flooded: Arc::clone(&flooded) };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { accept(TcpListener::from_std(listener).unwrap(), acceptor, state).await });
        });
        Self { port, dir, opened, flooded, unused: Upstream::start(3600, |_| Reply::json("{}")) }
    }

    /// The program in front of it, with one worker and therefore one connection.
    pub fn proxy(&self, variables: &[(&str, &str)]) -> Proxy {
        let (url, ca_file) = (format!("https://localhost:{}", self.port), self.ca_file().display().to_string());
        let defaults = [
            ("FINICITY__UPSTREAM__HTTP2", "auto"),
            ("FINICITY__UPSTREAM__URL", url.as_str()),
            ("FINICITY__UPSTREAM__CA_FILE", ca_file.as_str()),
            ("FINICITY__RUNTIME__WORKER_THREADS", "1"),
        ];
        Proxy::start_with(&self.unused, &[&defaults, variables].concat())
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The requests so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// How often the second part of a flood was sent.
    pub fn flooded(&self) -> usize {
        self.flooded.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: ServerState) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, state) = (acceptor.clone(), state.clone());
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            tokio::spawn(serve(stream, state));
        } else {
            let service = service_fn(async |_| Ok::<_, std::io::Error>(http1_token_response()));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }
}

fn http1_token_response() -> Response<Full<bytes::Bytes>> {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    response.body(Full::from(token_response(1, 3600))).unwrap()
}

async fn serve(mut stream: TlsStream<TcpStream>, state: ServerState) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut after_data = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut payload).await?;
        match (head[3], head[4]) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            (PING, 0) => stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
            (HEADERS, _) => {
                let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let count = state.opened.fetch_add(1, Ordering::SeqCst);
                let action = (state.script)(OpenedStream { count, stream: number });
                match action {
                    Action::Send(bytes) => stream.write_all(&bytes).await?,
                    Action::AfterData(bytes) => after_data = bytes,
                    Action::Close(bytes) => {
                        stream.write_all(&bytes).await?;
                        return stream.shutdown().await;
                    }
                    Action::Flood(first, repeated, times) => {
                        stream.write_all(&first).await?;
                        let (mut reader, mut writer) = tokio::io::split(stream);
                        // Meanwhile reads what the peer sends, so that its writes never block.
                        let reading = tokio::spawn(async move {
                            while reader.read(&mut [0; 4096]).await? > 0 {}
                            Ok::<_, std::io::Error>(())
                        });
                        for _ in 0..times {
                            writer.write_all(&repeated).await?;
                            state.flooded.fetch_add(1, Ordering::SeqCst);
                        }
                        writer.flush().await?;
                        return reading.await.unwrap();
                    }
                }
            }
            (DATA, _) => stream.write_all(&std::mem::take(&mut after_data)).await?,
            _ => {}
        }
        stream.flush().await?;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A complete 200 head with `fields` in HPACK.
pub fn head(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&[0x88], fields].concat())
}

/// An incomplete 200 head; [`continuation`] frames must follow.
pub fn head_without_end(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, 0, stream, &[&[0x88], fields].concat())
}

/// A complete 103 head with `fields` in HPACK.
pub fn early_hints(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&[0x08, 3], &b"103"[..], fields].concat())
}

pub fn continuation(stream: u32, fields: &[u8], last: bool) -> Vec<u8> {
    frame(CONTINUATION, if last { END_HEADERS } else { 0 }, stream, fields)
}

pub fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    frame(DATA, if last { END_STREAM } else { 0 }, stream, bytes)
}

/// A complete 200 response.
pub fn ok(stream: u32) -> Vec<u8> {
    [head(stream, &[]), data(stream, b"ok", true)].concat()
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

/// SETTINGS with one value.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A literal field in HPACK, with or without incremental indexing. Name and value can be up to 16 KiB long.
pub fn field(name: &str, value: &str, indexed: bool) -> Vec<u8> {
    [&[if indexed { 0x40 } else { 0 }][..], &string(name), &string(value)].concat()
}

fn string(text: &str) -> Vec<u8> {
    let mut rest = text.len();
    let mut bytes = Vec::new();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    [bytes, text.as_bytes().to_vec()].concat()
}
