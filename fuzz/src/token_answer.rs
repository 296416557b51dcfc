//! Token responses: a token only if it can be sent, a rejection if any part of the body reports one, and nothing of the body in what is
//! reported.

use std::{
    borrow::Cow,
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

use finicity_proxy::{
    token::classify::{FailureClass, IssuedToken, MAX_BODY_BYTES, TokenFailure, TokenResponse, classify},
    vendor,
};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::message::Message;

/// The codes that mean rejected credentials with any status: retrying them locks the account.
const REJECTED: [u32; 6] = [24302, 10001, 10021, 12401, 10026, 10027];

/// The OAuth errors (RFC 6749, section 5.2), the only words of a body that may be reported.
const OAUTH: &str = "invalid_client unauthorized_client invalid_grant invalid_request unsupported_grant_type invalid_scope temporarily_unavailable";

/// Checks the response in `input`, which starts with a status.
pub fn token_answer(input: &[u8]) {
    let Message { first, headers, body } = Message::read(input);
    let status = StatusCode::from_bytes(first.get(..3).unwrap_or_default()).unwrap_or(StatusCode::OK);
    for field in ["access_token", "token"] {
        match read(status, &headers, Some(body), field) {
            Ok(issued) => check_token(status, &issued),
            Err(failure) => check_failure(status, &failure),
        }
        let too_large = read(status, &headers, None, field);
        check_failure(status, &too_large.expect_err("a token without a body"));
    }
    if let Ok(Value::Object(body)) = serde_json::from_slice(body) {
        a_rejection_overrides_other_fields(status, &headers, &body);
    }
    a_coding_changes_nothing(status, headers, body);
}

fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    field: &str,
) -> Result<IssuedToken, TokenFailure> {
    classify(&TokenResponse { status, headers, body }, field, UNIX_EPOCH + Duration::from_secs(784_111_777))
}

fn check_token(status: StatusCode, issued: &IssuedToken) {
    let token = issued.token.expose();
    assert!(status.is_success(), "a token from a failure");
    assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()), "a token that cannot be sent");
    HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is legal in a header");
    assert_ne!(issued.expires_in, Some(Duration::ZERO));
    let IssuedToken { expires_in, untyped, .. } = issued;
    let shown = format!("IssuedToken {{ token: [redacted], expires_in: {expires_in:?}, untyped: {untyped} }}");
    assert_eq!(format!("{issued:?}"), shown);
}

/// A failure is described only with the program's own words, numbers and known codes.
fn check_failure(status: StatusCode, failure: &TokenFailure) {
    assert_eq!(failure.status, Some(status));
    let code = failure.code.as_deref().unwrap_or("0");
    let number = !code.is_empty() && code.len() <= 6 && code.bytes().all(|byte| byte.is_ascii_digit());
    assert!(number || OAUTH.split(' ').any(|error| error == code), "text of the body is reported: {code:?}");
    let code = failure.code.as_ref().map(|code| format!(" with code {code}")).unwrap_or_default();
    let (reason, remedy) = (&failure.reason, &failure.remedy);
    assert!(
        matches!((reason, remedy), (Cow::Borrowed(_), Cow::Borrowed(_))),
        "words of the response: {reason}; {remedy}"
    );
    assert_eq!(
        failure.to_string(),
        format!("the token endpoint returned {}{code}: {reason}; {remedy}", status.as_u16())
    );
    let TokenFailure { class, disposition, reason, remedy, endpoint, status, code, retry_after, readable } = failure;
    let shown = format!(
        "TokenFailure {{ class: {class:?}, disposition: {disposition:?}, reason: {reason:?}, remedy: {remedy:?}, endpoint: \
         {endpoint:?}, status: {status:?}, code: {code:?}, retry_after: {retry_after:?}, readable: {readable} }}"
    );
    assert_eq!(format!("{failure:?}"), shown);
}

/// A response with a rejection in it counts as a rejection; otherwise a retry would bring the lock-out closer.
fn a_rejection_overrides_other_fields(status: StatusCode, headers: &HeaderMap, body: &Map<String, Value>) {
    let oauth = ["invalid_client", "unauthorized_client", "invalid_grant"].map(|error| ("error", json!(error)));
    let numbers = REJECTED.map(|code| ("code", json!(code)));
    let texts = REJECTED.map(|code| ("code", json!(code.to_string())));
    let listed = REJECTED.map(|code| ("Errors", json!({ "Error": [{ "reasonCode": 0 }, { "reasonCode": code }] })));
    for (name, value) in oauth.into_iter().chain(numbers).chain(texts).chain(listed) {
        let mut body = body.clone();
        body.insert(name.to_owned(), value);
        let text = Value::Object(body).to_string();
        let failure = read(status, headers, Some(text.as_bytes()), "access_token").expect_err("rejected");
        assert_eq!(failure.class, FailureClass::Rejected, "{text}");
    }
}

/// A compressed body, with or without `Content-Encoding`, has the same meaning.
fn a_coding_changes_nothing(status: StatusCode, mut headers: HeaderMap, body: &[u8]) {
    if headers.contains_key(header::CONTENT_ENCODING) || body.len() > MAX_BODY_BYTES {
        return;
    }
    let read = |headers: &HeaderMap, body: &[u8]| match read(status, headers, Some(body), "access_token") {
        Ok(issued) => format!("{} {:?}", issued.token.expose(), issued.expires_in),
        Err(TokenFailure { class, status, code, retry_after, readable, .. }) => {
            format!("{class:?} {status:?} {code:?} {retry_after:?} {readable}")
        }
    };
    let plain = read(&headers, body);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("writing to memory does not fail");
    let encoded = encoder.finish().expect("writing to memory does not fail");
    // Noise grows when it is compressed, and may then be too large. It may also stay uncompressed within the compressed bytes, and a
    // rejection counts in any interpretation in which it is found.
    if encoded.len() <= MAX_BODY_BYTES && vendor::read(&encoded).is_none() {
        assert_eq!(read(&headers, &encoded), plain, "without a field");
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(read(&headers, &encoded), plain, "compressed");
        // A body that is itself compressed may decode to something else; `Content-Encoding` then decides which of the two counts.
        let is_compressed = body.starts_with(&[0x1f, 0x8b]) || body.first() == Some(&0x78);
        if !(is_compressed && vendor::read(body).is_some()) {
            assert_eq!(read(&headers, body), plain, "not compressed, though the field says so");
        }
    }
}
