//! One request on the connection that it got.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;

use super::{
    body::UpstreamBody,
    connect::Connect,
    early_response::BackgroundBody,
    http1, http2,
    lifecycle::AwaitingResponse,
    pool::{Exclusive, Shared},
};
use crate::{error_chain::BodyError, upstream::Disposition};

/// A request that brought no answer.
#[derive(Debug)]
pub(crate) struct UnansweredRequest {
    pub(crate) error: RequestError,
    /// What is known to have become of it, if anything is.
    pub(crate) disposition: Option<Disposition>,
}

/// What the connection says of a request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Http1(http1::Error),
    #[error(transparent)]
    Http2(http2::Error),
}

impl RequestError {
    /// Whether the caller is at fault.
    pub(crate) fn is_of_the_caller(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_of_the_caller(),
            Self::Http2(error) => error.is_of_the_caller(),
        }
    }

    /// Whether the upstream said something that is no HTTP.
    pub(crate) fn is_of_the_protocol(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_of_the_protocol(),
            Self::Http2(error) => error.is_of_the_protocol(),
        }
    }
}

impl UnansweredRequest {
    /// Whether the upstream certainly did nothing with it.
    pub(crate) fn is_unexecuted(&self) -> bool {
        self.disposition.is_some_and(Disposition::is_unexecuted)
    }
}

/// A request over HTTP/1.1, which has its connection for itself, until the head of its answer has come.
///
/// # Cancel safety
///
/// Dropping it closes the connection.
pub(crate) struct Http1Request<C: Connect, B> {
    /// Until it is ready. That the request is given up has to be known before the connection closes, so it is dropped first.
    under_way: Option<(AwaitingResponse, Box<Exclusive<C, B>>)>,
    reused: bool,
}

impl<C, B> Http1Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The request with `head` and `body` on `own`, of which `reused` says whether it has served before. It is sent when it is polled.
    pub(crate) fn begin(mut own: Box<Exclusive<C, B>>, head: &Parts, body: B, reused: bool) -> Self {
        let pending = own.life().pending();
        own.line.begin(head, body);
        Self { under_way: Some((pending, own)), reused }
    }
}

impl<C, B> Future for Http1Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = Result<Response<UpstreamBody>, UnansweredRequest>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (_, own) = self.under_way.as_mut().expect("polled after it was ready");
        let answer = ready!(own.line.poll_answer(cx));
        let (pending, own) = self.under_way.take().expect("it was there");
        pending.ended();
        Poll::Ready(match answer {
            Ok(head) => {
                let goes_on = own.line.is_uploading() && !own.line.is_answer_here();
                let body =
                    if goes_on { UpstreamBody::detached(BackgroundBody::new(own)) } else { UpstreamBody::http1(own) };
                Ok(head.map(|()| body))
            }
            Err(error) => {
                own.note(&error);
                Err(UnansweredRequest {
                    disposition: own.line.disposition(&error, self.reused),
                    error: RequestError::Http1(error),
                })
            }
        })
    }
}

/// A request over HTTP/2, beside others, until the head of its answer has come.
///
/// # Cancel safety
///
/// Dropping it cancels the request: its stream is reset.
pub(crate) struct Http2Request<C: Connect, B> {
    in_flight: http2::Http2ResponseFuture<B>,
    /// Until it is ready: then the answer holds it, and a request counts once among those on the connection.
    shared: Option<Arc<Shared<C, B>>>,
}

impl<C, B> Http2Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// `request` on `shared`, of which `reused` says whether it has served before.
    pub(crate) fn begin(shared: Arc<Shared<C, B>>, request: Request<B>, reused: bool) -> Self {
        Self { in_flight: shared.connection.send(request, reused), shared: Some(shared) }
    }
}

impl<C, B> Future for Http2Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Output = Result<Response<UpstreamBody>, UnansweredRequest>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.in_flight).poll(cx));
        let shared = self.shared.take().expect("polled after it was ready");
        Poll::Ready(match answer {
            Ok(answer) => Ok(answer.map(|body| UpstreamBody::http2(body, shared))),
            Err(http2::Failure { error, disposition, ended }) => {
                if ended {
                    shared.forget();
                }
                Err(UnansweredRequest { error: RequestError::Http2(error), disposition })
            }
        })
    }
}
