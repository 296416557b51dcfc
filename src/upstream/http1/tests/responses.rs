//! How answers are read.

use hyper::ext::ReasonPhrase;

use super::*;

/// A whole answer with this status line's end, these fields and this body.
fn answer(status: &str, fields: &str, body: &str) -> String {
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
        let seen = get(answer("200 OK", fields, sent)).unwrap();
        assert_eq!((seen.status, &*seen.body), (200, body.as_bytes()), "{fields:?} {sent:?}");
        assert_eq!(seen.is_reusable, is_reusable, "{fields:?} {sent:?}");
    }
}

#[test]
fn an_old_server_keeps_its_connection_only_where_it_says_so() {
    for (fields, is_reusable) in [("", false), ("connection: Keep-Alive\r\n", true), ("connection: close\r\n", false)] {
        let seen = get(format!("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n{fields}\r\nok")).unwrap();
        assert_eq!((&*seen.body, seen.is_reusable), (&b"ok"[..], is_reusable), "{fields:?}");
    }
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
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
        let head = Bytes::from(answer(status, fields, ""));
        let seen = see(method.clone(), [head], Last::Silence).unwrap();
        assert_eq!((&*seen.body, seen.is_reusable), (&b""[..], is_reusable), "{method} {status} {fields:?}");
    }
}

#[test]
fn informational_answers_are_skipped_unless_they_do_not_end() {
    let some = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".repeat(900);
    let seen = get(some.clone() + "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok").unwrap();
    assert_eq!((seen.status, &*seen.body, seen.is_reusable), (200, &b"ok"[..], true));
    assert_eq!(seen.fields[0], ("x-a".to_owned(), Bytes::from("1")));
    assert_eq!(seen.fields.len(), 2);
    assert!(matches!(get(some.clone()), Err(Error::Incomplete)));
    let endless = std::iter::repeat_n(Bytes::from(some), 100);
    assert!(matches!(see(Method::GET, endless, Last::Silence), Err(Error::Invalid(_))));
}

#[test]
fn a_head_is_read_as_it_is() {
    let seen = get(answer("200", "X-A:1\r\nx-b:  2 \t\r\nX-a: \u{e9}\r\nx-c:\r\ncontent-length: 0\r\n", "")).unwrap();
    let expected = [("x-a", "1"), ("x-a", "\u{e9}"), ("x-b", "2"), ("x-c", ""), ("content-length", "0")];
    assert_eq!(seen.fields, expected.map(|(name, value)| (name.to_owned(), Bytes::from(value))));
    for line_ends in ["HTTP/1.1 200 OK\nx: y\n\n", "HTTP/1.1 200 OK\r\nx: y\n\r\n", "HTTP/1.1 200 OK\nx: y\r\n\n"] {
        let seen = get(line_ends).unwrap();
        assert_eq!(seen.fields, [("x".to_owned(), Bytes::from("y"))], "{line_ends:?}");
    }
}

#[tokio::test]
async fn a_reason_of_the_upstreams_own_is_kept() {
    for (status, expected) in [
        ("200 OK", None),
        ("200 Fine, thank you", Some("Fine, thank you")),
        ("299 Odd", Some("Odd")),
        ("404 ", Some("")),
        ("404", Some("")),
    ] {
        let script = Script::new([Bytes::from(answer(status, "content-length: 0\r\n", ""))], Last::Silence);
        let mut line = Http1Connection::new(script, PATIENCE);
        begin(&mut line, request(Method::GET));
        let head = head(&mut line).await.unwrap();
        let reason = head.extensions().get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        assert_eq!(reason, expected.map(|reason| reason.as_bytes().to_vec()), "{status}");
    }
}

