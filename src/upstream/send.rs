//! Sends a request on its connection.

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
    pool::{ExclusiveConnection, MultiplexedConnection},
};
use crate::{error_chain::BodyError, telemetry::CloseReason, upstream::Disposition};

/// A request without a response.
#[derive(Debug)]
pub(crate) struct UnansweredRequest {
    pub(crate) error: RequestError,
    /// Whether the upstream can have processed the request, if known.
    pub(crate) disposition: Option<Disposition>,
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Http1(http1::Error),
    #[error(transparent)]
    Http2(http2::Error),
}

impl RequestError {
    /// Whether the error is in the request body, which comes from downstream.
    pub(crate) fn is_downstream(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_downstream(),
            Self::Http2(error) => error.is_downstream(),
        }
    }

    /// Whether the upstream violated the HTTP protocol.
    pub(crate) fn is_protocol(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_protocol(),
            Self::Http2(error) => error.is_protocol(),
        }
    }
}

impl UnansweredRequest {
    /// Whether the upstream certainly did not execute the request.
    pub(crate) fn is_unexecuted(&self) -> bool {
        self.disposition.is_some_and(Disposition::is_unexecuted)
    }
}

/// A request over HTTP/1.1, the only one on its connection. Completes with the head of the response.
///
/// # Cancel safety
///
/// Dropping it closes the connection.
pub(crate) struct Http1Request<C: Connect, B> {
    /// `None` once completed. `AwaitingResponse` is dropped first, so that the close reason is set before the connection closes.
    in_flight: Option<(AwaitingResponse, Box<ExclusiveConnection<C, B>>)>,
    reused: bool,
}

impl<C, B> Http1Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Starts the request with `head` and `body` on `exclusive`; polling sends it. `reused`: the connection has served a request before.
    pub(crate) fn begin(mut exclusive: Box<ExclusiveConnection<C, B>>, head: &Parts, body: B, reused: bool) -> Self {
        let awaiting = exclusive.connection_metrics().await_response();
        exclusive.http1.begin(head, body);
        Self { in_flight: Some((awaiting, exclusive)), reused }
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
        let (_, exclusive) = self.in_flight.as_mut().expect("polled after completion");
        let response = ready!(exclusive.http1.poll_response(cx));
        let (awaiting, exclusive) = self.in_flight.take().expect("it was present above");
        awaiting.received();
        Poll::Ready(match response {
            Ok(head) => {
                let is_early = exclusive.http1.is_uploading() && !exclusive.http1.is_response_buffered();
                let body = if is_early {
                    UpstreamBody::background(BackgroundBody::new(exclusive))
                } else {
                    UpstreamBody::http1(exclusive)
                };
                Ok(head.map(|()| body))
            }
            Err(error) => {
                exclusive.record_failure(&error);
                Err(UnansweredRequest {
                    disposition: exclusive.http1.disposition(&error, self.reused),
                    error: RequestError::Http1(error),
                })
            }
        })
    }
}

/// A request over HTTP/2, on a connection shared with others. Completes with the head of the response.
///
/// # Cancel safety
///
/// Dropping it cancels the request: its stream is reset.
pub(crate) struct Http2Request<C: Connect, B> {
    response_future: http2::Http2ResponseFuture<B>,
    /// `None` once completed: then the response holds it, so that a request is counted once.
    multiplexed: Option<Arc<MultiplexedConnection<C, B>>>,
}

impl<C, B> Http2Request<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// Starts `request` on `multiplexed`. `reused`: the connection has served a request before.
    pub(crate) fn begin(multiplexed: Arc<MultiplexedConnection<C, B>>, request: Request<B>, reused: bool) -> Self {
        Self { response_future: multiplexed.http2.send(request, reused), multiplexed: Some(multiplexed) }
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
        let response = ready!(Pin::new(&mut self.response_future).poll(cx));
        let multiplexed = self.multiplexed.take().expect("polled after completion");
        Poll::Ready(match response {
            Ok(response) => Ok(response.map(|body| UpstreamBody::http2(body, multiplexed))),
            Err(http2::Http2Failure { error, disposition, is_connection_error }) => {
                if is_connection_error {
                    // For other errors, the connection's task sets the close reason.
                    if matches!(error, http2::Error::Invalid(_)) {
                        multiplexed.http2.connection_metrics().set_close_reason(CloseReason::Failed);
                    }
                    multiplexed.evict();
                }
                Err(UnansweredRequest { error: RequestError::Http2(error), disposition })
            }
        })
    }
}
