//! Message heads: writes request heads and parses response heads.

use std::{io::Write as _, mem::MaybeUninit, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::{Error, decoder::Decoder};
use crate::message::fields::list;

/// The maximum size of a response head, and of all informational responses before it; and the maximum number of header fields.
pub(super) const MAX_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// Its parameter `timeout` announces how long the server keeps an idle connection open, in seconds (RFC 2068, section 19.7.1.1).
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The start of every response.
const VERSION: &[u8] = b"HTTP/1.";

/// The typical size of a head without its fields.
const TYPICAL_BYTES: usize = 192;

/// The head of a response.
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    pub(super) decoder: Decoder,
    /// The connection can be reused after the body.
    pub(super) keep_alive: bool,
    /// How long the server keeps an idle connection open, if announced.
    pub(super) keep_alive_timeout: Option<Duration>,
}

/// Writes the head of a request, with the header field `framing` if the head has none for its body.
pub(super) fn write(Parts { method, uri, headers, .. }: &Parts, framing: Option<&'static str>) -> BytesMut {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = BytesMut::with_capacity(fields + TYPICAL_BYTES);
    head.put_slice(method.as_str().as_bytes());
    head.put_u8(b' ');
    match uri.path_and_query().filter(|_| uri.authority().is_none()) {
        Some(target) => head.put_slice(target.as_str().as_bytes()),
        None => write!((&mut head).writer(), "{uri}").expect("writing to memory does not fail"),
    }
    head.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }
    head.put_slice(framing.unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    head
}

/// The end of the head at the start of `bytes`. The first `searched` bytes are known not to contain it, so that a slow response is not searched
/// again with each of its bytes. For bytes that are not an HTTP response, returns their length immediately; parsing then fails.
pub(super) fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    let start = searched.saturating_sub(3);
    let line_starts = memchr::memchr_iter(b'\n', &bytes[start..]).map(|index| start + index + 1);
    let mut end = line_starts.filter_map(|start_of_next| match &bytes[start_of_next..] {
        [b'\n', ..] => Some(start_of_next + 1),
        [b'\r', b'\n', ..] => Some(start_of_next + 2),
        _ => None,
    });
    let known = bytes.len().min(VERSION.len());
    if bytes[..known] == VERSION[..known] { end.next() } else { Some(bytes.len()) }
}

/// Parses `head`, a complete head of a response to a request with `method`. `None` if the response is informational
/// (RFC 9110, section 15.2), so another one follows.
///
/// # Errors
///
/// If the head is malformed or its framing is ambiguous.
pub(super) fn parse(head: &Bytes, method: &Method) -> Result<Option<ResponseHead>, Error> {
    if !head.starts_with(VERSION) {
        // The parser would skip leading empty lines, and where they end would depend on how much was read.
        return Err(Error::Parse(httparse::Error::Version));
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut fields) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Error::Invalid("the end of the head is ambiguous")),
        Err(error) => return Err(Error::Parse(error)),
    }
    let status =
        parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::Invalid("invalid status code"))?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let is_http_11 = parsed.version == Some(1);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in &*parsed.headers {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::Invalid("invalid header field name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        headers.append(name, value.map_err(|_| Error::Invalid("invalid header field value"))?);
    }
    let length = content_length(&mut headers)?;
    let (decoder, is_unambiguous) = framing(&headers, length, status, method, is_http_11)?;
    let keep_alive = is_unambiguous && !decoder.is_close_delimited() && keeps_alive(&headers, is_http_11);
    let keep_alive_timeout = keep_alive_timeout(&headers);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if is_http_11 { Version::HTTP_11 } else { Version::HTTP_10 };
    *response.headers_mut() = headers;
    if let Some(reason) = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    Ok(Some(ResponseHead { response, decoder, keep_alive, keep_alive_timeout }))
}

/// The decoder for the body (RFC 9112, section 6.3), and whether the start of the next response is unambiguous.
fn framing(
    headers: &HeaderMap,
    length: Option<u64>,
    status: StatusCode,
    method: &Method,
    is_http_11: bool,
) -> Result<(Decoder, bool), Error> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok((Decoder::DONE, false));
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok((Decoder::DONE, true));
    }
    if status == StatusCode::NO_CONTENT {
        // A server that announces a body here, where none is allowed (RFC 9110, section 8.6), may send it.
        return Ok((Decoder::DONE, coding.is_none() && length.unwrap_or(0) == 0));
    }
    match (coding, length) {
        (Some(coding), length) => {
            let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !is_http_11 || !is_chunked || codings.next().is_some() {
                return Err(Error::Invalid("unsupported transfer coding"));
            }
            // Transfer-Encoding overrides Content-Length, but do not reuse the connection of a server that sends both.
            Ok((Decoder::CHUNKED, length.is_none()))
        }
        (None, Some(length)) => Ok((Decoder::length(length), true)),
        (None, None) => Ok((Decoder::UNTIL_CLOSE, false)),
    }
}

/// Parses `Content-Length`, and merges repeated equal values into one (RFC 9112, section 6.3).
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Error> {
    let invalid = Error::Invalid("invalid Content-Length");
    let mut length = None;
    let mut count = 0;
    for value in list(headers, &header::CONTENT_LENGTH) {
        let digits = Some(value).filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit));
        let Some(value) = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()) else {
            return Err(invalid);
        };
        if length.is_some_and(|length| length != value) {
            return Err(invalid);
        }
        length = Some(value);
        count += 1;
    }
    if let Some(length) = length.filter(|_| count > 1) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// Whether the upstream keeps the connection open after the response (RFC 9112, section 9.3).
fn keeps_alive(headers: &HeaderMap, is_http_11: bool) -> bool {
    let mut keep_alive = is_http_11;
    for option in list(headers, &header::CONNECTION) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep_alive
}

/// The smallest `timeout` in `Keep-Alive`. Values that are not a number of seconds are ignored.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds = list(headers, &KEEP_ALIVE).filter_map(|parameter| {
        let (name, value) = str::from_utf8(parameter).ok()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let is_number = name.trim().eq_ignore_ascii_case("timeout") && value.bytes().all(|byte| byte.is_ascii_digit());
        // A number that does not fit is longer than any connection is kept.
        Some(value).filter(|value| is_number && !value.is_empty()).map(|value| value.parse().unwrap_or(u64::MAX))
    });
    seconds.min().map(Duration::from_secs)
}
