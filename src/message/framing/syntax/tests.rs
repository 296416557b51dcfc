use std::{cell::Cell, convert::Infallible, io::Cursor, pin::pin};

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;

use super::{
    super::{HeadLimits, MessageFramer},
    *,
};

const LIMITS: HeadLimits = HeadLimits { target_bytes: 1000, header_bytes: 4000, headers: 64 };

fn fault(head: &[u8]) -> Option<FramingFault> {
    check(head, LIMITS.headers).err()
}

fn byte(part: HeadPart, byte: u8, offset: usize) -> Option<FramingFault> {
    Some(FramingFault::InvalidByte { part, byte, offset })
}

#[test]
fn an_illegal_byte_is_located() {
    use HeadPart::{FieldName, FieldValue, Method, Target};
    for (head, expected) in [
        ("GET /a?b=\"c\" HTTP/1.1\r\n\r\n", byte(Target, b'"', 5)),
        ("GET /a\"{|}^\\`b HTTP/1.1\r\n\r\n", byte(Target, b'`', 8)),
        ("GET /a?`{|}^\\ HTTP/1.1\r\n\r\n", None),
        ("GET /a<b HTTP/1.1\r\n\r\n", byte(Target, b'<', 2)),
        ("GET /a?b=>1 HTTP/1.1\r\n\r\n", byte(Target, b'>', 5)),
        ("GET /a b HTTP/1.1\r\n\r\n", byte(Target, b' ', 2)),
        ("GET /a\u{7f}b HTTP/1.0\r\n\r\n", byte(Target, 0x7f, 2)),
        ("GET /a\tb HTTP/1.1\n\n", byte(Target, b'\t', 2)),
        ("GET /caf\u{e9}?\u{e9} HTTP/1.1\r\n\r\n", None),
        ("G(T / HTTP/1.1\r\n\r\n", byte(Method, b'(', 1)),
        ("\rGET / HTTP/1.1\r\n\r\n", byte(Method, b'\r', 0)),
        ("GET / HTTP/1.1\r\nX-A: b\r\n c\r\n\r\n", byte(FieldName(2), b' ', 0)),
        ("GET / HTTP/1.1\r\nX-A : b\r\n\r\n", byte(FieldName(1), b' ', 3)),
        ("GET / HTTP/1.1\r\nX-A: b\rX: c\r\n\r\n", byte(FieldValue(1), b'\r', 6)),
        ("GET / HTTP/1.1\r\nA: b\r\nX-A:\0c\r\n\r\n", byte(FieldValue(2), 0, 4)),
        ("GET / HTTP/1.1\r\nX-A: \u{e9}\tb\r\n\r\n", None),
    ] {
        assert_eq!(fault(head.as_bytes()), expected, "{head:?}");
    }
    let not_utf8 = byte(Target, 0xff, 2);
    assert_eq!(fault(b"GET /a\xff HTTP/1.1\r\n\r\n"), not_utf8);
}

#[test]
fn incomplete_or_malformed_lines_are_faults() {
    use FramingFault::{FieldLine, HeadersTooLarge, RequestLine, Target, TargetTooLong, Version};
    for (line, expected) in [
        ("GET /", RequestLine),
        ("GET", RequestLine),
        ("GET  HTTP/1.1", RequestLine),
        (" / HTTP/1.1", RequestLine),
        ("GET / HTTP/1.2", Version),
        ("GET / HTTP/2.0", Version),
        ("PRI * HTTP/2.0", Version),
        ("GET / http/1.1", RequestLine),
        ("GET http:// HTTP/1.1", Target),
        ("GET a:b:c HTTP/1.1", Target),
        ("GET / HTTP/1.1\r\nX-A", FieldLine(1)),
        ("GET / HTTP/1.1\r\nX-A: b\r\n: b", FieldLine(2)),
    ] {
        assert_eq!(fault(format!("{line}\r\n\r\n").as_bytes()), Some(expected), "{line:?}");
    }
    let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert_eq!(fault(fields(100).as_bytes()), None);
    assert_eq!(fault(fields(101).as_bytes()), Some(HeadersTooLarge));
    assert_eq!(check(fields(200).as_bytes(), 200), Ok(()));
    let name = |length: usize| format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", "x".repeat(length));
    assert_eq!([fault(name(65535).as_bytes()), fault(name(65536).as_bytes())], [None, Some(HeadersTooLarge)]);
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 1));
    assert_eq!([fault(target(65534).as_bytes()), fault(target(65535).as_bytes())], [None, Some(TargetTooLong)]);
}

