//! How responses are parsed.

use hyper::ext::ReasonPhrase;

use super::*;

/// A complete response from the rest of its status line, its fields and its body.
fn response(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}\r\n{body}")
}

#[test]
fn a_body_ends_where_its_framing_says() {
    for (fields, sent, body, is_reusable) in [
        ("content-length: 5\r\n", "hello", "hello", true),
        ("content-length: 0\r\n", "", "", true),
        ("content-length: 5\r\ncontent-length: 5\r\n", "hello", "hello", true),
        ("content-length: 5, 5\r\n", "hello", "hello", true),
        ("content-length: 005\r\n", "hello", "hello", true),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello", true),
        ("transfer-encoding: Chunked \r\n", "2\r\nhe\r\n003;a=\"b\";c\r\nllo\r\n0\r\n\r\n", "hello", true),
        ("transfer-encoding: chunked\r\n", "5 \t\r\nhello\r\n000\t;x\r\na: b\r\nc: d\r\n\r\n", "hello", true),
        (
            "transfer-encoding: chunked\r\n",
            "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
            true,
        ),
        ("transfer-encoding: chunked\r\n", "0\r\n\r\n", "", true),
        ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello", false),
        ("", "hello", "hello", false),
        ("", "", "", false),
        ("connection: keep-alive\r\n", "hello", "hello", false),
        ("connection: close\r\ncontent-length: 5\r\n", "hello", "hello", false),
        ("connection: x, Close\r\ncontent-length: 5\r\n", "hello", "hello", false),
        ("connection: keep-alive\r\nconnection: close\r\ncontent-length: 5\r\n", "hello", "hello", false),
        ("content-length: 5\r\n", "hello, and more", "hello", false),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n\r\n", "hello", false),
    ] {
        let received = get(response("200 OK", fields, sent)).unwrap();
        assert_eq!((received.status, &*received.body), (200, body.as_bytes()), "{fields:?} {sent:?}");
        assert_eq!(received.is_reusable, is_reusable, "{fields:?} {sent:?}");
    }
}

#[test]
fn http_1_0_keeps_alive_only_with_the_connection_option() {
    for (fields, is_reusable) in [("", false), ("connection: Keep-Alive\r\n", true), ("connection: close\r\n", false)] {
        let received = get(format!("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n{fields}\r\nok")).unwrap();
        assert_eq!((&*received.body, received.is_reusable), (&b"ok"[..], is_reusable), "{fields:?}");
    }
}

#[test]
fn responses_without_body_ignore_framing_fields() {
    for (method, status, fields, is_reusable) in [
        (Method::HEAD, "200 OK", "content-length: 5\r\n", true),
        (Method::HEAD, "200 OK", "transfer-encoding: chunked\r\n", true),
        (Method::HEAD, "200 OK", "", true),
        (Method::GET, "304 Not Modified", "content-length: 5\r\n", true),
        (Method::GET, "304 Not Modified", "", true),
        (Method::DELETE, "204 No Content", "", true),
        (Method::DELETE, "204 No Content", "content-length: 0\r\n", true),
        (Method::DELETE, "204 No Content", "content-length: 5\r\n", false),
        (Method::DELETE, "204 No Content", "transfer-encoding: chunked\r\n", false),
        (Method::GET, "101 Switching Protocols", "upgrade: x\r\n", false),
    ] {
        let head = Bytes::from(response(status, fields, ""));
        let received = receive(method.clone(), [head], StreamEnd::Open).unwrap();
        assert_eq!((&*received.body, received.is_reusable), (&b""[..], is_reusable), "{method} {status} {fields:?}");
    }
}

#[test]
fn informational_responses_are_skipped_up_to_a_limit() {
    let some = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".repeat(900);
    let received = get(some.clone() + "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok").unwrap();
    assert_eq!((received.status, &*received.body, received.is_reusable), (200, &b"ok"[..], true));
    assert_eq!(received.fields[0], ("x-a".to_owned(), Bytes::from("1")));
    assert_eq!(received.fields.len(), 2);
    assert!(matches!(get(some.clone()), Err(Error::Incomplete)));
    let endless = std::iter::repeat_n(Bytes::from(some), 100);
    assert!(matches!(receive(Method::GET, endless, StreamEnd::Open), Err(Error::Invalid(_))));
}

