//! A request on its stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use http::Response;
use http_body::Body;

use super::{Error, RecvBody, send_body::SendBody};
use crate::{error_chain::BodyError, upstream::Disposition};

/// A request that brought no answer.
#[derive(Debug)]
pub(in crate::upstream) struct Failure {
    pub(in crate::upstream) error: Error,
    /// What is known to have become of it, if anything is.
    pub(in crate::upstream) disposition: Option<Disposition>,
    /// Whether the connection takes no further requests, and not only failed this one.
    pub(in crate::upstream) ended: bool,
}

/// A request that is under way, until the head of its answer has come.
///
/// # Cancel safety
///
/// Dropping it cancels the request: its stream is reset.
pub(in crate::upstream) struct Http2ResponseFuture<B> {
    /// What is to come, or why the request could not be sent.
    answer: Result<ResponseFuture, Option<h2::Error>>,
    /// What is left to be sent; most requests have nothing.
    upload: Option<Box<SendBody<B>>>,
    reused: bool,
}

impl<B> Http2ResponseFuture<B> {
    /// `sent` is what h2 makes of the head of a request with `body`, of which is left what has not ended already. `reused` says whether the
    /// connection has served before.
    pub(super) fn new(sent: Result<(ResponseFuture, SendStream<Bytes>), h2::Error>, body: B, reused: bool) -> Self
    where
        B: Body<Data = Bytes>,
    {
        match sent {
            Ok((answer, stream)) => {
                let upload = (!body.is_end_stream()).then(|| Box::new(SendBody::new(stream, body)));
                Self { answer: Ok(answer), upload, reused }
            }
            Err(error) => Self { answer: Err(Some(error)), upload: None, reused },
        }
    }
}

impl<B> Future for Http2ResponseFuture<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Output = Result<Response<RecvBody>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answer, upload, reused } = &mut *self;
        let failed = |error: Error, disposition| Failure { ended: error.ends_the_connection(), error, disposition };
        let answer = match answer {
            Ok(answer) => answer,
            Err(unsent) => {
                let error = unsent.take().expect("polled after it was ready");
                return Poll::Ready(Err(failed(error.into(), Some(Disposition::NotSent { reused: *reused }))));
            }
        };
        if let Poll::Ready(answer) = Pin::new(answer).poll(cx) {
            return Poll::Ready(match answer {
                Ok(answer) => {
                    if let Some(upload) = upload.take() {
                        // An answer that begins before all of its request has been sent; a caller may send all before it reads.
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "a task of the worker's runtime; it ends with its stream"
                        )]
                        tokio::spawn(upload);
                    }
                    Ok(RecvBody::split(answer))
                }
                Err(error) => {
                    let error = Error::from(error);
                    let disposition = error.disposition(*reused);
                    Err(failed(error, disposition))
                }
            });
        }
        if let Some(sending) = upload {
            let sent = ready!(Pin::new(sending).poll(cx));
            *upload = None;
            if let Err(error) = sent {
                return Poll::Ready(Err(failed(Error::Body(error), None)));
            }
        }
        Poll::Pending
    }
}
