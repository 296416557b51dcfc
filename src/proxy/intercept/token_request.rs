//! A caller's own token call, answered here with a placeholder, so that a client that authenticates itself works unchanged.
//!
//! What the placeholder is put into is removed from every request, so it need not be told from anything else. The call's body
//! may hold the caller's old credentials: it is read to its end, which keeps the connection, and dropped.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::Answer;
use crate::{
    proxy::{
        body::{RequestBody, ResponseBody},
        endpoints::Shape,
        error::{Code, Error},
        exchange::Exchange,
    },
    token::TokenReader,
};

/// What callers get for a token. Whoever sees it in a log or in a request should know it for what it is.
const PLACEHOLDER: &str = "finicity-proxy-placeholder";

/// A token call's body is a few hundred bytes. What goes on after this many is not read; the connection closes then.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// The time for that body to arrive. It is sent at once with the head; a caller that takes longer has stopped.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer: a placeholder that lasts as long as the token that stands behind it, in this `shape`.
///
/// # Errors
///
/// As for every request when there is no usable token and none comes in time; or when the body does not arrive.
pub(super) async fn answer<B>(reader: &TokenReader, shape: Shape, exchange: Exchange<B>) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    let body = RequestBody::new(exchange.request.into_body(), exchange.record);
    timeout(BODY_TIMEOUT, drop_body(body))
        .await
        .map_err(|_| Error::new(Code::RequestTimeout, "The request body stopped arriving."))??;
    let usable = reader.usable().and_then(|token| token.clone());
    let token = match usable {
        Some(token) => token,
        None => reader.wait().await?,
    };
    let is_bearer = match shape {
        Shape::OAuth2 => true,
        Shape::Partner => false,
        Shape::Configured => token.is_bearer(),
    };
    let mut response = Response::new(ResponseBody::local(grant(is_bearer, reader.remaining())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Reads `body` to its end, or as far as it is worth it.
async fn drop_body(body: impl Body<Data = Bytes>) -> Result<(), Error> {
    let mut body = pin!(body);
    let mut read = 0;
    while read <= MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return Err(Error::new(Code::BadRequest, "The request body broke off.")),
            None => break,
        }
    }
    Ok(())
}

/// The body of the answer, for a token that may be used for `remaining` yet.
fn grant(is_bearer: bool, remaining: Duration) -> String {
    if is_bearer {
        // A client takes 0 for a mistake.
        let seconds = remaining.as_secs().max(1);
        format!(r#"{{"access_token":"{PLACEHOLDER}","token_type":"Bearer","expires_in":{seconds}}}"#)
    } else {
        format!(r#"{{"token":"{PLACEHOLDER}"}}"#)
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

    /// The two ends, with a token in `field` that may be used for `usable`.
    fn minted(field: HeaderName, usable: Duration) -> (TokenWriter, TokenReader) {
        let (mut writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
        let value = HeaderValue::from_static("value");
        let headers = [(FINICITY_APP_KEY, value.clone()), (field, value)];
        writer.publish(AuthHeaders { headers, expires_in: None, untyped: false }, writer.clock().now() + usable);
        (writer, reader)
    }

    async fn answered(
        reader: &TokenReader,
        shape: Shape,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<String, Code> {
        let record = Arc::new(Record::new(Method::POST, None));
        let answer = answer(reader, shape, Exchange { request: Request::new(body), record }).await;
        let body = answer.map_err(|error| error.code())?.into_body().collect().await.unwrap();
        Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    fn bearer(seconds: u64) -> String {
        format!(r#"{{"access_token":"finicity-proxy-placeholder","token_type":"Bearer","expires_in":{seconds}}}"#)
    }

    #[tokio::test(start_paused = true)]
    async fn c16_a_placeholder_has_the_shape_of_its_endpoint_and_lasts_as_long_as_the_token() {
        let partner = r#"{"token":"finicity-proxy-placeholder"}"#;
        let empty = || Full::new(Bytes::new());
        for (field, shape, expected) in [
            (header::AUTHORIZATION, Shape::OAuth2, bearer(3600)),
            (header::AUTHORIZATION, Shape::Partner, partner.to_owned()),
            (header::AUTHORIZATION, Shape::Configured, bearer(3600)),
            (FINICITY_APP_TOKEN, Shape::OAuth2, bearer(3600)),
            (FINICITY_APP_TOKEN, Shape::Configured, partner.to_owned()),
        ] {
            let (_writer, reader) = minted(field, HOUR);
            assert_eq!(answered(&reader, shape, empty()).await, Ok(expected), "{shape:?}");
        }
        let (_writer, reader) = minted(header::AUTHORIZATION, Duration::from_millis(500));
        assert_eq!(answered(&reader, Shape::OAuth2, empty()).await, Ok(bearer(1)), "never 0");
        tokio::time::advance(HOUR).await;
        assert_eq!(answered(&reader, Shape::OAuth2, empty()).await, Err(Code::TokenUnavailable));
    }

    /// A body that does one thing for ever.
    #[derive(Clone, Copy)]
    enum Sends {
        Nothing,
        AFailure,
        Data,
    }

    impl Body for Sends {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match *self {
                Self::Nothing => Poll::Pending,
                Self::AFailure => Poll::Ready(Some(Err("broken off"))),
                Self::Data => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024]))))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_breaks_off_is_told_and_one_without_end_not_read_to_it() {
        let (_writer, reader) = minted(header::AUTHORIZATION, HOUR);
        assert_eq!(answered(&reader, Shape::OAuth2, Sends::AFailure).await, Err(Code::BadRequest));
        assert_eq!(answered(&reader, Shape::OAuth2, Sends::Data).await, Ok(bearer(3600)));
        let started = Instant::now();
        assert_eq!(answered(&reader, Shape::OAuth2, Sends::Nothing).await, Err(Code::RequestTimeout));
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }
}
