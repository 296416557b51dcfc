//! The vendor's error code, taken from an error answer as it streams by.
//!
//! Only where that costs next to nothing and delays nothing: a short JSON body of known length, without a content coding, that
//! comes in one piece. Its code is noted, if it is one that is known to be one; nothing else of it is kept.

use http::{HeaderMap, HeaderValue, Response, header};

use super::record::Record;
use crate::vendor;

/// The longest body that is looked at. The vendor's errors are below 1 KiB.
const MAX_BODY_BYTES: u64 = 4096;

/// The length of the body that [`record`] may find a code in; `None` when the answer is no error of the upstream's with such a
/// body.
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

/// Notes the first code in `body`, the whole of an error answer with these `headers`.
pub(super) fn record(record: &Record, headers: &HeaderMap, body: &[u8]) {
    if body.len() as u64 <= MAX_BODY_BYTES && is_plain_json(headers) {
        record_json(record, body);
    }
}

/// The same for a body that is known to be JSON.
pub(super) fn record_json(record: &Record, body: &[u8]) {
    let json = vendor::read(body).filter(|reading| reading.json.is_some());
    if let Some(code) = json.and_then(|reading| reading.codes.into_iter().next()) {
        record.set_vendor_code(code);
    }
}

/// Whether the headers say that the body is JSON (`application/json`, or `…+json`) and not compressed.
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
    fn only_short_plain_json_of_the_upstreams_is_looked_at() {
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
        assert_eq!(expected_length(&local, &response(404, &[JSON, SHORT])), None, "no upstream has answered");
        let failed = record();
        failed.set_error(&Error::new(Code::UpstreamProtocol, "x"));
        assert_eq!(expected_length(&failed, &response(502, &[JSON, SHORT])), None, "the proxy's own words");
    }

    #[test]
    fn a_code_is_a_number_or_a_known_word_and_nothing_else_is_kept() {
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
