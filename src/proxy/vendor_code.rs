//! Extracts the vendor's error code from an error response while it streams through.
//!
//! Only cheap cases that cause no delay are handled: a short JSON body of known length, without a content coding, that arrives in one piece.
//! Only a known error code is recorded; the rest of the body is not retained.

use http::{HeaderMap, HeaderValue, Response, header};

use super::record::Record;
use crate::vendor;

/// The maximum size of an examined body. The vendor's errors are below 1 KiB.
const MAX_BODY_BYTES: u64 = 4096;

/// The length of the body if [`record_json`] may find a code in it; `None` if the response is not an upstream error with such a body.
pub(super) fn expected_length<B>(record: &Record, response: &Response<B>) -> Option<u64> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_own = record.upstream_status().is_none() || record.error().is_some();
    if !is_error || is_own || record.vendor_code().is_some() {
        return None;
    }
    let length = response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (length <= MAX_BODY_BYTES && is_plain_json(response.headers())).then_some(length)
}

/// Records the first code in `body`, which is the whole body of an error response with these `headers`.
pub(super) fn record(record: &Record, headers: &HeaderMap, body: &[u8]) {
    if body.len() as u64 <= MAX_BODY_BYTES && is_plain_json(headers) {
        record_json(record, body);
    }
}

/// Records the first code in `body`, which is known to be JSON.
pub(super) fn record_json(record: &Record, body: &[u8]) {
    let json = vendor::read(body).filter(|reading| reading.json.is_some());
    if let Some(code) = json.and_then(|reading| reading.codes.into_iter().next()) {
        record.set_vendor_code(code);
    }
}

/// Whether the body is JSON by its media type (`application/json`, or `…+json`), and not compressed.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let ends_with = |end: &[u8]| {
        let start = media_type.len().checked_sub(end.len());
        start.is_some_and(|start| media_type[start..].eq_ignore_ascii_case(end))
    };
    (ends_with(b"/json") || ends_with(b"+json")) && !headers.contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::proxy::{Code, Error};

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    fn record() -> Record {
        let record = Record::new(Method::GET, None);
        record.set_upstream_status(StatusCode::NOT_FOUND);
        record
    }

    #[test]
    fn only_short_uncompressed_json_errors_are_examined() {
        const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");
        const SHORT: (&str, &str) = ("content-length", "30");
        let length = |status, fields: &[_]| expected_length(&record(), &response(status, fields));
        assert_eq!(length(404, &[JSON, SHORT]), Some(30));
        assert_eq!(length(500, &[("content-type", "application/problem+JSON"), SHORT]), Some(30));
        for (status, fields) in [
            (200, &[JSON, SHORT][..]),
            (302, &[JSON, SHORT]),
            (404, &[SHORT]),
            (404, &[JSON]),
            (404, &[JSON, ("content-length", "4097")]),
            (404, &[("content-type", "text/html"), SHORT]),
            (404, &[JSON, SHORT, ("content-encoding", "gzip")]),
        ] {
            assert_eq!(length(status, fields), None, "{status} {fields:?}");
        }
        let local = Record::new(Method::GET, None);
        assert_eq!(expected_length(&local, &response(404, &[JSON, SHORT])), None, "no upstream response");
        let failed = record();
        failed.set_error(&Error::new(Code::UpstreamProtocol, "x"));
        assert_eq!(expected_length(&failed, &response(502, &[JSON, SHORT])), None, "a proxy-generated error");
    }

    #[test]
    fn only_a_number_or_a_known_word_is_recorded() {
        for (body, expected) in [
            (r#"{"code":14020,"message":"secret words"}"#, Some("14020")),
            (r#"{"code":"14020,"}"#, Some("14020")),
            (r#"{"error":"invalid_grant","error_description":"secret words"}"#, Some("invalid_grant")),
            (r#"{"Errors":{"Error":[{"ReasonCode":"DECLINED"},{"ReasonCode":"38007"}]}}"#, Some("38007")),
            (r#"{"error":"secret words"}"#, None),
            (r#"{"code":12345678}"#, None),
            (r#"{"code":14020"#, None),
            ("", None),
        ] {
            let record = record();
            record_json(&record, body.as_bytes());
            assert_eq!(record.vendor_code(), expected, "{body}");
        }
    }
}
