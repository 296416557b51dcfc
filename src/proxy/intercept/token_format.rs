//! In which format a client of partner authentication gets its placeholder: JSON, or XML, which the vendor's API began with.
//!
//! What the client accepts decides; where it accepts both alike, it gets what it sent.

use http::{HeaderMap, HeaderValue, header};

use crate::message::fields;

const APPLICATION_JSON: &str = "application/json";
const APPLICATION_XML: &str = "application/xml";
const TEXT_XML: &str = "text/xml";

/// How specific `*/*` is.
const ANY: u8 = 1;

/// The format of a response to a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFormat {
    Json,
    /// With this media type.
    Xml(&'static str),
}

impl TokenFormat {
    /// The format for a request with `headers`, whose body begins with `first_byte`, as [`first_significant`] finds it.
    pub(super) fn choose(headers: &HeaderMap, first_byte: Option<u8>) -> Self {
        let [json, application_xml, text_xml] =
            [APPLICATION_JSON, APPLICATION_XML, TEXT_XML].map(|media_type| preference(headers, media_type));
        // The older name is used only for a client that names it.
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

/// Whether the body of a request is XML: as `Content-Type` says, or else by how it begins.
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

/// How much the client wants `media_type` (RFC 9110, 12.5.1): the weight of the most specific range of `Accept` that it is in, in
/// thousandths, and then how specific that is. Without the field, all media types are alike.
fn preference(headers: &HeaderMap, media_type: &str) -> (u16, u8) {
    let matching = fields::list(headers, &header::ACCEPT).filter_map(|range| {
        let specificity = specificity(essence(range), media_type)?;
        Some((specificity, weight(range)))
    });
    matching.max().map_or((0, 0), |(specificity, weight)| (weight, specificity))
}

/// How exactly `range` names `media_type`; `None` when it does not.
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

/// The weight of a media range, in thousandths. One that cannot be read counts as absent.
fn weight(range: &[u8]) -> u16 {
    let parameters = range.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let weights =
        parameters.filter_map(|parameter| parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")));
    weights.last().and_then(|weight| thousandths(str::from_utf8(weight).ok()?)).unwrap_or(1000)
}

/// The thousandths of a decimal number from 0 to 1; more than three decimals do not count.
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
    fn what_a_client_accepts_decides() {
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
    fn a_client_that_accepts_both_alike_gets_what_it_sent() {
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
