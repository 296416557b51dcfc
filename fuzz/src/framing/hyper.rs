//! hyper's connection, set up as the program sets it up, over bytes that are all there: no socket, no runtime, no clock.

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
    /// The body, once it was taken to its end.
    pub(super) body: Option<Bytes>,
}

/// The requests that hyper serves of a connection that sends `bytes`, in pieces whose sizes `size` says, and then nothing more.
/// With `takes_bodies` the service reads each body before it answers; otherwise it answers at once, and what is left of the body
/// is hyper's to skip. Also returns whether hyper refused a head by itself.
pub(super) fn serve(bytes: &[u8], takes_bodies: bool, size: impl Fn(usize) -> usize + Unpin) -> (Vec<Served>, bool) {
    let served = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let served = Rc::clone(&served);
        async move {
            let (parts, body) = request.into_parts();
            // A tunnel would end hyper's reading; the proxy never answers CONNECT with one.
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
    let refused = ended.is_some_and(|ended| ended.is_err_and(|error| error.is_parse()));
    (served.take(), refused)
}

/// A caller that has sent `bytes`, waits, and takes every answer.
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

/// Polls `connection` until it ends, and returns how, or until nothing but further bytes could bring it on.
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
