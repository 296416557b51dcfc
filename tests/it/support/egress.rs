//! An egress proxy: responds to `CONNECT`, and tunnels bytes.

use std::{
    io::{Read as _, Write as _, copy},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

/// An egress proxy on its own threads, which run until the test process exits.
pub struct EgressProxy {
    port: u16,
    status: Arc<AtomicU16>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl EgressProxy {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// A proxy that connects to `port` of this machine for any requested host.
    #[cfg(feature = "azure")]
    pub fn start_to(port: u16) -> Self {
        Self::start_with(Some(port))
    }

    fn start_with(to: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let status = Arc::new(AtomicU16::new(200));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (served_status, served_heads) = (Arc::clone(&status), Arc::clone(&heads));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, status, heads) = (stream.unwrap(), Arc::clone(&served_status), Arc::clone(&served_heads));
                thread::spawn(move || serve(stream, to, &status, &heads));
            }
        });
        Self { port, status, heads }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, responds with `status`. Tunnels bytes only after 200.
    pub fn respond_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, to: Option<u16>, status: &AtomicU16, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
    heads.lock().unwrap().push(head);
    let status = status.load(Ordering::SeqCst);
    let _ = stream.write_all(format!("HTTP/1.1 {status} Whatever\r\nx-echo: canary-of-the-egress\r\n\r\n").as_bytes());
    if status != 200 {
        return;
    }
    let target = to.map_or(target, |port| format!("127.0.0.1:{port}"));
    let upstream = TcpStream::connect(target).unwrap();
    let (from, to) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
    let up = thread::spawn(move || forward(from, to));
    forward(upstream, stream);
    let _ = up.join();
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let _ = copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
