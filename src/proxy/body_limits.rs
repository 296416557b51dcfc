//! Limits the size of request bodies, and enforces a minimum rate.
//!
//! A body with a `Content-Length` above the limit is rejected unread. A body of unknown length fails at the limit: the upstream sees an
//! incomplete request, never a shortened one. A body also fails once its request has ended.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

pub(super) mod error;

use error::BodyLimitError;

use super::{
    error::{Code, Error},
    exchange::Exchange,
    record::Record,
};
use crate::{error_chain::BodyError, stall::StallTimer};

/// The limits of a request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The maximum size in bytes (`limits.body_bytes`).
    pub max_bytes: u64,
    /// The maximum time without progress, and the time before the minimum rate applies (`upstream.idle_timeout`).
    pub idle_timeout: Duration,
    /// The minimum average rate after that, in bytes a second (`limits.body_min_rate`).
    pub min_rate: u64,
}

impl From<BodyLimitError> for Error {
    fn from(error: BodyLimitError) -> Self {
        let error = match error {
            BodyLimitError::TooLarge { max_bytes } => {
                let detail = format!("The request body exceeds limits.body_bytes ({max_bytes} bytes).");
                Self::new(Code::BodyTooLarge, detail)
            }
            BodyLimitError::Incomplete | BodyLimitError::RequestFinished => {
                Self::new(Code::BadRequest, "The request body is incomplete.")
            }
            BodyLimitError::TooSlow => {
                Self::new(Code::RequestTimeout, "The request body stalled, or arrived too slowly.")
            }
        };
        error.closing_connection()
    }
}

/// Passes a request unless its `Content-Length` exceeds the limit.
///
/// # Errors
///
/// [`Code::BodyTooLarge`].
pub(super) fn check<B>(limits: BodyLimits, exchange: &mut Exchange<B>) -> Result<(), Error> {
    // The connection has checked that it is a single decimal number.
    let length = exchange.request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    let max_bytes = limits.max_bytes;
    if length.is_some_and(|length| length > max_bytes) {
        Err(BodyLimitError::TooLarge { max_bytes }.into())
    } else {
        Ok(())
    }
}

/// Wraps the request body to enforce `limits`.
pub(super) fn limit<B>(limits: BodyLimits, exchange: Exchange<B>) -> Exchange<LimitedBody<B>> {
    let Exchange { request, record } = exchange;
    let limited = |inner| LimitedBody {
        inner,
        limits,
        record: Arc::clone(&record),
        started: None,
        bytes: 0,
        stall: StallTimer::new(limits.idle_timeout),
    };
    Exchange { request: request.map(limited), record }
}

/// A request body that fails when it violates its limits.
#[derive(Debug)]
pub struct LimitedBody<B> {
    inner: B,
    limits: BodyLimits,
    record: Arc<Record>,
    /// When the body was first polled: time in the queue before that is not the caller's.
    started: Option<Instant>,
    bytes: u64,
    /// Armed while the caller sends nothing; most bodies arrive with the head and never arm it.
    stall: StallTimer,
}

impl<B> LimitedBody<B> {
    /// The deadline for the bytes so far.
    fn deadline(&self, started: Instant) -> Instant {
        let transfer_time =
            Duration::from_secs(self.bytes.checked_div(self.limits.min_rate).unwrap_or(u64::from(u32::MAX)));
        started + self.limits.idle_timeout + transfer_time
    }

    /// Fails the body with `error`, and records it, because the HTTP/2 client reports only that the request ended.
    fn fail(&self, error: BodyLimitError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.record.set_request_body_error(error);
        Poll::Ready(Some(Err(error.into())))
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let started = *this.started.get_or_insert_with(Instant::now);
        if this.record.is_finished() {
            return this.fail(BodyLimitError::RequestFinished);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            ready!(this.stall.poll_elapsed(cx));
            return this.fail(BodyLimitError::TooSlow);
        };
        this.stall.reset();
        if let Some(Err(_)) = &frame {
            this.record.set_request_body_error(BodyLimitError::Incomplete);
        }
        if let Some(Ok(frame)) = &frame {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if this.bytes > this.limits.max_bytes {
                return this.fail(BodyLimitError::TooLarge { max_bytes: this.limits.max_bytes });
            }
            if !this.inner.is_end_stream() && Instant::now() > this.deadline(started) {
                return this.fail(BodyLimitError::TooSlow);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Method, Request};
    use http_body_util::{BodyExt as _, channel::Channel};
    use tokio::time::sleep;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { max_bytes: 1000, idle_timeout: Duration::from_secs(60), min_rate: 10 };

    fn exchange<B>(length: Option<&str>, body: B) -> Exchange<B> {
        let mut request = Request::builder();
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        Exchange { request: request.body(body).unwrap(), record: Arc::new(Record::new(Method::POST, None)) }
    }

    /// The result, and the time in seconds, of a body that sends `(pause in seconds, bytes)` in turn.
    async fn outcome(pauses: &[(u64, usize)]) -> (Result<usize, BodyLimitError>, u64) {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let pauses = pauses.to_vec();
        let sending = tokio::spawn(async move {
            for (seconds, bytes) in pauses {
                sleep(Duration::from_secs(seconds)).await;
                if sender.send_data(Bytes::from(vec![0; bytes])).await.is_err() {
                    return;
                }
            }
        });
        let started = Instant::now();
        let body = limit(LIMITS, exchange(None, body)).request.into_body();
        let outcome = body.collect().await.map(|body| body.to_bytes().len());
        let outcome = outcome.map_err(|error| *error.downcast_ref::<BodyLimitError>().unwrap());
        sending.abort();
        (outcome, started.elapsed().as_secs())
    }

    #[test]
    fn i10_a_content_length_above_the_limit_is_rejected_unread() {
        for (length, code) in [
            (None, Ok(())),
            (Some("0"), Ok(())),
            (Some("1000"), Ok(())),
            (Some("1001"), Err(Code::BodyTooLarge)),
            (Some("18446744073709551615"), Err(Code::BodyTooLarge)),
        ] {
            assert_eq!(check(LIMITS, &mut exchange(length, ())).map_err(|error| error.code()), code, "{length:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn i10_a_body_of_unknown_length_fails_at_the_limit() {
        assert_eq!(outcome(&[(0, 600), (0, 400)]).await, (Ok(1000), 0));
        assert_eq!(outcome(&[(0, 600), (0, 401)]).await, (Err(BodyLimitError::TooLarge { max_bytes: 1000 }), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn i04_a_stalled_or_slow_body_fails() {
        assert_eq!(outcome(&[(59, 600), (0, 100)]).await, (Ok(700), 59));
        assert_eq!(outcome(&[(0, 600), (3600, 1)]).await, (Err(BodyLimitError::TooSlow), 60));
        // A byte a second: the rate does not apply in the first minute, and the 60 bytes in it extend the deadline by 6 s.
        assert_eq!(outcome(&[(1, 1); 100]).await, (Err(BodyLimitError::TooSlow), 67));
        assert_eq!(outcome(&[(1, 10); 99]).await, (Ok(990), 99));
    }
}
