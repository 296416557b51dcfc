//! A request body that is kept while it streams, so that it can be sent once more.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// What was kept of a body, shared between the body and whoever may send it again.
#[derive(Clone, Debug)]
pub(super) struct Kept(Arc<Mutex<Tee>>);

#[derive(Debug)]
struct Tee {
    chunks: VecDeque<Bytes>,
    /// What may still be kept; `None` once the body was larger.
    room: Option<usize>,
    /// Whether the body was seen to its end.
    whole: bool,
}

impl Kept {
    /// The body, if all of it was seen and kept.
    pub(super) fn take(&self) -> Option<VecDeque<Bytes>> {
        let mut tee = self.lock();
        (tee.whole && tee.room.is_some()).then(|| std::mem::take(&mut tee.chunks))
    }

    fn keep(&self, chunk: &Bytes) {
        let mut tee = self.lock();
        tee.room = tee.room.and_then(|room| room.checked_sub(chunk.len()));
        if tee.room.is_some() {
            tee.chunks.push_back(chunk.clone());
        } else {
            tee.chunks = VecDeque::new();
        }
    }

    fn ended(&self) {
        self.lock().whole = true;
    }

    fn lock(&self) -> MutexGuard<'_, Tee> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request body on its first way, or on its second.
#[derive(Debug)]
pub(in crate::proxy) struct ReplayBody<B>(Source<B>);

#[derive(Debug)]
enum Source<B> {
    First { inner: B, kept: Kept },
    Again(VecDeque<Bytes>),
}

impl<B: Body<Data = Bytes>> ReplayBody<B> {
    /// `inner`, of which up to `room` bytes are kept.
    pub(super) fn first(inner: B, room: usize) -> (Self, Kept) {
        let whole = inner.is_end_stream();
        let kept = Kept(Arc::new(Mutex::new(Tee { chunks: VecDeque::new(), room: Some(room), whole })));
        (Self(Source::First { inner, kept: kept.clone() }), kept)
    }

    /// What was kept.
    pub(super) fn again(chunks: VecDeque<Bytes>) -> Self {
        Self(Source::Again(chunks))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.0 {
            Source::Again(chunks) => Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk)))),
            Source::First { inner, kept } => {
                let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|chunk| kept.keep(chunk)),
                    Some(Err(_)) => {}
                    None => kept.ended(),
                }
                if inner.is_end_stream() {
                    kept.ended();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::First { inner, .. } => inner.is_end_stream(),
            Source::Again(chunks) => chunks.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::First { inner, .. } => inner.size_hint(),
            Source::Again(chunks) => SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    async fn pass(length: usize, room: usize) -> Option<usize> {
        let sent = Bytes::from(vec![7; length]);
        let (body, kept) = ReplayBody::first(Full::new(sent.clone()), room);
        assert!(length == 0 || kept.take().is_none(), "not before it was seen to its end");
        assert_eq!(body.collect().await.unwrap().to_bytes(), sent);
        let again = ReplayBody::<Full<Bytes>>::again(kept.take()?);
        assert_eq!(again.size_hint().exact(), Some(length as u64));
        Some(again.collect().await.unwrap().to_bytes().len())
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_the_limit_and_no_further() {
        assert_eq!(pass(0, 0).await, Some(0));
        assert_eq!(pass(10, 10).await, Some(10));
        assert_eq!(pass(11, 10).await, None);
    }
}
