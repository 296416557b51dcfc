//! `[webhook]`: the vendor's notifications.

use std::time::Duration;

use http::HeaderName;

use super::{super::reader::Reader, SECOND, auth::header_name};
use crate::{
    proxy::{ForwardTo, ForwardToError, WebhookConfig},
    server::Address,
};

/// The vendor's signature header, except in Australia.
const SIGNATURE: HeaderName = HeaderName::from_static("x-finicity-signature");

/// Maximum of `webhook.body_bytes`. Bodies up to that size are buffered.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The addresses that receive the vendor's notifications. None by default.
pub(super) fn listen(read: &mut Reader<'_>) -> Vec<Address> {
    read.optional_addresses("webhook.listen", false)
}

/// How notifications are verified, and where they are forwarded.
pub(super) fn webhook(read: &mut Reader<'_>, listen: &[Address]) -> WebhookConfig {
    let forward_to: Option<ForwardTo> =
        read.optional("webhook.forward_to", |text| text.parse().map_err(|error: ForwardToError| error.to_string()));
    if !listen.is_empty() && read.is_text("webhook.forward_to", "") {
        read.problem("webhook.forward_to", format!("{ForwardToError}, because webhook.listen is set"));
    }
    WebhookConfig {
        forward_to,
        signature_header: read.parsed("webhook.signature_header", header_name).unwrap_or(SIGNATURE),
        body_bytes: read.number("webhook.body_bytes", 1024..=MAX_BODY_BYTES),
        timeout: read.duration("webhook.timeout", Duration::from_millis(100)..=120 * SECOND),
        rate: read.number("webhook.rate", 1..=10_000),
    }
}
