//! Buffers a request while it is sent, so that it can be resent.
//!
//! Over HTTP/1.1 the head is moved into the buffer once it has been written, which costs nothing; over HTTP/2 it is cloned. It holds the
//! credentials of that attempt; the layers below replace them on a resend. The body stays in the buffer and is read through [`ReplayBody`],
//! which keeps a reference to each chunk, up to a limit. A resend first reads these chunks, then the rest of the body; the body of the
//! earlier attempt fails from then on.
//! So a resend is possible wherever the first attempt stopped, as long as every chunk that was read is buffered.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use super::{exchange::Exchange, record::Record};
use crate::error_chain::BodyError;

/// The maximum number of buffered chunks. Each costs a handle of 32 bytes and keeps its read buffer alive, so a body that arrives byte by
/// byte would take many times its size.
const MAX_CHUNKS: usize = 1024;

/// The state of a request that can be resent.
pub(super) struct ReplayBuffer<B>(Mutex<State<B>>);

struct State<B> {
    /// The head of the last attempt; `None` before it is sent.
    head: Option<Parts>,
    /// The unread part of the caller's body.
    remaining: B,
    /// The chunks that were read.
    chunks: Vec<Bytes>,
    /// How many more bytes may be buffered; `None` once a chunk was read without being buffered, or the body failed.
    budget: Option<usize>,
    /// The generation of the [`ReplayBody`] that may read; a resend increments it.
    generation: u32,
    /// Wakes the reader of that generation.
    waker: Option<Waker>,
}

/// A resend replaced the attempt that this body belongs to.
#[derive(Debug, thiserror::Error)]
#[error("the request is being sent again")]
struct Superseded;

impl<B> ReplayBuffer<B> {
    /// Wraps `request` for sending. `read` is the part of its body that was already read; it is buffered whatever its size. The rest is
    /// buffered as it is read, as long as the total does not exceed `budget` bytes.
    pub(super) fn wrap(request: Request<B>, read: Bytes, budget: usize) -> Request<ReplayBody<B>> {
        let (head, body) = request.into_parts();
        let budget = Some(budget.saturating_sub(read.len()));
        let chunks = if read.is_empty() { Vec::new() } else { vec![read] };
        let state = State { head: None, remaining: body, chunks, budget, generation: 0, waker: None };
        Request::from_parts(
            head,
            ReplayBody { buffer: Arc::new(Self(Mutex::new(state))), generation: 0, next_chunk: 0 },
        )
    }

    /// Stores the head of the request that is being sent. A resend needs it.
    pub(super) fn set_head(&self, head: Parts) {
        self.state().head = Some(head);
    }

    /// Whether every chunk read so far is buffered.
    pub(super) fn is_complete(&self) -> bool {
        self.state().budget.is_some()
    }

    /// The request to resend; `None` if no head is stored or a chunk that was read is not buffered. Takes the head. The body of the earlier
    /// attempt fails from now on.
    pub(super) fn resend(self: &Arc<Self>) -> Option<Request<ReplayBody<B>>> {
        let mut state = self.state();
        state.budget?;
        let head = state.head.take()?;
        state.generation += 1;
        let (generation, waker) = (state.generation, state.waker.take());
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Some(Request::from_parts(head, ReplayBody { buffer: Arc::clone(self), generation, next_chunk: 0 }))
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a layer needs to resend a request; `context` is that layer's shared state.
pub(super) struct Resend<S, B, T> {
    pub(super) service: S,
    pub(super) buffer: Arc<ReplayBuffer<B>>,
    pub(super) record: Arc<Record>,
    pub(super) context: Arc<T>,
}

impl<S, B, T> Resend<S, B, T>
where
    S: Service<Exchange<ReplayBody<B>>> + Clone,
{
    /// Sends the request of `exchange` with `service`, which was polled ready, and returns what a resend needs.
    pub(super) fn send_first(
        service: &mut S,
        exchange: Exchange<ReplayBody<B>>,
        context: &Arc<T>,
    ) -> (S::Future, Self) {
        let buffer = exchange.request.body().buffer();
        let record = Arc::clone(&exchange.record);
        let clone = service.clone();
        (service.call(exchange), Self { service: clone, buffer, record, context: Arc::clone(context) })
    }
}

impl<B> State<B> {
    fn push(&mut self, chunk: &Bytes) {
        let budget = self.budget.filter(|_| self.chunks.len() < MAX_CHUNKS);
        self.budget = budget.and_then(|budget| budget.checked_sub(chunk.len()));
        if self.budget.is_some() {
            self.chunks.push(chunk.clone());
        } else {
            self.chunks = Vec::new();
        }
    }
}

/// Shows nothing of the request, which is the caller's data.
impl<B> fmt::Debug for ReplayBuffer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayBuffer")
    }
}

