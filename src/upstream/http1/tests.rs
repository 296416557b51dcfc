//! Requests as they are written and answers as they are read, on streams that follow a script, and on pipes under paused time.

mod against_hyper;
mod both_directions;
mod requests;
mod responses;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    task::Waker,
};

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, combinators::BoxBody};

use super::*;

/// The body of a request.
type Sent = BoxBody<Bytes, BodyError>;

/// How long a write may make no progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a stream ends after all that it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// In good order.
    End,
    /// Without the end that its protocol asks for, as TLS does without `close_notify`.
    Broken,
    /// Not at all.
    Silence,
}

/// A stream that takes everything, and then brings some pieces.
struct Script {
    pieces: VecDeque<Bytes>,
    last: Last,
    written: Vec<u8>,
    reader: Option<Waker>,
}

impl Script {
    fn new(pieces: impl IntoIterator<Item = Bytes>, last: Last) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Self { pieces, last, written: Vec::new(), reader: None }
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let last = self.last;
        match self.pieces.front_mut() {
            Some(piece) => {
                buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
                self.pieces.pop_front_if(|piece| piece.is_empty());
                Poll::Ready(Ok(()))
            }
            None => match last {
                Last::End => Poll::Ready(Ok(())),
                Last::Broken => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Last::Silence => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(buf);
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
        self.as_mut().poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn empty() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn request(method: Method) -> Request<Sent> {
    Request::builder().method(method).uri("/x").body(empty()).unwrap()
}

fn begin<S: AsyncRead + AsyncWrite + Unpin>(line: &mut Http1Connection<S, Sent>, request: Request<Sent>) {
    let (head, body) = request.into_parts();
    line.begin(&head, body);
}

/// The head of the answer to what was begun on `line`.
async fn head<S: AsyncRead + AsyncWrite + Unpin>(line: &mut Http1Connection<S, Sent>) -> Result<Response<()>, Error> {
    poll_fn(|cx| line.poll_answer(cx)).await
}

/// The rest of the answer.
async fn body<S: AsyncRead + AsyncWrite + Unpin>(line: &mut Http1Connection<S, Sent>) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(part) = poll_fn(|cx| line.poll_data(cx)).await {
        body.extend_from_slice(&part?);
    }
    Ok(body)
}

/// What came of a request whose answer was taken whole.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: Vec<(String, Bytes)>,
    body: Vec<u8>,
    is_reusable: bool,
}

/// Sends a request with `method` to `script`.
async fn exchange(method: Method, script: Script) -> Result<Seen, Error> {
    let mut line = Http1Connection::new(script, PATIENCE);
    begin(&mut line, request(method));
    let head = head(&mut line).await?;
    let body = body(&mut line).await?;
    let is_reusable = line.is_reusable();
    Ok(Seen { status: head.status().as_u16(), fields: fields(head.headers()), body, is_reusable })
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, Bytes)> {
    let field = |(name, value): (&header::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
    };
    headers.iter().map(field).collect()
}

/// What comes of a GET that `answer` comes for at once, after which the connection ends.
fn get(answer: impl AsRef<[u8]>) -> Result<Seen, Error> {
    see(Method::GET, [Bytes::copy_from_slice(answer.as_ref())], Last::End)
}

/// What comes of a request with `method`, which none of the `pieces` keeps waiting.
fn see(method: Method, pieces: impl IntoIterator<Item = Bytes>, last: Last) -> Result<Seen, Error> {
    let mut exchange = Box::pin(exchange(method, Script::new(pieces, last)));
    match exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(seen) => seen,
        Poll::Pending => panic!("it waits for more"),
    }
}
