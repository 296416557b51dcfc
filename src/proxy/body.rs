//! The request and response bodies that stream through the proxy, with progress tracking and an idle timeout.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep},
};

use super::record::Record;
use crate::{error_chain::BodyError, upstream::UpstreamBody};

/// The response body made no progress within the idle timeout.
#[derive(Debug, thiserror::Error)]
#[error("the upstream sent no more of the body for {0:?}")]
pub(super) struct Stalled(Duration);

/// A request body that records its progress. Drops trailers, because they could carry a credential past the header rules.
#[derive(Debug)]
pub struct ProgressBody<B = Incoming> {
    inner: B,
    record: Arc<Record>,
}

impl<B: Body> ProgressBody<B> {
    /// Records the progress of `inner` in `record`.
    pub fn new(inner: B, record: Arc<Record>) -> Self {
        if inner.is_end_stream() {
            record.set_request_complete();
        }
        Self { inner, record }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ProgressBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        this.record.set_waiting_for_caller(polled.is_pending());
        let frame = match ready!(polled) {
            Some(Ok(frame)) if frame.is_trailers() => None,
            other => other,
        };
        match &frame {
            Some(Ok(frame)) => this.record.add_request_bytes(frame.data_ref().map_or(0, |data| data.len() as u64)),
            Some(Err(_)) => {}
            None => this.record.set_request_complete(),
        }
        if this.inner.is_end_stream() {
            this.record.set_request_complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body: the upstream's, or a proxy-generated one.
#[derive(Debug)]
pub struct ResponseBody {
    source: BodySource,
    /// The permit of the request in flight, held until the body is dropped.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum BodySource {
    Upstream {
        body: UpstreamBody,
        idle_timeout: Duration,
        record: Arc<Record>,
        /// Created on the first wait; most bodies never wait.
        timer: Option<Pin<Box<Sleep>>>,
    },
    Full(Full<Bytes>),
    /// The part of an upstream body that was already read, and what follows it.
    Prefixed {
        prefix: Bytes,
        remainder: Remainder,
    },
}

/// What follows the part of a body that was read.
#[derive(Debug)]
pub(super) enum Remainder {
    /// The end of the body.
    End,
    /// More of the body, which was not read.
    More(Box<ResponseBody>),
    /// The failure of the body.
    Failed(BodyError),
}

impl ResponseBody {
    /// The upstream's `body`. It fails if neither it nor the request body makes progress for `idle_timeout`.
    pub(super) fn upstream(body: UpstreamBody, idle_timeout: Duration, record: Arc<Record>) -> Self {
        Self::new(BodySource::Upstream { body, idle_timeout, record, timer: None })
    }

    /// A body that consists of `prefix`, which was already read, and `remainder`.
    pub(super) fn prefixed(prefix: Bytes, remainder: Remainder) -> Self {
        Self::new(BodySource::Prefixed { prefix, remainder })
    }

    /// A proxy-generated body.
    pub fn full(body: impl Into<Bytes>) -> Self {
        Self::new(BodySource::Full(Full::new(body.into())))
    }

    /// Makes the body hold `permit` until it is dropped.
    #[must_use]
    pub(super) fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: Some(permit), ..self }
    }

    fn new(source: BodySource) -> Self {
        Self { source, _permit: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            BodySource::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            BodySource::Prefixed { prefix, .. } if !prefix.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(prefix)))))
            }
            BodySource::Prefixed { remainder, .. } => match std::mem::replace(remainder, Remainder::End) {
                Remainder::End => Poll::Ready(None),
                Remainder::Failed(error) => Poll::Ready(Some(Err(error))),
                Remainder::More(mut body) => {
                    let frame = Pin::new(&mut *body).poll_frame(cx);
                    *remainder = Remainder::More(body);
                    frame
                }
            },
            BodySource::Upstream { body, idle_timeout, record, timer } => match body.poll_data(cx) {
                Poll::Ready(part) => {
                    if let Some(timer) = timer {
                        timer.as_mut().reset(Instant::now() + *idle_timeout);
                    }
                    Poll::Ready(part.map(|part| part.map(Frame::data)))
                }
                Poll::Pending => {
                    let timer = timer.get_or_insert_with(|| Box::pin(sleep(*idle_timeout)));
                    loop {
                        ready!(timer.as_mut().poll(cx));
                        let deadline = record.last_request_progress() + *idle_timeout;
                        if deadline <= Instant::now() {
                            return Poll::Ready(Some(Err(Stalled(*idle_timeout).into())));
                        }
                        timer.as_mut().reset(deadline);
                    }
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Upstream { body, .. } => body.is_end_stream(),
            BodySource::Full(body) => body.is_end_stream(),
            BodySource::Prefixed { prefix, remainder } => prefix.is_empty() && matches!(remainder, Remainder::End),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Upstream { body, .. } => body.size_hint(),
            BodySource::Full(body) => body.size_hint(),
            BodySource::Prefixed { prefix, remainder: Remainder::End } => SizeHint::with_exact(prefix.len() as u64),
            BodySource::Prefixed { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn e13_a_request_body_is_counted_and_its_trailers_dropped() {
        let record = Arc::new(Record::new(Method::POST, None));
        let sent = Full::new(Bytes::from("abcde")).with_trailers(std::future::ready(Some(Ok(HeaderMap::new()))));
        let body = ProgressBody::new(sent, Arc::clone(&record));
        assert!(!record.is_request_complete());
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(collected.to_bytes(), "abcde");
        assert_eq!(record.request_bytes(), 5);
        assert!(record.is_request_complete());
    }

    #[test]
    fn an_empty_body_is_complete_immediately() {
        let record = Arc::new(Record::new(Method::GET, None));
        ProgressBody::new(Full::new(Bytes::new()), Arc::clone(&record));
        assert!(record.is_request_complete());
    }
}