#[test]
fn a_head_is_read_unchanged() {
    let received =
        get(response("200", "X-A:1\r\nx-b:  2 \t\r\nX-a: \u{e9}\r\nx-c:\r\ncontent-length: 0\r\n", "")).unwrap();
    let expected = [("x-a", "1"), ("x-a", "\u{e9}"), ("x-b", "2"), ("x-c", ""), ("content-length", "0")];
    assert_eq!(received.fields, expected.map(|(name, value)| (name.to_owned(), Bytes::from(value))));
    for line_ends in ["HTTP/1.1 200 OK\nx: y\n\n", "HTTP/1.1 200 OK\r\nx: y\n\r\n", "HTTP/1.1 200 OK\nx: y\r\n\n"] {
        let received = get(line_ends).unwrap();
        assert_eq!(received.fields, [("x".to_owned(), Bytes::from("y"))], "{line_ends:?}");
    }
}

#[tokio::test]
async fn a_non_standard_reason_phrase_is_kept() {
    for (status, expected) in [
        ("200 OK", None),
        ("200 Fine, thank you", Some("Fine, thank you")),
        ("299 Odd", Some("Odd")),
        ("404 ", Some("")),
        ("404", Some("")),
    ] {
        let script = ScriptedStream::new([Bytes::from(response(status, "content-length: 0\r\n", ""))], StreamEnd::Open);
        let mut connection = Http1Connection::new(script, WRITE_TIMEOUT);
        begin(&mut connection, request(Method::GET));
        let head = head(&mut connection).await.unwrap();
        let reason = head.extensions().get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        assert_eq!(reason, expected.map(|reason| reason.as_bytes().to_vec()), "{status}");
    }
}

