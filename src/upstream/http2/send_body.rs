//! Sends the body of a request to its stream, within flow control.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::error_chain::BodyError;

/// Sends the rest of a request. Ready when all of it has been sent, or the stream is closed; the response then reports the reason. Fails if
/// the body fails; the stream is then reset, so that the server does not treat the request as complete.
pub(super) struct SendBody<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Data waiting for flow-control capacity, and whether it is the last.
    pending: Option<(Bytes, bool)>,
}

impl<B> SendBody<B> {
    /// Sends `body` to `stream`.
    pub(super) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, pending: None }
    }

    /// Waits for flow-control capacity. Ready with `false` once the stream is closed.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(false);
            }
        }
        Poll::Ready(true)
    }
}

impl<B> Future for SendBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Output = Result<(), BodyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            // A reset ends this future, whatever it waits for.
            if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if this.pending.is_some() && !ready!(this.poll_capacity(cx)) {
                return Poll::Ready(Ok(()));
            }
            if let Some((data, last)) = this.pending.take() {
                let result = this.stream.send_data(data, last);
                if last || result.is_err() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let is_last = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let last = this.body.is_end_stream();
                    if !data.is_empty() {
                        // One byte, not all: other streams of the connection cannot use reserved capacity. h2 requests the rest itself.
                        this.stream.reserve_capacity(1);
                        this.pending = Some((data, last));
                        continue;
                    }
                    last
                }
                Some(Err(error)) => {
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error.into()));
                }
                None => true,
            };
            if is_last {
                // An empty frame needs no capacity, and reserving none would never complete. This fails if the stream has already ended.
                let _ = this.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(()));
            }
        }
    }
}
