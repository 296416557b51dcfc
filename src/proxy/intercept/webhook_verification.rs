//! Verifies a webhook for a service that receives webhooks itself and does not hold the signing secret.
//!
//! The request has the webhook's body, byte for byte, and its signature in the original field. The body is not stored, and a webhook can be
//! verified any number of times.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::{
    proxy::{
        body::{ProgressBody, ResponseBody},
        error::{Code, Error},
        exchange::{Exchange, ResponseResult},
        webhook::{SharedSigningKeys, WebhookConfig},
    },
    vendor::webhook::{Signature, Verifier},
};

/// The time for the body to arrive. Clients send it together with the head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks whether webhooks are genuine.
#[derive(Debug)]
pub(super) struct WebhookVerification {
    keys: SharedSigningKeys,
    signature_header: HeaderName,
    body_bytes: usize,
}

impl WebhookVerification {
    pub(super) fn new(config: &WebhookConfig, keys: SharedSigningKeys) -> Self {
        Self { keys, signature_header: config.signature_header.clone(), body_bytes: config.body_bytes }
    }

    /// Responds with 200 and `{"genuine":true}` or `{"genuine":false}`.
    ///
    /// # Errors
    ///
    /// If there is no key, or the body is too large or does not arrive.
    pub(super) async fn respond<B>(&self, exchange: Exchange<B>) -> ResponseResult
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = exchange.request.into_parts();
        let Some(verifier) = self.keys.load().verifier(Instant::now()) else {
            let detail = "The proxy has no key to verify webhooks; the operator must set FINICITY_WEBHOOK_SECRET.";
            return Err(Error::new(Code::NotImplemented, detail));
        };
        let reading = self.read(ProgressBody::new(body, exchange.record), verifier);
        let verifier = timeout(BODY_TIMEOUT, reading).await.map_err(|_| {
            Error::new(Code::RequestTimeout, "The request body did not arrive in time.").closing_connection()
        })??;
        let signature = Signature::parse(&head.headers, &self.signature_header);
        let genuine = signature.is_some_and(|signature| verifier.is_genuine(&signature));
        let body = if genuine { r#"{"genuine":true}"# } else { r#"{"genuine":false}"# };
        let mut response = Response::new(ResponseBody::full(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Feeds `body` to `verifier` without storing it.
    async fn read<B>(&self, mut body: ProgressBody<B>, mut verifier: Verifier) -> Result<Verifier, Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut left = self.body_bytes;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Error::new(Code::BadRequest, "The request body is incomplete."))?;
            let Ok(data) = frame.into_data() else { continue };
            let Some(rest) = left.checked_sub(data.len()) else {
                let detail = format!("The webhook exceeds webhook.body_bytes ({} bytes).", self.body_bytes);
                return Err(Error::new(Code::BodyTooLarge, detail).closing_connection());
            };
            left = rest;
            verifier.update(&data);
        }
        Ok(verifier)
    }
}
