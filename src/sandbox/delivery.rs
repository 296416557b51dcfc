//! Webhook delivery.

use std::{sync::Arc, time::Duration};

use base16ct::HexDisplay;
use ring::hmac;
use rustls::RootCertStore;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::reply::Webhook;
use super::value::{Record as _, json};

/// Timeout of one delivery.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Capacity of the background queue; further notifications are dropped.
const QUEUE_CAPACITY: usize = 1000;

/// The header with the signature.
const SIGNATURE: &str = "x-finicity-signature";

/// The HTTP client, and the queue of the background task.
#[derive(Debug)]
pub(super) struct Delivery {
    client: reqwest::Client,
    queue: mpsc::Sender<Webhook>,
    _task: AbortOnDropHandle<()>,
}

impl Delivery {
    /// Starts the background task on the current runtime. HTTPS receivers need a certificate signed by a public CA or by one of `roots`.
    ///
    /// # Panics
    ///
    /// Never in practice: ring supports the default TLS versions.
    #[inline(never)]
    pub(super) fn start(roots: &[rustls::pki_types::CertificateDer<'static>]) -> Self {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        store.add_parsable_certificates(roots.iter().cloned());
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring offers TLS 1.2 and 1.3")
            .with_root_certificates(store)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .user_agent(concat!("finicity-proxy-sandbox/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("the TLS configuration is complete");
        let (queue, mut waiting) = mpsc::channel::<Webhook>(QUEUE_CAPACITY);
        let background = client.clone();
        #[expect(clippy::disallowed_methods, reason = "aborted when the sandbox is dropped")]
        let task = tokio::spawn(async move {
            while let Some(webhook) = waiting.recv().await {
                let _ = post(&background, &webhook).await;
            }
        });
        Self { client, queue, _task: AbortOnDropHandle::new(task) }
    }

    /// Sends `webhook`.
    ///
    /// # Errors
    ///
    /// Why the receiver did not respond with a 2xx status.
    pub(super) async fn send(&self, webhook: &Webhook) -> Result<u16, String> {
        let status = post(&self.client, webhook).await.map_err(|error| crate::error_chain::one_line(&error))?;
        if (200..300).contains(&status) {
            Ok(status)
        } else {
            Err(format!("the receiver responded with status {status}"))
        }
    }

    /// Sends `webhooks` in order; returns the type of each event with the status of the response or the error.
    pub(super) async fn send_all(&self, webhooks: &[Webhook]) -> Vec<Value> {
        let mut results = Vec::new();
        for webhook in webhooks {
            let event = webhook.body.at("eventType").copy();
            results.push(match self.send(webhook).await {
                Ok(status) => json!({"eventType": event, "status": status}),
                Err(error) => json!({"eventType": event, "error": error}),
            });
        }
        results
    }

    /// Sends `webhooks` in the background.
    pub(super) fn enqueue(&self, webhooks: Vec<Webhook>) {
        for webhook in webhooks {
            let _ = self.queue.try_send(webhook);
        }
    }

    /// The body of the response to `GET url`; `None` unless the status is 200.
    pub(super) async fn fetch(&self, url: &str) -> Option<String> {
        let response = self.client.get(url).send().await.ok()?;
        if response.status() == 200 { response.text().await.ok() } else { None }
    }
}

async fn post(client: &reqwest::Client, webhook: &Webhook) -> Result<u16, reqwest::Error> {
    let body = webhook.body.to_string();
    let mut request = client.post(&webhook.url).header("content-type", "application/json");
    for (name, value) in &webhook.headers {
        request = request.header(name, value);
    }
    if let Some(secret) = &webhook.secret {
        request = request.header(SIGNATURE, signature(secret, body.as_bytes()));
    }
    Ok(request.body(body).send().await?.status().as_u16())
}

/// The HMAC-SHA256 of `body` with the key `secret`, in lower-case hexadecimal.
pub(super) fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{:x}", HexDisplay(hmac::sign(&key, body).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_the_raw_body() {
        let expected = "04e3c12fafc2e888688d4ea0481553998fa7104872005b74e5d760862272019a";
        assert_eq!(signature("aqJ5Ic4SEVx2IgDQ6oR4", br#"{"eventType":"ping","payload":{}}"#), expected);
    }
}
