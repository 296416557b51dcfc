//! The body of a request on its way into its stream, as far as the server lets it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::error_chain::BodyError;

/// What is left to be sent of a request. Ready when that is nothing more: all was sent, or the server does not want it, which is told
/// with the answer. It fails when the body does; its stream is reset then, so that the server does not take it for whole.
pub(super) struct SendBody<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// A part that waits for the server's leave, and whether it is the last one.
    part: Option<(Bytes, bool)>,
}

impl<B> SendBody<B> {
    /// `body`, into `stream`.
    pub(super) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, part: None }
    }

    /// Waits for the server's leave to send more. Ready with whether it still may be sent.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
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
            if this.part.is_some() && !ready!(this.poll_leave(cx)) {
                return Poll::Ready(Ok(()));
            }
            if let Some((part, last)) = this.part.take() {
                let sent = this.stream.send_data(part, last);
                if last || sent.is_err() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let ended = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let last = this.body.is_end_stream();
                    if !data.is_empty() {
                        // One byte, not all: what a stream claims, no other stream of the connection gets. h2 asks for the rest itself.
                        this.stream.reserve_capacity(1);
                        this.part = Some((data, last));
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
            if ended {
                // For nothing no leave is needed, and none would come. It fails when the stream has ended already.
                let _ended = this.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(()));
            }
        }
    }
}
