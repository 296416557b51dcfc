//! Adds `partnerId` to the bodies of Connect calls (`connect.fill_partner_id`), because callers do not know the identifier.
//!
//! The body of such a call is read to its end, edited by [`vendor::partner_id`](crate::vendor::partner_id), and buffered as a whole, so that
//! a resend sends the edited body. Every other request is wrapped in a `ReplayBuffer` and passes unchanged. So does a body that is
//! compressed, larger than `connect.body_bytes`, or not a JSON object.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tower::{Layer, Service};

use super::{
    config::{Config, ConnectConfig},
    error::{Code, Error},
    exchange::Exchange,
    record::Record,
    replay::{ReplayBody, ReplayBuffer},
};
use crate::{credentials::PartnerCredentials, message::fields, secret::Secret, vendor::partner_id};

#[derive(Clone, Debug)]
pub(super) struct PartnerIdLayer(Arc<PartnerIdFiller>);

#[derive(Debug)]
struct PartnerIdFiller {
    config: ConnectConfig,
    /// The partner credentials in use; they contain the identifier.
    partner: watch::Receiver<Option<PartnerCredentials>>,
    /// How many bytes of a request body are buffered for a resend.
    replay_buffer: usize,
}

impl PartnerIdLayer {
    pub(super) fn new(config: &Config, partner: watch::Receiver<Option<PartnerCredentials>>) -> Self {
        let (config, replay_buffer) = (config.connect.clone(), config.replay_buffer);
        Self(Arc::new(PartnerIdFiller { config, partner, replay_buffer }))
    }
}

impl PartnerIdFiller {
    /// The identifier to add to the body of `exchange`, if that body may be edited.
    fn id_for<B: Body>(&self, Exchange { request, record }: &Exchange<B>) -> Option<Secret<String>> {
        if !record.operation().takes_partner_id() || !self.config.fill_partner_id {
            return None;
        }
        let body_bytes = self.config.body_bytes as u64;
        let may_be_edited = is_uncompressed(request.headers())
            && !request.body().is_end_stream()
            && request.body().size_hint().lower() <= body_bytes;
        may_be_edited.then(|| self.id()).flatten()
    }

    fn id(&self) -> Option<Secret<String>> {
        let partner = self.partner.borrow();
        partner.as_ref().map(|partner| &partner.id).or(self.config.partner_id.as_ref()).cloned()
    }
}

/// Whether `headers` name no content coding other than `identity`.
fn is_uncompressed(headers: &HeaderMap) -> bool {
    fields::list(headers, &header::CONTENT_ENCODING).all(|coding| coding.eq_ignore_ascii_case(b"identity"))
}

impl<S> Layer<S> for PartnerIdLayer {
    type Service = FillPartnerId<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FillPartnerId { inner, filler: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct FillPartnerId<S> {
    inner: S,
    filler: Arc<PartnerIdFiller>,
}

impl<S, B> Service<Exchange<B>> for FillPartnerId<S>
where
    S: Service<Exchange<ReplayBody<B>>, Error = Error> + Clone,
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin + Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = FillPartnerIdFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let PartnerIdFiller { replay_buffer, config, .. } = &*self.filler;
        let Some(id) = self.filler.id_for(&exchange) else {
            let request = ReplayBuffer::wrap(exchange.request, Bytes::new(), *replay_buffer);
            return FillPartnerIdFuture::Calling {
                inner: self.inner.call(Exchange { request, record: exchange.record }),
            };
        };
        // `poll_ready` reserved this instance, so call it and leave the clone in its place.
        let clone = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, clone);
        let filling = Box::pin(fill(exchange, id, config.body_bytes, *replay_buffer));
        FillPartnerIdFuture::Filling { filling, service: Some(Box::new(service)) }
    }
}

type Filling<B> = Pin<Box<dyn Future<Output = Result<Exchange<ReplayBody<B>>, Error>> + Send>>;

pin_project! {
    #[project = FillPartnerIdProjection]
    pub(super) enum FillPartnerIdFuture<S, B, F> {
        // Boxed, so that the future of every other request stays small.
        Filling { filling: Filling<B>, service: Option<Box<S>> },
        Calling { #[pin] inner: F },
    }
}

impl<S, B> Future for FillPartnerIdFuture<S, B, S::Future>
where
    S: Service<Exchange<ReplayBody<B>>, Error = Error>,
{
    type Output = Result<S::Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let inner = match self.as_mut().project() {
                FillPartnerIdProjection::Calling { inner } => return inner.poll(cx),
                FillPartnerIdProjection::Filling { filling, service } => {
                    let exchange = ready!(filling.as_mut().poll(cx));
                    let mut service = service.take().expect("polled after it was ready");
                    service.call(exchange?)
                }
            };
            self.set(Self::Calling { inner });
        }
    }
}

/// Reads up to `body_bytes` of the body of `exchange`. If that is the whole body and it can be edited, adds the member `partnerId` with the
/// value `id`. Buffers what was read. Changes `Content-Length`, and nothing else of the request.
///
/// # Errors
///
/// If the body does not arrive.
async fn fill<B>(
    exchange: Exchange<B>,
    id: Secret<String>,
    body_bytes: usize,
    replay_buffer: usize,
) -> Result<Exchange<ReplayBody<B>>, Error>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
{
    let Exchange { request, record } = exchange;
    let (mut head, mut body) = request.into_parts();
    let (mut read, is_whole) = read_body(&mut body, body_bytes, &record).await?;
    if is_whole
        && read.len() <= body_bytes
        && let Some(edited) = partner_id::inserted(&read, id.expose())
    {
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(edited.len()));
        }
        read = Bytes::from(edited);
    }
    let request = ReplayBuffer::wrap(Request::from_parts(head, body), read, replay_buffer);
    Ok(Exchange { request, record })
}

/// Reads `body` to its end, or until more than `limit` bytes were read. Returns the bytes, and whether the end was reached.
async fn read_body<B>(body: &mut B, limit: usize, record: &Record) -> Result<(Bytes, bool), Error>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
{
    // Copied into one buffer, because each chunk keeps the whole read buffer behind it alive.
    let mut read = BytesMut::new();
    record.set_waiting_for_caller(true);
    let is_whole = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                record.set_request_progress();
            }
            Some(Err(error)) => {
                let limited = record.request_body_error().map(Error::from);
                let error_response =
                    limited.unwrap_or_else(|| Error::new(Code::BadRequest, "The request body is incomplete."));
                return Err(error_response.with_source(error));
            }
            None => break true,
        }
        if read.len() > limit {
            break false;
        }
    };
    record.set_waiting_for_caller(false);
    Ok((read.freeze(), is_whole))
}

#[cfg(test)]
mod tests;