#[test]
fn a_substitute_has_the_method_and_the_request_id() {
    for (head, expected) in [
        ("HEAD /<\u{e9} HTTP/1.0\r\nX-REQUEST-ID: a-1 \r\n\r\n", "HEAD / HTTP/1.1\r\nx-request-id: a-1\r\n\r\n"),
        ("GET", "GET / HTTP/1.1\r\n\r\n"),
        ("GET / HTTP/1.1\r\nX-Request-Id: a-", "GET / HTTP/1.1\r\n\r\n"),
        ("G(T / HTTP/1.1\r\nX-Request-Id: a\0b\r\n\r\n", "_OTHER / HTTP/1.1\r\n\r\n"),
        ("", "_OTHER / HTTP/1.1\r\n\r\n"),
    ] {
        let substitute = substitute(head.as_bytes());
        assert_eq!(str::from_utf8(&substitute).unwrap(), expected, "{head:?}");
        assert_eq!(fault(&substitute), None);
    }
}

/// Whether hyper, configured like in the program, passes a request with `head` to its service.
fn hyper_serves(head: &[u8]) -> bool {
    let served = Cell::new(false);
    let service = service_fn(|_| {
        served.set(true);
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let io = TokioIo::new(tokio::io::join(Cursor::new(head.to_vec()), tokio::io::sink()));
    let mut builder = http1::Builder::new();
    builder.half_close(true).max_headers(MIN_FIELD_LIMIT).max_buf_size(256 * 1024);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..100 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    served.get()
}

/// The head at the start of `bytes` that passes the framer and [`check`], if one does.
fn passed(bytes: &[u8]) -> Option<&[u8]> {
    let mut framer = MessageFramer::new(LIMITS);
    let end = framer.consume_to_head_end(bytes).unwrap_or_else(|error| error.offset);
    let ended = framer.ended_head();
    if framer.heads() == 0 || !ended.is_readable {
        return None;
    }
    let head = &bytes[end - ended.bytes..end];
    let is_readable = ended.check(head, LIMITS.headers).is_ok();
    assert_eq!(is_readable, fault(head).is_none(), "{}", head.escape_ascii());
    is_readable.then_some(head)
}

#[test]
fn every_single_byte_has_the_same_result_as_in_hyper() {
    for byte in 0..=u8::MAX {
        for head in [
            &b"G_ET / HTTP/1.1\r\nX-A: b\r\n\r\n"[..],
            b"GET /_a HTTP/1.1\r\nX-A: b\r\n\r\n",
            b"GET /?_a HTTP/1.1\r\nX-A: b\r\n\r\n",
            b"GET _a HTTP/1.1\r\nX-A: b\r\n\r\n",
            b"GET http://_a/ HTTP/1.1\r\nX-A: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX_A: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-A: b_c\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-A: b\r\n_\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: _\r\n\r\n",
        ] {
            let head: Vec<u8> = head.iter().map(|at| if *at == b'_' { byte } else { *at }).collect();
            let framing_accepts = passed(&head).is_some();
            assert_eq!(framing_accepts, hyper_serves(&head), "{:?}", head.escape_ascii().to_string());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_is_served_by_hyper(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..12),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut bytes = words.concat();
        if !bytes.is_empty() {
            for (at, byte) in noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        if let Some(head) = passed(&bytes) {
            prop_assert!(hyper_serves(head), "{}", head.escape_ascii());
        }
        prop_assert!(hyper_serves(&substitute(&bytes)), "{}", bytes.escape_ascii());
    }
}

/// Valid and invalid parts of heads, for concatenation in any order.
const WORDS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"CONNECT ",
    b"/a?b=c",
    b"/\xc3\xa9",
    b"*",
    b"http://a.b/c",
    b"a:443",
    b"//x",
    b"[::1]:1",
    b"@",
    b"#f",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Content-Length: 18446744073709551613\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\n",
    b"Connection: close, \xff\r\n",
    b"X:\r\n",
    b"X: \x80\r\n",
    b"GET / HTTP/1.1\r\n",
];
