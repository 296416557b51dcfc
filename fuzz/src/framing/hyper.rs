//! hyper's connection, configured as in the program, on in-memory bytes: no socket, no runtime, no clock.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Collected, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

use super::LIMITS;

/// A request that reached the service.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) chunked: bool,
    /// The body, if it was read completely.
    pub(super) body: Option<Bytes>,
}

/// Returns the requests that hyper serves on a connection that sends `bytes`, in pieces of `size`, and then stays open, and whether hyper
/// rejected a head itself. With `takes_bodies`, the service reads each body before it responds; otherwise it responds immediately, and
/// hyper skips the rest of the body.
pub(super) fn serve(bytes: &[u8], takes_bodies: bool, size: impl Fn(usize) -> usize + Unpin) -> (Vec<Served>, bool) {
    let served = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let served = Rc::clone(&served);
        async move {
            let (parts, body) = request.into_parts();
            // After a 2xx to CONNECT, hyper would stop parsing. The proxy never sends one.
            let status = if parts.method == Method::CONNECT { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::OK };
            let number = served.borrow().len();
            let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
            served.borrow_mut().push(Served { method: parts.method, uri: parts.uri, chunked, body: None });
            if takes_bodies {
                served.borrow_mut()[number].body = body.collect().await.ok().map(Collected::to_bytes);
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let ended = run(http1::Builder::new()
        .max_headers(100)
        .max_buf_size(LIMITS.target_bytes + LIMITS.header_bytes + 32 * 1024)
        .serve_connection(Wire { bytes, at: 0, size }, service));
    let rejected = ended.is_some_and(|ended| ended.is_err_and(|error| error.is_parse()));
    (served.take(), rejected)
}

/// A client that has sent `bytes`, waits, and reads every response.
struct Wire<'a, S> {
    bytes: &'a [u8],
    at: usize,
    size: S,
}

impl<S: Fn(usize) -> usize + Unpin> Read for Wire<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if left.is_empty() {
            return Poll::Pending;
        }
        let piece = (self.size)(self.at).min(left.len()).min(buffer.remaining());
        buffer.put_slice(&left[..piece]);
        self.at += piece;
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> Write for Wire<'_, S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether the connection has woken itself.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls `connection` until it ends, and returns its output; or until it waits for further bytes.
fn run<T>(connection: impl Future<Output = T>) -> Option<T> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut connection = pin!(connection);
    loop {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(ended);
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            return None;
        }
    }
}
