//! Responds to a client's token request with a placeholder token, so that a client that authenticates itself works unchanged.
//!
//! The fields in which a client sends the placeholder are removed from every request, so the placeholder need not be recognised. The
//! request body may hold the client's old credentials: it is read to its end, to keep the connection reusable, and discarded. Only its
//! first byte is examined.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::token_format::{TokenFormat, first_significant};
use crate::{
    proxy::{
        body::{ProgressBody, ResponseBody},
        endpoints::ResponseShape,
        error::{Code, Error},
        exchange::{Exchange, ResponseResult},
    },
    token::TokenReader,
};

/// The token that clients get. Its text identifies it in a log or a request.
const PLACEHOLDER: &str = "finicity-proxy-placeholder";

/// The maximum that is read of a request body; with a longer one, the connection closes. A token request has a few hundred bytes.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// The time for the request body to arrive. Clients send it together with the head, so a slower one has stalled.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The response: a placeholder in this `shape`, which expires together with the proxy's token.
///
/// # Errors
///
/// If no token becomes usable in time, as for every request; or if the request body does not arrive.
pub(super) async fn respond<B>(tokens: &TokenReader, shape: ResponseShape, exchange: Exchange<B>) -> ResponseResult
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = exchange.request.into_parts();
    let body = ProgressBody::new(body, exchange.record);
    let first_byte = timeout(BODY_TIMEOUT, discard_body(body))
        .await
        .map_err(|_| Error::new(Code::RequestTimeout, "The request body did not arrive in time."))??;
    let usable = tokens.usable().and_then(|token| token.clone());
    let token = match usable {
        Some(token) => token,
        None => {
            let without_token = |unavailable| Error::without_token(unavailable, tokens.unresolved_error().as_deref());
            tokens.wait().await.map_err(without_token)?
        }
    };
    let is_bearer = match shape {
        ResponseShape::OAuth2 => true,
        ResponseShape::Partner => false,
        ResponseShape::Configured => token.is_bearer(),
    };
    // OAuth 2.0 has JSON only (RFC 6749, 5.1).
    let format = if is_bearer { TokenFormat::Json } else { TokenFormat::choose(&head.headers, first_byte) };
    let body = if is_bearer { oauth_body(tokens.remaining()) } else { partner_body(format) };
    let mut response = Response::new(ResponseBody::full(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Reads `body` to its end or past [`MAX_BODY_BYTES`]. Returns its first significant byte.
async fn discard_body(body: impl Body<Data = Bytes>) -> Result<Option<u8>, Error> {
    let mut body = pin!(body);
    let (mut bytes_read, mut first_byte) = (0, None);
    while bytes_read <= MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                bytes_read += data.len() as u64;
                first_byte = first_byte.or_else(|| first_significant(data));
            }
            Some(Err(_)) => return Err(Error::new(Code::BadRequest, "The request body is incomplete.")),
            None => break,
        }
    }
    Ok(first_byte)
}

/// The body of an OAuth 2.0 response, for a token that is usable for `remaining`.
fn oauth_body(remaining: Duration) -> String {
    // Clients treat 0 as an error.
    let seconds = remaining.as_secs().max(1);
    format!(r#"{{"access_token":"{PLACEHOLDER}","token_type":"Bearer","expires_in":{seconds}}}"#)
}

/// The body of a partner authentication response.
fn partner_body(format: TokenFormat) -> String {
    match format {
        TokenFormat::Json => format!(r#"{{"token":"{PLACEHOLDER}"}}"#),
        TokenFormat::Xml(_) => format!("<access><token>{PLACEHOLDER}</token></access>"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use http::{HeaderName, Method, Request};
    use http_body::Frame;
    use http_body_util::Full;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        proxy::Record,
        token::{
            Clock, TokenWriter, channel,
            scheme::{AuthHeaders, FINICITY_APP_KEY, FINICITY_APP_TOKEN},
        },
    };

    const HOUR: Duration = Duration::from_secs(3600);

    /// A writer and a reader, with a token in `field` that is usable for `usable`.
    fn with_token(field: HeaderName, usable: Duration) -> (TokenWriter, TokenReader) {
        let (mut writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
        let value = HeaderValue::from_static("value");
        let headers = [(FINICITY_APP_KEY, value.clone()), (field, value)];
        writer.publish(AuthHeaders { headers, expires_in: None, untyped: false }, writer.clock().now() + usable);
        (writer, reader)
    }

    async fn respond_to(
        reader: &TokenReader,
        shape: ResponseShape,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<String, Code> {
        let record = Arc::new(Record::new(Method::POST, None));
        let result = respond(reader, shape, Exchange { request: Request::new(body), record }).await;
        let body = result.map_err(|error| error.code())?.into_body().collect().await.unwrap();
        Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    fn bearer(seconds: u64) -> String {
        format!(r#"{{"access_token":"finicity-proxy-placeholder","token_type":"Bearer","expires_in":{seconds}}}"#)
    }

    #[tokio::test(start_paused = true)]
    async fn c16_a_placeholder_has_its_endpoints_shape_and_token_lifetime() {
        let partner = r#"{"token":"finicity-proxy-placeholder"}"#;
        let empty = || Full::new(Bytes::new());
        for (field, shape, expected) in [
            (header::AUTHORIZATION, ResponseShape::OAuth2, bearer(3600)),
            (header::AUTHORIZATION, ResponseShape::Partner, partner.to_owned()),
            (header::AUTHORIZATION, ResponseShape::Configured, bearer(3600)),
            (FINICITY_APP_TOKEN, ResponseShape::OAuth2, bearer(3600)),
            (FINICITY_APP_TOKEN, ResponseShape::Configured, partner.to_owned()),
        ] {
            let (_writer, reader) = with_token(field, HOUR);
            assert_eq!(respond_to(&reader, shape, empty()).await, Ok(expected), "{shape:?}");
        }
        let (_writer, reader) = with_token(header::AUTHORIZATION, Duration::from_millis(500));
        assert_eq!(respond_to(&reader, ResponseShape::OAuth2, empty()).await, Ok(bearer(1)), "never 0");
        tokio::time::advance(HOUR).await;
        assert_eq!(respond_to(&reader, ResponseShape::OAuth2, empty()).await, Err(Code::TokenUnavailable));
    }

    /// A body that does one thing endlessly.
    #[derive(Clone, Copy)]
    enum EndlessBody {
        Nothing,
        Failure,
        Data,
    }

    impl Body for EndlessBody {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match *self {
                Self::Nothing => Poll::Pending,
                Self::Failure => Poll::Ready(Some(Err("incomplete"))),
                Self::Data => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024]))))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_or_broken_body_fails_and_a_long_one_is_cut_off() {
        let (_writer, reader) = with_token(header::AUTHORIZATION, HOUR);
        assert_eq!(respond_to(&reader, ResponseShape::OAuth2, EndlessBody::Failure).await, Err(Code::BadRequest));
        assert_eq!(respond_to(&reader, ResponseShape::OAuth2, EndlessBody::Data).await, Ok(bearer(3600)));
        let started = Instant::now();
        assert_eq!(respond_to(&reader, ResponseShape::OAuth2, EndlessBody::Nothing).await, Err(Code::RequestTimeout));
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }
}
