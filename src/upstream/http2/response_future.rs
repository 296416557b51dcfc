//! A request in flight on its stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use http::{HeaderMap, Response};
use http_body::Body;

use super::{Error, INTERIM_LIMIT, RecvBody, send_body::SendBody};
use crate::{error_chain::BodyError, upstream::Disposition};

/// A request without a response.
#[derive(Debug)]
pub(in crate::upstream) struct Http2Failure {
    pub(in crate::upstream) error: Error,
    /// Whether the upstream can have processed the request, if known.
    pub(in crate::upstream) disposition: Option<Disposition>,
    /// Whether this is a connection error, after which the connection takes no further requests, and not a stream error.
    pub(in crate::upstream) is_connection_error: bool,
}

/// A request in flight. Completes with the head of the response.
///
/// # Cancel safety
///
/// Dropping it cancels the request: its stream is reset.
pub(in crate::upstream) struct Http2ResponseFuture<B> {
    /// The response, or why the request could not be sent.
    response: Result<ResponseFuture, Option<h2::Error>>,
    /// Sends the rest of the request. Most requests have none.
    send_body: Option<Box<SendBody<B>>>,
    /// The number of bytes of informational responses before the response.
    interim_bytes: usize,
    reused: bool,
}

impl<B> Http2ResponseFuture<B> {
    /// `sent` is h2's result for the head of a request with `body`. `reused`: the connection has served a request before.
    pub(super) fn new(sent: Result<(ResponseFuture, SendStream<Bytes>), h2::Error>, body: B, reused: bool) -> Self
    where
        B: Body<Data = Bytes>,
    {
        match sent {
            Ok((response, stream)) => {
                let send_body = (!body.is_end_stream()).then(|| Box::new(SendBody::new(stream, body)));
                Self { response: Ok(response), send_body, interim_bytes: 0, reused }
            }
            Err(error) => Self { response: Err(Some(error)), send_body: None, interim_bytes: 0, reused },
        }
    }
}

impl<B> Future for Http2ResponseFuture<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Output = Result<Response<RecvBody>, Http2Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { response, send_body, interim_bytes, reused } = &mut *self;
        let failure = |error: Error, disposition| Http2Failure {
            is_connection_error: error.is_connection_error(),
            error,
            disposition,
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                let error = error.take().expect("polled after completion");
                return Poll::Ready(Err(failure(error.into(), Some(Disposition::NotSent { reused: *reused }))));
            }
        };
        if skip_interim(response, interim_bytes, cx).is_err() {
            return Poll::Ready(Err(failure(Error::Invalid("too many bytes of informational responses"), None)));
        }
        if let Poll::Ready(response) = Pin::new(response).poll(cx) {
            return Poll::Ready(match response {
                Ok(response) => {
                    if let Some(send_body) = send_body.take() {
                        // The response begins before the request has been fully sent. The client may read it only after its upload.
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "a task of the worker's runtime; it ends with its stream"
                        )]
                        tokio::spawn(send_body);
                    }
                    Ok(RecvBody::from_response(response))
                }
                Err(error) => {
                    let error = Error::from(error);
                    let disposition = error.disposition(*reused);
                    Err(failure(error, disposition))
                }
            });
        }
        if let Some(future) = send_body {
            let sent = ready!(Pin::new(future).poll(cx));
            *send_body = None;
            if let Err(error) = sent {
                return Poll::Ready(Err(failure(Error::Body(error), None)));
            }
        }
        Poll::Pending
    }
}

/// The informational responses exceed [`INTERIM_LIMIT`].
struct TooMuchInterim;

/// Drops the informational responses that have arrived, and adds their size to `interim_bytes`. h2 itself would skip any number of
/// them.
fn skip_interim(
    response: &mut ResponseFuture,
    interim_bytes: &mut usize,
    cx: &mut Context<'_>,
) -> Result<(), TooMuchInterim> {
    // Polling `response` itself reports errors and the end.
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        *interim_bytes += size(interim.headers());
        if *interim_bytes > INTERIM_LIMIT {
            return Err(TooMuchInterim);
        }
    }
    Ok(())
}

/// The size of a head with `fields` as encoded in HTTP/1.1.
fn size(fields: &HeaderMap) -> usize {
    const EMPTY_HEAD: &str = "HTTP/1.1 100 \r\n\r\n";
    EMPTY_HEAD.len() + fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}
