//! Sends the body of a request into its stream, within flow control.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::error_chain::BodyError;

/// Sends the rest of a request. Ready when all of it is sent, or the stream is closed; the response says why then. Fails when the body
/// fails; its stream is reset then, so that the server does not take it for complete.
pub(super) struct SendBody<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Data that waits for flow-control capacity, and whether it is the last.
    pending: Option<(Bytes, bool)>,
}

impl<B> SendBody<B> {
    /// `body`, into `stream`.
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
            // Whatever is waited for, a stream that was reset ends it.
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
                        // One byte, not all: what a stream claims, no other stream of the connection gets. h2 asks for the rest itself.
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
                // For nothing no leave is needed, and none would come. It fails when the stream has ended already.
                let _ = this.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(()));
            }
        }
    }
}
