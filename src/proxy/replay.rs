//! A request that is kept while it goes its way, so that it can be sent once more.
//!
//! Its head comes here when it has been written, which costs nothing: with the credentials of that time, which the layers below take
//! out again. The body stays here and is read through [`ReplayBody`], which keeps the chunks that go by, up to a limit,
//! at the cost of a reference to each. One that is sent again begins with those, and goes on where they end; the one before
//! it gets no more. So it does not matter how far the first had come, as long as everything it took was kept.

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

/// The most chunks of a body that are kept. Each costs a handle of 32 bytes and holds on to what it was read into, so that a body that
/// drips in byte by byte would take many times its size.
const MAX_CHUNKS: usize = 1024;

/// What was kept of a request.
pub(super) struct ReplayBuffer<B>(Mutex<Kept<B>>);

struct Kept<B> {
    /// The head as it was sent last, once it was.
    head: Option<Parts>,
    /// The caller's body, as far as it was not read.
    rest: B,
    /// What was read of it.
    chunks: Vec<Bytes>,
    /// What may still be kept; `None` once something was read and not kept, or the caller broke off.
    room: Option<usize>,
    /// The number of the one that may read.
    reader: u32,
    /// Wakes that one.
    waker: Option<Waker>,
}

/// The request is being sent again, by another way.
#[derive(Debug, thiserror::Error)]
#[error("the request is being sent again")]
struct Superseded;

impl<B> ReplayBuffer<B> {
    /// Keeps what is needed of `request`, up to `room` bytes of its body, and gives it back as the one to send.
    pub(super) fn keep(request: Request<B>, room: usize) -> Request<ReplayBody<B>> {
        let (head, body) = request.into_parts();
        let kept = Kept { head: None, rest: body, chunks: Vec::new(), room: Some(room), reader: 0, waker: None };
        Request::from_parts(head, ReplayBody { original: Arc::new(Self(Mutex::new(kept))), reader: 0, next: 0 })
    }

    /// Keeps the head of the request that is being sent. Without it, it is not sent again.
    pub(super) fn keep_head(&self, head: Parts) {
        self.kept().head = Some(head);
    }

    /// Whether everything that was read of the body so far is there.
    pub(super) fn is_kept(&self) -> bool {
        self.kept().room.is_some()
    }

