//! Requests as written and responses as read, on scripted streams, and on pipes under paused time.

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
type TestBody = BoxBody<Bytes, BodyError>;

/// The write stall timeout.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How a stream ends after its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    /// A clean EOF.
    Clean,
    /// An error, as TLS reports a close without `close_notify`.
    Broken,
    /// The stream stays open.
    Open,
}

/// A stream that accepts every write. After the first write, reads return `pieces`.
struct ScriptedStream {
    pieces: VecDeque<Bytes>,
    end: StreamEnd,
    written: Vec<u8>,
    reader: Option<Waker>,
}

impl ScriptedStream {
    fn new(pieces: impl IntoIterator<Item = Bytes>, end: StreamEnd) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Self { pieces, end, written: Vec::new(), reader: None }
    }
}

impl AsyncRead for ScriptedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = self.end;
        match self.pieces.front_mut() {
            Some(piece) => {
                buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
                self.pieces.pop_front_if(|piece| piece.is_empty());
                Poll::Ready(Ok(()))
            }
            None => match end {
                StreamEnd::Clean => Poll::Ready(Ok(())),
                StreamEnd::Broken => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                StreamEnd::Open => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for ScriptedStream {
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

fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn request(method: Method) -> Request<TestBody> {
    Request::builder().method(method).uri("/x").body(empty()).unwrap()
}

fn begin<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Http1Connection<S, TestBody>, request: Request<TestBody>) {
    let (head, body) = request.into_parts();
    connection.begin(&head, body);
}

/// The head of the response to the request in flight on `connection`.
async fn head<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Http1Connection<S, TestBody>,
) -> Result<Response<()>, Error> {
    poll_fn(|cx| connection.poll_response(cx)).await
}

/// The body of the response.
async fn body<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Http1Connection<S, TestBody>,
) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(part) = poll_fn(|cx| connection.poll_data(cx)).await {
        body.extend_from_slice(&part?);
    }
    Ok(body)
}

/// A response that was read completely.
#[derive(Debug, PartialEq, Eq)]
struct ReceivedResponse {
    status: u16,
    fields: Vec<(String, Bytes)>,
    body: Vec<u8>,
    is_reusable: bool,
}

/// Sends a request with `method` and reads the response from `script`.
async fn exchange(method: Method, script: ScriptedStream) -> Result<ReceivedResponse, Error> {
    let mut connection = Http1Connection::new(script, WRITE_TIMEOUT);
    begin(&mut connection, request(method));
    let head = head(&mut connection).await?;
    let body = body(&mut connection).await?;
    let is_reusable = connection.is_reusable();
    Ok(ReceivedResponse { status: head.status().as_u16(), fields: fields(head.headers()), body, is_reusable })
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, Bytes)> {
    let field = |(name, value): (&header::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
    };
    headers.iter().map(field).collect()
}

/// The result of a GET for which the peer sends `response` and closes the connection.
fn get(response: impl AsRef<[u8]>) -> Result<ReceivedResponse, Error> {
    receive(Method::GET, [Bytes::copy_from_slice(response.as_ref())], StreamEnd::Clean)
}

/// The result of a request with `method` for which the peer sends `pieces`. Panics if it waits for more.
fn receive(method: Method, pieces: impl IntoIterator<Item = Bytes>, end: StreamEnd) -> Result<ReceivedResponse, Error> {
    let mut exchange = Box::pin(exchange(method, ScriptedStream::new(pieces, end)));
    match exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(received) => received,
        Poll::Pending => panic!("the exchange waits for more bytes"),
    }
}
