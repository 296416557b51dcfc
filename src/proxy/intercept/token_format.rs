//! The format of a partner authentication response: JSON, or XML, which the vendor's API used first.
//!
//! The client's `Accept` decides. If it prefers neither, the response has the format of the request body.

use http::{HeaderMap, HeaderValue, header};

use crate::message::fields;

const APPLICATION_JSON: &str = "application/json";
const APPLICATION_XML: &str = "application/xml";
const TEXT_XML: &str = "text/xml";

/// The specificity of `*/*`.
const ANY: u8 = 1;

/// The format of a response to a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFormat {
    Json,
    /// XML, with this media type.
    Xml(&'static str),
}

impl TokenFormat {
    /// The format for a request with `headers` and a body that begins with `first_byte` (see [`first_significant`]).
    pub(super) fn choose(headers: &HeaderMap, first_byte: Option<u8>) -> Self {
        let [json, application_xml, text_xml] =
            [APPLICATION_JSON, APPLICATION_XML, TEXT_XML].map(|media_type| preference(headers, media_type));
        // `text/xml` is the older name; it is used only if the client names it.
        let text_xml = if text_xml.1 > ANY { text_xml } else { (0, 0) };
        let xml = application_xml.max(text_xml);
        if json > xml || (json == xml && !is_xml(headers, first_byte)) {
            Self::Json
        } else if text_xml > application_xml {
            Self::Xml(TEXT_XML)
        } else {
            Self::Xml(APPLICATION_XML)
        }
    }

    /// The `Content-Type` of the response.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => APPLICATION_JSON,
            Self::Xml(media_type) => media_type,
        })
    }
}

/// The first byte of `bytes` that is neither white space nor part of a byte order mark.
pub(super) fn first_significant(bytes: &[u8]) -> Option<u8> {
    // In UTF-16, the other half of an ASCII character is 0.
    let is_skipped = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    bytes.iter().copied().find(|byte| !is_skipped(byte))
}

/// Whether a request body is XML, by `Content-Type`, or else by its first byte.
fn is_xml(headers: &HeaderMap, first_byte: Option<u8>) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = essence(content_type).to_ascii_lowercase();
    match media_type.as_slice() {
        b"application/xml" | b"text/xml" => true,
        media_type if media_type.ends_with(b"+xml") => true,
        media_type if media_type == APPLICATION_JSON.as_bytes() || media_type.ends_with(b"+json") => false,
        _ => first_byte == Some(b'<'),
    }
}

/// The client's preference for `media_type` (RFC 9110, 12.5.1): the weight, in thousandths, of the most specific range of `Accept` that
/// matches it, and the specificity of that range. Without a matching range, both are 0.
fn preference(headers: &HeaderMap, media_type: &str) -> (u16, u8) {
    let matching = fields::list(headers, &header::ACCEPT).filter_map(|range| {
        let specificity = specificity(essence(range), media_type)?;
        Some((specificity, weight(range)))
    });
    matching.max().map_or((0, 0), |(specificity, weight)| (weight, specificity))
}

/// How specifically `range` matches `media_type`; `None` if it does not match.
fn specificity(range: &[u8], media_type: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(media_type.as_bytes()) {
        return Some(3);
    }
    let main_type = range.strip_suffix(b"/*")?;
    match media_type.split_once('/') {
        _ if main_type == b"*" => Some(ANY),
        Some((of, _)) if main_type.eq_ignore_ascii_case(of.as_bytes()) => Some(2),
        _ => None,
    }
}

/// The weight of a media range, in thousandths. A malformed weight is ignored, which leaves the default of 1.
fn weight(range: &[u8]) -> u16 {
    let parameters = range.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let weights =
        parameters.filter_map(|parameter| parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")));
    weights.last().and_then(|weight| thousandths(str::from_utf8(weight).ok()?)).unwrap_or(1000)
}

/// The thousandths of a decimal number from 0 to 1; decimals after the third are ignored.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    format!("{whole:0>1}{decimals:0<3.3}").parse().ok().filter(|weight| *weight <= 1000)
}

/// A media type or range without its parameters.
fn essence(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept: &[&str], content_type: &str, body: &str) -> TokenFormat {
        let mut headers = HeaderMap::new();
        for accept in accept {
            headers.append(header::ACCEPT, accept.parse().unwrap());
        }
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        TokenFormat::choose(&headers, first_significant(body.as_bytes()))
    }

    #[test]
    fn the_accept_header_decides_the_format() {
        const XML: TokenFormat = TokenFormat::Xml(APPLICATION_XML);
        for (accept, expected) in [
            (&["application/xml"][..], XML),
            (&["Application/XML ; charset=utf-8"], XML),
            (&["text/xml"], TokenFormat::Xml(TEXT_XML)),
            (&["text/xml, application/xml"], XML),
            (&["text/xml, application/xml;q=0.5"], TokenFormat::Xml(TEXT_XML)),
            (&["application/xml, */*"], XML),
            (&["application/xml;q=0.9, */*;q=0.8"], XML),
            (&["application/json;q=0.1", "application/xml;Q=.2"], XML),
            (&["application/json, application/xml;q=0.999"], TokenFormat::Json),
            (&["application/json, */*"], TokenFormat::Json),
            (&["*/*;q=0.1, application/xml;q=0"], TokenFormat::Json),
            (&["application/*, application/json;q=0.5"], XML),
            (&["application/xml;q=nan, application/json;q=0.5"], XML),
        ] {
            for (content_type, body) in [("", ""), ("application/json", "{}"), ("application/xml", "<a/>")] {
                assert_eq!(choose(accept, content_type, body), expected, "{accept:?} {content_type}");
            }
        }
    }

    #[test]
    fn without_a_preference_the_request_format_is_used() {
        for accept in
            [&[][..], &["*/*"], &["application/*"], &["application/json, application/xml"], &["text/html"], &[""]]
        {
            for (content_type, body, is_xml) in [
                ("application/xml", "", true),
                ("text/XML; charset=utf-8", "", true),
                ("application/vnd.x+xml", "", true),
                ("", " \r\n<a/>", true),
                ("", "\u{feff}<a/>", true),
                ("application/x-www-form-urlencoded", "<a/>", true),
                ("application/json", "<a/>", false),
                ("application/x-www-form-urlencoded", "a=<", false),
                ("", "{}", false),
                ("", "", false),
            ] {
                let expected = if is_xml { TokenFormat::Xml(APPLICATION_XML) } else { TokenFormat::Json };
                assert_eq!(choose(accept, content_type, body), expected, "{accept:?} {content_type} {body:?}");
            }
        }
        for (weight, expected) in [
            ("1", Some(1000)),
            ("1.0", Some(1000)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            (".25", Some(250)),
            ("0.0009", Some(0)),
            ("1.001", None),
            ("2", None),
            ("nan", None),
            ("-1", None),
        ] {
            assert_eq!(thousandths(weight), expected, "{weight}");
        }
        assert_eq!(first_significant(b"\xff\xfe<\0a\0"), Some(b'<'));
        assert_eq!(first_significant(b"\xfe\xff\0<\0a"), Some(b'<'));
    }
}