    /// The request, to be sent again, if its head is there, which this takes, and everything that was read of its body. The one before
    /// it must not be needed any more: its body fails from now on.
    pub(super) fn again(self: &Arc<Self>) -> Option<Request<ReplayBody<B>>> {
        let mut kept = self.kept();
        kept.room?;
        let head = kept.head.take()?;
        kept.reader += 1;
        let (reader, waker) = (kept.reader, kept.waker.take());
        drop(kept);
        waker.into_iter().for_each(Waker::wake);
        Some(Request::from_parts(head, ReplayBody { original: Arc::clone(self), reader, next: 0 }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed to send a request once more, by a layer that decides with the help of `shared`.
pub(super) struct Resend<S, B, T> {
    pub(super) service: S,
    pub(super) original: Arc<ReplayBuffer<B>>,
    pub(super) record: Arc<Record>,
    pub(super) shared: Arc<T>,
}

impl<S, B, T> Resend<S, B, T>
where
    S: Service<Exchange<ReplayBody<B>>> + Clone,
{
    /// Has `service`, which was polled ready, send the request of `exchange`, and keeps what is needed for a second time.
    pub(super) fn after(service: &mut S, exchange: Exchange<ReplayBody<B>>, shared: &Arc<T>) -> (S::Future, Self) {
        let original = exchange.request.body().original();
        let record = Arc::clone(&exchange.record);
        let clone = service.clone();
        (service.call(exchange), Self { service: clone, original, record, shared: Arc::clone(shared) })
    }
}

impl<B> Kept<B> {
    fn keep(&mut self, chunk: &Bytes) {
        let room = self.room.filter(|_| self.chunks.len() < MAX_CHUNKS);
        self.room = room.and_then(|room| room.checked_sub(chunk.len()));
        if self.room.is_some() {
            self.chunks.push(chunk.clone());
        } else {
            self.chunks = Vec::new();
        }
    }
}

/// Shows nothing of the request: it is a caller's.
impl<B> fmt::Debug for ReplayBuffer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Original")
    }
}

/// A request body on its first way, or on a later one.
#[derive(Debug)]
pub struct ReplayBody<B> {
    original: Arc<ReplayBuffer<B>>,
    reader: u32,
    /// How many of the chunks it has given.
    next: usize,
}

impl<B> ReplayBody<B> {
    /// What is kept of the request, to be given its [head](ReplayBuffer::keep_head) when it is sent.
    pub(super) fn original(&self) -> Arc<ReplayBuffer<B>> {
        Arc::clone(&self.original)
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
        let Self { original, reader, next } = &mut *self;
        let mut kept = original.kept();
        if kept.reader != *reader {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(chunk) = kept.chunks.get(*next).cloned() {
            *next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = Pin::new(&mut kept.rest).poll_frame(cx);
        match &frame {
            Poll::Pending => kept.waker = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(chunk) = frame.data_ref() {
                    kept.keep(chunk);
                    *next += 1;
                }
            }
            Poll::Ready(Some(Err(_))) => kept.room = None,
            Poll::Ready(None) => {}
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.original.kept();
        kept.chunks.len() <= self.next && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.original.kept();
        let ahead: u64 = kept.chunks.iter().skip(self.next).map(|chunk| chunk.len() as u64).sum();
        let rest = kept.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(rest.lower() + ahead);
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

    /// A request of which up to `room` bytes are kept, and what to send its body with.
    fn request(room: usize) -> (Caller, Request<ReplayBody<Sent>>, Arc<ReplayBuffer<Sent>>) {
        let (caller, body) = unbounded_channel();
        let request = Request::post("/a?b=c").header("x", "y").body(Sent(body)).unwrap();
        let request = ReplayBuffer::keep(request, room);
        let original = request.body().original();
        (caller, sent(request), original)
    }

    /// As whoever sends it leaves it.
    fn sent(request: Request<ReplayBody<Sent>>) -> Request<ReplayBody<Sent>> {
        let (head, body) = request.into_parts();
        body.original().keep_head(head.clone());
        Request::from_parts(head, body)
    }

    fn send(caller: &Caller, chunk: &'static str) {
        caller.send(Ok(Bytes::from(chunk))).unwrap();
    }

    async fn next(body: &mut ReplayBody<Sent>) -> Option<Bytes> {
        body.frame().await?.ok()?.into_data().ok()
    }

    #[tokio::test]
    async fn a_request_can_be_sent_again_as_long_as_all_that_was_read_was_kept() {
        for (room, kept) in [(10, true), (9, false)] {
            let (caller, request, original) = request(room);
            send(&caller, "01234");
            send(&caller, "56789");
            drop(caller);
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "0123456789");
            for _ in 0..2 {
                let again = original.again();
                assert_eq!(again.is_some(), kept);
                let Some(again) = again.map(sent) else { continue };
                assert_eq!((again.method(), again.uri()), (&Method::POST, &Uri::from_static("/a?b=c")));
                assert_eq!(again.headers()["x"], "y");
                assert!(!again.body().is_end_stream() && again.body().size_hint().lower() == 10);
                assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "0123456789");
            }
        }
    }

    #[tokio::test]
    async fn one_that_is_not_being_sent_has_no_head_to_be_sent_again_with() {
        let (_caller, _request, original) = request(10);
        let again = original.again().unwrap();
        assert!(original.again().is_none());
        sent(again);
        assert!(original.again().is_some());
    }

    #[tokio::test]
    async fn a_body_that_nobody_has_read_of_can_be_sent_whatever_its_size() {
        let (caller, request, original) = request(5);
        drop(request);
        let mut again = original.again().unwrap().into_body();
        send(&caller, "0123456789");
        assert_eq!(next(&mut again).await.unwrap(), "0123456789");
        assert!(original.again().is_none(), "now it was read, and is larger than the limit");
    }

    #[tokio::test]
    async fn a_body_that_drips_in_is_not_kept_for_ever() {
        for (chunks, kept) in [(MAX_CHUNKS, true), (MAX_CHUNKS + 1, false)] {
            let (caller, request, original) = request(64 * 1024);
            (0..chunks).for_each(|_| send(&caller, "x"));
            drop(caller);
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), chunks);
            assert_eq!((original.is_kept(), original.kept().chunks.is_empty()), (kept, !kept));
        }
    }

    #[tokio::test]
    async fn one_that_was_sent_in_part_goes_on_where_the_first_stopped_and_the_first_gets_no_more() {
        let (caller, request, original) = request(100);
        let mut first = request.into_body();
        send(&caller, "one");
        assert_eq!(next(&mut first).await.unwrap(), "one");
        let waiting = tokio::spawn(async move { first.frame().await.unwrap().is_err() });
        yield_now().await;

        let mut again = original.again().unwrap().into_body();
        assert!(waiting.await.unwrap(), "it must be told, or it would wait for ever");
        send(&caller, "two");
        drop(caller);
        assert_eq!(next(&mut again).await.unwrap(), "one");
        assert_eq!(next(&mut again).await.unwrap(), "two");
        assert!(next(&mut again).await.is_none() && again.is_end_stream());
    }

    #[tokio::test]
    async fn g04_a_body_that_broke_off_is_not_sent_again_as_a_whole_one() {
        let (caller, request, original) = request(100);
        send(&caller, "one");
        caller.send(Err(io::ErrorKind::UnexpectedEof.into())).unwrap();
        drop(caller);
        assert!(request.into_body().collect().await.is_err());
        assert!(original.again().is_none());
    }
}