#[test]
fn a_length_that_is_said_twice_is_passed_on_once() {
    for fields in ["content-length: 2\r\ncontent-length: 2\r\n", "content-length: 2,2\r\n"] {
        let seen = get(answer("200 OK", fields, "ok")).unwrap();
        assert_eq!(seen.fields, [("content-length".to_owned(), Bytes::from("2"))], "{fields:?}");
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn what_is_no_answer_is_refused() {
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
        for answer in [head.to_owned(), format!("{head}{more}")] {
            let seen = get(&answer);
            assert!(matches!(&seen, Err(error) if error.is_of_the_protocol()), "{answer:?}: {seen:?}");
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
        let seen = get(format!("{CHUNKED}{chunks}"));
        assert!(matches!(&seen, Err(error) if error.is_of_the_protocol()), "{chunks:?}: {seen:?}");
        let seen = get(format!("{CHUNKED}5\r\nhello\r\n{chunks}"));
        assert!(matches!(&seen, Err(error) if error.is_of_the_protocol()), "{chunks:?} after one: {seen:?}");
    }
    for chunks in
        ["5\r\nhello0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\r\n0\r\n\r\n"]
    {
        let seen = get(format!("{CHUNKED}{chunks}"));
        assert!(matches!(&seen, Err(error) if error.is_of_the_protocol()), "{chunks:?}: {seen:?}");
    }
    assert!(matches!(get(format!("{CHUNKED}ffffffffffffffff\r\nhello\r\n0\r\n\r\n")), Err(Error::Incomplete)));
}

#[test]
fn what_is_no_chunk_is_refused_before_more_has_come() {
    for chunks in ["hello", "\r", " ", "5\r\nhello\r\n{"] {
        let answer = Bytes::from(format!("{CHUNKED}{chunks}"));
        assert!(matches!(see(Method::GET, [answer], Last::Silence), Err(Error::Invalid(_))), "{chunks:?}");
    }
}

#[test]
fn nothing_is_whole_that_broke_off() {
    let whole = [
        answer("200 OK", "content-length: 5\r\n", "hello"),
        answer("200 OK", "transfer-encoding: chunked\r\n", "2\r\nhe\r\n3;x\r\nllo\r\n0\r\na: b\r\n\r\n"),
        answer("103 Early Hints", "", "") + &answer("200 OK", "content-length: 0\r\n", ""),
    ];
    for whole in whole.map(Bytes::from) {
        for at in 0..whole.len() {
            let seen = see(Method::GET, [whole.slice(..at)], Last::End);
            assert!(matches!(&seen, Err(Error::Incomplete)), "{:?}: {seen:?}", whole.slice(..at));
            let seen = see(Method::GET, [whole.slice(..at)], Last::Broken);
            assert!(matches!(&seen, Err(Error::Io(_))), "{:?}: {seen:?}", whole.slice(..at));
        }
        // How the connection ends then is nobody's concern.
        see(Method::GET, [whole], Last::Broken).unwrap();
    }
    let until_end = Bytes::from(answer("200 OK", "", "hello"));
    assert_eq!(see(Method::GET, [until_end.clone()], Last::End).unwrap().body, b"hello");
    assert!(matches!(see(Method::GET, [until_end], Last::Broken), Err(Error::Io(_))));
}

/// An answer whose head has so many bytes, and so many fields.
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
        assert_eq!(see(Method::GET, bytewise, Last::End).is_ok(), is_read, "{length} bytes, one by one");
    }
    let endless = std::iter::repeat_n(Bytes::from(vec![b'x'; 1000]), 1000);
    let endless = std::iter::once(Bytes::from("HTTP/1.1 200 OK\r\nx: ")).chain(endless);
    let mut line = Http1Connection::new(Script::new(endless, Last::Silence), PATIENCE);
    begin(&mut line, request(Method::GET));
    let Poll::Ready(refused) = line.poll_answer(&mut Context::from_waker(Waker::noop())) else { panic!("it waits") };
    assert!(refused.unwrap_err().is_of_the_protocol());
    assert!(line.incoming.len() < head::MAX_BYTES + LONG_READ);
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
        // Without extensions there may be any number of chunks, padded ones too.
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
        assert!(matches!(see(Method::GET, [endless], Last::Silence), Err(Error::Invalid(_))));
    }
}

#[test]
fn it_does_not_matter_how_the_bytes_come() {
    let answers = [
        answer("200 OK", "x: y\r\ncontent-length: 5\r\n", "hello"),
        answer(
            "200 OK",
            "transfer-encoding: chunked\r\n",
            "5;x=\"y\"\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\na: b\r\n\r\n",
        ),
        answer("100 Continue", "", "") + &answer("103 Early Hints", "a: b\r\n", "") + &answer("200 OK", "", "hello"),
        "HTTP/1.0 404 Not Found\na: b\ncontent-length: 2\n\nno".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        answer("200 OK", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n\r\n"),
        answer("200 OK", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\n"),
        answer("200 OK", "content-length: 5\r\ncontent-length: 6\r\n", "hello"),
        answer("200 OK", "content-length: 6\r\n", "hello"),
    ];
    for answer in answers.map(Bytes::from) {
        let whole = see(Method::GET, [answer.clone()], Last::End).ok();
        for at in 1..answer.len() {
            let cut = [answer.slice(..at), answer.slice(at..)];
            assert_eq!(see(Method::GET, cut, Last::End).ok(), whole, "{answer:?} cut at {at}");
        }
        let bytewise = answer.iter().map(|byte| Bytes::from(vec![*byte]));
        assert_eq!(see(Method::GET, bytewise, Last::End).ok(), whole, "{answer:?}");
    }
}

#[test]
fn a_long_answer_is_read_in_long_pieces_and_is_the_same() {
    for length in [SHORT_READ - 1, SHORT_READ, SHORT_READ + 1, LONG_READ, 3 * LONG_READ + 7] {
        let body: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let fields = format!("content-length: {length}\r\n");
        let seen = get(answer("200 OK", &fields, &body)).unwrap();
        assert!(seen.body == body.as_bytes() && seen.is_reusable, "{length} bytes");
        let chunks = body
            .as_bytes()
            .chunks(1000)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()));
        let seen = get(format!("{CHUNKED}{}0\r\n\r\n", chunks.collect::<String>())).unwrap();
        assert!(seen.body == body.as_bytes() && seen.is_reusable, "{length} bytes in chunks");
    }
}