#[test]
fn a_repeated_content_length_is_merged() {
    for fields in ["content-length: 2\r\ncontent-length: 2\r\n", "content-length: 2,2\r\n"] {
        let received = get(response("200 OK", fields, "ok")).unwrap();
        assert_eq!(received.fields, [("content-length".to_owned(), Bytes::from("2"))], "{fields:?}");
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn a_malformed_response_is_rejected() {
    for head in [
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html>",
        "\0",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\rx: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n x: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\rz\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx\0: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \x7f\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1,\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n\r\n",
    ] {
        let more = "0\r\n\r\n".repeat(9);
        for response in [head.to_owned(), format!("{head}{more}")] {
            let received = get(&response);
            assert!(matches!(&received, Err(error) if error.is_protocol()), "{response:?}: {received:?}");
        }
    }
}

#[test]
fn a_malformed_chunk_is_never_an_end() {
    for chunks in [
        "\r\n\r\n",
        ";x\r\n\r\n",
        " \r\n\r\n",
        "\n\r\n",
        " 0\r\n\r\n",
        "x\r\n\r\n",
        "-0\r\n\r\n",
        "+0\r\n\r\n",
        "0x0\r\n\r\n",
        "0 0\r\n\r\n",
        "0_\r\n\r\n",
        "0\n\r\n",
        "0\r\r\n\r\n",
        "0;a\rb\r\n\r\n",
        "0;a\nb\r\n\r\n",
        "00000000000000000\r\n\r\n",
        "10000000000000000\r\n\r\n",
        "0\r\n\n",
        "0\r\na: b\n\r\n",
        "0\r\na: b\r\n\n",
        "0\r\nno field\r\n\r\n",
        "0\r\na : b\r\n\r\n",
        "0\r\na: b\r\n c\r\n\r\n",
        "0\r\na: b\0\r\n\r\n",
        "0\r\na: b\rc: d\r\n\r\n",
    ] {
        let received = get(format!("{CHUNKED}{chunks}"));
        assert!(matches!(&received, Err(error) if error.is_protocol()), "{chunks:?}: {received:?}");
        let received = get(format!("{CHUNKED}5\r\nhello\r\n{chunks}"));
        assert!(matches!(&received, Err(error) if error.is_protocol()), "{chunks:?} after one: {received:?}");
    }
    for chunks in
        ["5\r\nhello0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\r\n0\r\n\r\n"]
    {
        let received = get(format!("{CHUNKED}{chunks}"));
        assert!(matches!(&received, Err(error) if error.is_protocol()), "{chunks:?}: {received:?}");
    }
    assert!(matches!(get(format!("{CHUNKED}ffffffffffffffff\r\nhello\r\n0\r\n\r\n")), Err(Error::Incomplete)));
}

#[test]
fn a_malformed_chunk_is_rejected_without_more_bytes() {
    for chunks in ["hello", "\r", " ", "5\r\nhello\r\n{"] {
        let response = Bytes::from(format!("{CHUNKED}{chunks}"));
        assert!(matches!(receive(Method::GET, [response], StreamEnd::Open), Err(Error::Invalid(_))), "{chunks:?}");
    }
}

#[test]
fn a_truncated_response_is_never_complete() {
    let whole = [
        response("200 OK", "content-length: 5\r\n", "hello"),
        response("200 OK", "transfer-encoding: chunked\r\n", "2\r\nhe\r\n3;x\r\nllo\r\n0\r\na: b\r\n\r\n"),
        response("103 Early Hints", "", "") + &response("200 OK", "content-length: 0\r\n", ""),
    ];
    for whole in whole.map(Bytes::from) {
        for at in 0..whole.len() {
            let received = receive(Method::GET, [whole.slice(..at)], StreamEnd::Clean);
            assert!(matches!(&received, Err(Error::Incomplete)), "{:?}: {received:?}", whole.slice(..at));
            let received = receive(Method::GET, [whole.slice(..at)], StreamEnd::Broken);
            assert!(matches!(&received, Err(Error::Io(_))), "{:?}: {received:?}", whole.slice(..at));
        }
        // After a complete response, how the connection ends does not matter.
        receive(Method::GET, [whole], StreamEnd::Broken).unwrap();
    }
    let until_end = Bytes::from(response("200 OK", "", "hello"));
    assert_eq!(receive(Method::GET, [until_end.clone()], StreamEnd::Clean).unwrap().body, b"hello");
    assert!(matches!(receive(Method::GET, [until_end], StreamEnd::Broken), Err(Error::Io(_))));
}

/// A response whose head has `bytes` bytes and `fields` fields.
fn large(bytes: usize, fields: usize) -> String {
    let mut head = "HTTP/1.1 204 No Content\r\n".to_owned();
    head.push_str(&"a: \r\n".repeat(fields - 1));
    let left = bytes.saturating_sub(head.len() + "b: \r\n\r\n".len());
    head + "b: " + &"x".repeat(left) + "\r\n\r\n"
}

#[test]
fn a_head_has_limits() {
    for (head, is_read) in [
        (large(head::MAX_BYTES, 1), true),
        (large(head::MAX_BYTES + 1, 1), false),
        (large(head::MAX_BYTES * 3, 1), false),
        (large(0, 128), true),
        (large(0, 129), false),
    ] {
        let length = head.len();
        assert_eq!(get(&head).is_ok(), is_read, "{length} bytes");
        let bytewise = head.bytes().map(|byte| Bytes::from(vec![byte]));
        assert_eq!(receive(Method::GET, bytewise, StreamEnd::Clean).is_ok(), is_read, "{length} bytes, one by one");
    }
    let endless = std::iter::repeat_n(Bytes::from(vec![b'x'; 1000]), 1000);
    let endless = std::iter::once(Bytes::from("HTTP/1.1 200 OK\r\nx: ")).chain(endless);
    let mut connection = Http1Connection::new(ScriptedStream::new(endless, StreamEnd::Open), WRITE_TIMEOUT);
    begin(&mut connection, request(Method::GET));
    let Poll::Ready(rejected) = connection.poll_response(&mut Context::from_waker(Waker::noop())) else {
        panic!("the exchange waits for more bytes")
    };
    assert!(rejected.unwrap_err().is_protocol());
    assert!(connection.incoming.len() < head::MAX_BYTES + LARGE_READ);
}

#[test]
fn chunks_have_limits() {
    let extension = |bytes: usize| format!("1;{}\r\nx\r\n", "e".repeat(bytes - 1));
    let trailers = |count: usize, bytes: usize| format!("a: {}\r\n", "t".repeat(bytes - 5)).repeat(count);
    for (chunks, is_read) in [
        (extension(4000), true),
        (extension(5000), false),
        (extension(1000).repeat(16), true),
        (extension(1000).repeat(17), false),
        // Without extensions, any number of chunks is accepted, even padded ones.
        ("0000001    \r\nx\r\n".repeat(10_000), true),
    ] {
        assert_eq!(get(format!("{CHUNKED}{chunks}0\r\n\r\n")).is_ok(), is_read, "{chunks:.20}");
    }
    for (trailers, is_read) in
        [(trailers(32, 10), true), (trailers(33, 10), false), (trailers(3, 5000), true), (trailers(4, 5000), false)]
    {
        assert_eq!(get(format!("{CHUNKED}0\r\n{trailers}\r\n")).is_ok(), is_read, "{} bytes", trailers.len());
    }
    for endless in ["1;", "0\r\na: "] {
        let endless = Bytes::from(format!("{CHUNKED}{endless}{}", "x".repeat(20_000)));
        assert!(matches!(receive(Method::GET, [endless], StreamEnd::Open), Err(Error::Invalid(_))));
    }
}

#[test]
fn reading_does_not_depend_on_how_bytes_are_split() {
    let responses = [
        response("200 OK", "x: y\r\ncontent-length: 5\r\n", "hello"),
        response(
            "200 OK",
            "transfer-encoding: chunked\r\n",
            "5;x=\"y\"\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\na: b\r\n\r\n",
        ),
        response("100 Continue", "", "")
            + &response("103 Early Hints", "a: b\r\n", "")
            + &response("200 OK", "", "hello"),
        "HTTP/1.0 404 Not Found\na: b\ncontent-length: 2\n\nno".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        response("200 OK", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n\r\n"),
        response("200 OK", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\n"),
        response("200 OK", "content-length: 5\r\ncontent-length: 6\r\n", "hello"),
        response("200 OK", "content-length: 6\r\n", "hello"),
    ];
    for response in responses.map(Bytes::from) {
        let whole = receive(Method::GET, [response.clone()], StreamEnd::Clean).ok();
        for at in 1..response.len() {
            let cut = [response.slice(..at), response.slice(at..)];
            assert_eq!(receive(Method::GET, cut, StreamEnd::Clean).ok(), whole, "{response:?} cut at {at}");
        }
        let bytewise = response.iter().map(|byte| Bytes::from(vec![*byte]));
        assert_eq!(receive(Method::GET, bytewise, StreamEnd::Clean).ok(), whole, "{response:?}");
    }
}

#[test]
fn a_large_response_is_read_unchanged() {
    for length in [SMALL_READ - 1, SMALL_READ, SMALL_READ + 1, LARGE_READ, 3 * LARGE_READ + 7] {
        let body: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let fields = format!("content-length: {length}\r\n");
        let received = get(response("200 OK", &fields, &body)).unwrap();
        assert!(received.body == body.as_bytes() && received.is_reusable, "{length} bytes");
        let chunks = body
            .as_bytes()
            .chunks(1000)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()));
        let received = get(format!("{CHUNKED}{}0\r\n\r\n", chunks.collect::<String>())).unwrap();
        assert!(received.body == body.as_bytes() && received.is_reusable, "{length} bytes in chunks");
    }
}
