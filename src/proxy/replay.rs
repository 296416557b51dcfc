//! A request as the caller sent it, kept while it goes its way, so that it can be sent once more.
//!
//! The head is copied. Of the body, the chunks are kept while they stream, up to a limit, at the cost of a reference to each;
//! and a body that nobody has begun to read comes back when it is dropped. One copy serves all who may send it again.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};

/// What was kept of a request.
pub(super) struct Original<B> {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Mutex<Kept<B>>,
}

struct Kept<B> {
    chunks: Vec<Bytes>,
    /// What may still be kept; `None` once the body was larger.
    room: Option<usize>,
    /// Whether the body was seen to its end.
    whole: bool,
    /// The body itself, when it was dropped before anyone had read of it.
    unread: Option<B>,
}

impl<B: Body<Data = Bytes>> Original<B> {
    /// Keeps what is needed of `request`, up to `room` bytes of its body, and gives it back as the one to send.
    pub(super) fn keep(request: Request<B>, room: usize) -> (Request<ReplayBody<B>>, Arc<Self>) {
        let (head, body) = request.into_parts();
        let whole = body.is_end_stream();
        let original = Arc::new(Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            body: Mutex::new(Kept { chunks: Vec::new(), room: Some(room), whole, unread: None }),
        });
        // An empty one need not come back: it is whole as it is.
        let source = Source::Caller { body: Some(body), untouched: !whole };
        (Request::from_parts(head, ReplayBody { source, original: Arc::clone(&original) }), original)
    }

    /// The request, to be sent again, if all of its body is there.
    pub(super) fn again(self: &Arc<Self>) -> Option<Request<ReplayBody<B>>> {
        let source = {
            let mut kept = self.kept();
            match kept.unread.take() {
                Some(body) => Source::Caller { body: Some(body), untouched: true },
                None if kept.whole && kept.room.is_some() => Source::Kept { next: 0 },
                None => return None,
            }
        };
        let mut request = Request::new(ReplayBody { source, original: Arc::clone(self) });
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

impl<B> Original<B> {
    fn kept(&self) -> MutexGuard<'_, Kept<B>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Kept<B> {
    fn keep(&mut self, chunk: &Bytes) {
        self.room = self.room.and_then(|room| room.checked_sub(chunk.len()));
        if self.room.is_some() {
            self.chunks.push(chunk.clone());
        } else {
            self.chunks = Vec::new();
        }
    }
}

/// Shows nothing of the request: it is a caller's.
impl<B> fmt::Debug for Original<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Original")
    }
}

/// A request body on its first way, or on a later one.
#[derive(Debug)]
pub(super) struct ReplayBody<B> {
    source: Source<B>,
    original: Arc<Original<B>>,
}

#[derive(Debug)]
enum Source<B> {
    /// The caller's body. It comes back when it is dropped `untouched`, and is there until then.
    Caller { body: Option<B>, untouched: bool },
    /// What was kept of it, from the chunk `next` on.
    Kept { next: usize },
}

impl<B> ReplayBody<B> {
    /// The request that this is the body of.
    pub(super) fn original(&self) -> Arc<Original<B>> {
        Arc::clone(&self.original)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        match &mut this.source {
            Source::Kept { next } => {
                let chunk = this.original.kept().chunks.get(*next).cloned();
                *next += 1;
                Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            Source::Caller { body, untouched } => {
                *untouched = false;
                let body = body.as_mut().expect("the body is there until it is dropped");
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                let mut kept = this.original.kept();
                match &frame {
                    Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|chunk| kept.keep(chunk)),
                    Some(Err(_)) => {}
                    None => kept.whole = true,
                }
                kept.whole |= body.is_end_stream();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Kept { next } => self.original.kept().chunks.len() <= *next,
            Source::Caller { body, .. } => body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Kept { next } => {
                let kept = self.original.kept();
                SizeHint::with_exact(kept.chunks.iter().skip(*next).map(|chunk| chunk.len() as u64).sum())
            }
            Source::Caller { body, .. } => body.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        if let Source::Caller { body, untouched: true } = &mut self.source {
            self.original.kept().unread = body.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn request(body: &'static [u8]) -> Request<Full<Bytes>> {
        Request::post("/a?b=c").header("x", "y").body(Full::new(Bytes::from_static(body))).unwrap()
    }

    /// Checks that `original` gives the request again, as often as it is asked, and takes it whole.
    async fn check_again(original: &Arc<Original<Full<Bytes>>>, body: &'static [u8]) {
        for _ in 0..2 {
            let again = original.again().unwrap();
            assert_eq!(
                (again.method(), again.uri(), &again.headers()["x"]),
                (&Method::POST, &Uri::from_static("/a?b=c"), &"y".parse().unwrap())
            );
            assert_eq!(again.body().size_hint().exact(), Some(body.len() as u64));
            assert_eq!(again.body().is_end_stream(), body.is_empty());
            assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }

    async fn pass(body: &'static [u8], room: usize) -> Arc<Original<Full<Bytes>>> {
        let (request, original) = Original::keep(request(body), room);
        assert!(body.is_empty() || original.again().is_none(), "not before it was seen to its end");
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), body);
        original
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_the_limit_and_no_further() {
        check_again(&pass(b"", 0).await, b"").await;
        check_again(&pass(b"0123456789", 10).await, b"0123456789").await;
        assert!(pass(b"0123456789", 9).await.again().is_none());
    }

    #[tokio::test]
    async fn a_body_that_nobody_has_begun_to_read_comes_back_whatever_its_size() {
        let (request, original) = Original::keep(request(b"0123456789"), 5);
        assert!(original.again().is_none(), "while it is under way");
        drop(request);
        let again = original.again().unwrap();
        assert_eq!(again.body().size_hint().exact(), Some(10));
        drop(again);
        let again = original.again().unwrap();
        assert!(original.again().is_none(), "it is one body, not two");
        assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "0123456789");
        assert!(original.again().is_none(), "it was larger than the limit");
    }

    #[tokio::test]
    async fn g04_a_body_that_somebody_has_begun_to_read_does_not_come_back() {
        let (request, original) = Original::keep(request(b"0123456789"), 5);
        let mut body = request.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        assert!(original.again().is_none());
    }
}