/// The request body of one attempt.
#[derive(Debug)]
pub struct ReplayBody<B> {
    buffer: Arc<ReplayBuffer<B>>,
    generation: u32,
    /// The index of the next buffered chunk to return.
    next_chunk: usize,
}

impl<B> ReplayBody<B> {
    /// The buffer of the request. It needs the [head](ReplayBuffer::set_head) when the request is sent.
    pub(super) fn buffer(&self) -> Arc<ReplayBuffer<B>> {
        Arc::clone(&self.buffer)
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { buffer, generation, next_chunk } = &mut *self;
        let mut state = buffer.state();
        if state.generation != *generation {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(chunk) = state.chunks.get(*next_chunk).cloned() {
            *next_chunk += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = Pin::new(&mut state.remaining).poll_frame(cx);
        match &frame {
            Poll::Pending => state.waker = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(chunk) = frame.data_ref() {
                    state.push(chunk);
                    *next_chunk += 1;
                }
            }
            Poll::Ready(Some(Err(_))) => state.budget = None,
            Poll::Ready(None) => {}
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.buffer.state();
        state.chunks.len() <= self.next_chunk && state.remaining.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.buffer.state();
        let ahead: u64 = state.chunks.iter().skip(self.next_chunk).map(|chunk| chunk.len() as u64).sum();
        let remaining = state.remaining.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = remaining.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(remaining.lower() + ahead);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::{Method, Uri};
    use http_body_util::BodyExt as _;
    use tokio::{
        sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        task::yield_now,
    };

    use super::*;

    /// A body that the test sends.
    struct Sent(UnboundedReceiver<io::Result<Bytes>>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_closed() && self.0.is_empty()
        }
    }

    type Caller = UnboundedSender<io::Result<Bytes>>;

    /// A request that buffers up to `budget` bytes, and the sender of its body.
    fn request(budget: usize) -> (Caller, Request<ReplayBody<Sent>>, Arc<ReplayBuffer<Sent>>) {
        let (caller, body) = unbounded_channel();
        let request = Request::post("/a?b=c").header("x", "y").body(Sent(body)).unwrap();
        let request = ReplayBuffer::wrap(request, Bytes::new(), budget);
        let buffer = request.body().buffer();
        (caller, sent(request), buffer)
    }

    /// Marks `request` as sent: its head is stored.
    fn sent(request: Request<ReplayBody<Sent>>) -> Request<ReplayBody<Sent>> {
        let (head, body) = request.into_parts();
        body.buffer().set_head(head.clone());
        Request::from_parts(head, body)
    }

    fn send(caller: &Caller, chunk: &'static str) {
        caller.send(Ok(Bytes::from(chunk))).unwrap();
    }

    async fn next(body: &mut ReplayBody<Sent>) -> Option<Bytes> {
        body.frame().await?.ok()?.into_data().ok()
    }

    #[tokio::test]
    async fn a_request_can_be_resent_while_all_read_bytes_are_buffered() {
        for (budget, is_complete) in [(10, true), (9, false)] {
            let (caller, request, buffer) = request(budget);
            send(&caller, "01234");
            send(&caller, "56789");
            drop(caller);
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "0123456789");
            for _ in 0..2 {
                let resent = buffer.resend();
                assert_eq!(resent.is_some(), is_complete);
                let Some(resent) = resent.map(sent) else { continue };
                assert_eq!((resent.method(), resent.uri()), (&Method::POST, &Uri::from_static("/a?b=c")));
                assert_eq!(resent.headers()["x"], "y");
                assert!(!resent.body().is_end_stream() && resent.body().size_hint().lower() == 10);
                assert_eq!(resent.into_body().collect().await.unwrap().to_bytes(), "0123456789");
            }
        }
    }

    #[tokio::test]
    async fn bytes_read_before_wrapping_are_buffered_beyond_the_budget() {
        for (rest, is_complete) in [("", true), ("567", true), ("56789", false)] {
            let (caller, body) = unbounded_channel();
            if !rest.is_empty() {
                send(&caller, rest);
            }
            drop(caller);
            let budget = if rest.is_empty() { 0 } else { 8 };
            let request = sent(ReplayBuffer::wrap(Request::new(Sent(body)), Bytes::from("01234"), budget));
            let buffer = request.body().buffer();
            assert!(!request.body().is_end_stream() && request.body().size_hint().lower() == 5);
            let whole = format!("01234{rest}");
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), whole);
            let resent = buffer.resend();
            assert_eq!(resent.is_some(), is_complete, "{rest}");
            if let Some(resent) = resent {
                assert_eq!(resent.into_body().collect().await.unwrap().to_bytes(), whole);
            }
        }
    }

    #[tokio::test]
    async fn a_resend_needs_the_head_of_the_last_attempt() {
        let (_caller, _request, buffer) = request(10);
        let resent = buffer.resend().unwrap();
        assert!(buffer.resend().is_none());
        sent(resent);
        assert!(buffer.resend().is_some());
    }

    #[tokio::test]
    async fn an_unread_body_of_any_size_can_be_resent() {
        let (caller, request, buffer) = request(5);
        drop(request);
        let mut resent = buffer.resend().unwrap().into_body();
        send(&caller, "0123456789");
        assert_eq!(next(&mut resent).await.unwrap(), "0123456789");
        assert!(buffer.resend().is_none(), "the chunk was read and exceeds the budget");
    }

    #[tokio::test]
    async fn the_number_of_buffered_chunks_is_limited() {
        for (chunks, is_complete) in [(MAX_CHUNKS, true), (MAX_CHUNKS + 1, false)] {
            let (caller, request, buffer) = request(64 * 1024);
            (0..chunks).for_each(|_| send(&caller, "x"));
            drop(caller);
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), chunks);
            assert_eq!((buffer.is_complete(), buffer.state().chunks.is_empty()), (is_complete, !is_complete));
        }
    }

    #[tokio::test]
    async fn a_resend_continues_the_body_and_the_first_attempt_fails() {
        let (caller, request, buffer) = request(100);
        let mut first = request.into_body();
        send(&caller, "one");
        assert_eq!(next(&mut first).await.unwrap(), "one");
        let waiting = tokio::spawn(async move { first.frame().await.unwrap().is_err() });
        yield_now().await;

        let mut resent = buffer.resend().unwrap().into_body();
        assert!(waiting.await.unwrap(), "the waiting reader must be woken");
        send(&caller, "two");
        drop(caller);
        assert_eq!(next(&mut resent).await.unwrap(), "one");
        assert_eq!(next(&mut resent).await.unwrap(), "two");
        assert!(next(&mut resent).await.is_none() && resent.is_end_stream());
    }

    #[tokio::test]
    async fn g04_an_incomplete_body_is_not_resent() {
        let (caller, request, buffer) = request(100);
        send(&caller, "one");
        caller.send(Err(io::ErrorKind::UnexpectedEof.into())).unwrap();
        drop(caller);
        assert!(request.into_body().collect().await.is_err());
        assert!(buffer.resend().is_none());
    }
}
