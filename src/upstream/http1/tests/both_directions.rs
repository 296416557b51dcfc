//! Chunked bodies of requests and responses: in both directions, the same bytes end at the same offset or are malformed.

use bytes::BytesMut;
use proptest::prelude::*;

use crate::{
    message::framing::{ChunkLine, HeadLimits, MessageFramer, Position},
    upstream::http1::decoder::{Decoded, Decoder},
};

/// The end of a request body, as an offset in `body`. `None` if it is malformed or incomplete.
fn end_in_request(body: &[u8]) -> Option<usize> {
    let mut framer = MessageFramer::new(HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 });
    framer.consume(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("the head is well-formed");
    let ends = |byte: &u8| framer.consume(&[*byte]).is_ok().then(|| framer.position() != Position::Body);
    body.iter().map_while(ends).position(|ends| ends).map(|at| at + 1)
}

/// The end of a response body, likewise.
fn end_in_response(body: &[u8]) -> Option<usize> {
    let (mut decoder, mut bytes) = (Decoder::CHUNKED, BytesMut::from(body));
    loop {
        match decoder.decode(&mut bytes) {
            Ok(Decoded::Data(_)) => {}
            Ok(Decoded::End) => return Some(body.len() - bytes.len()),
            Ok(Decoded::NeedMore) | Err(_) => return None,
        }
    }
}

/// Whether the last chunk is followed by anything other than the end of the body. The two directions parse trailers differently: those of
/// responses with httparse, those of requests as lines that are dropped.
fn has_trailers(mut body: &[u8]) -> bool {
    loop {
        let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") else { return false };
        let (line, rest) = body.split_at(end + 2);
        let Some(ChunkLine { size, .. }) = ChunkLine::parse(line) else { return false };
        if size == 0 {
            return !rest.is_empty() && !rest.starts_with(b"\r\n");
        }
        let next = usize::try_from(size).ok().and_then(|size| size.checked_add(2));
        let Some(rest) = next.and_then(|next| rest.get(next..)) else { return false };
        body = rest;
    }
}

/// Chunk sizes, what may follow them, and line ends; mostly malformed.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "0",
        "3",
        "003",
        "A",
        "a",
        "0000000000000003",
        "00000000000000003",
        "10000000000000000",
        "-3",
        "+3",
        "0x3",
        " ",
        "\t",
        "\u{b}",
        "\u{c}",
        "\0",
        ";",
        ";a",
        ";a=b",
        "; a = \"b;c\"",
        "\r",
        "\n",
        "\r\n",
        "\r\n",
        "\r\n",
        "abc",
        "abc\r\n",
        "3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "3;x=y\r\nabc\r\n",
        "3\t;x\r\nabc\r\n",
    ])
}

proptest! {
    #[test]
    fn a_chunked_body_ends_at_the_same_byte(
        chunks in prop::collection::vec(piece(), 0..6),
        last_chunk in prop::sample::select(vec!["0\r\n\r\n", "0", "0 ", "0\t", "0\u{b}", "0\u{c}", "0;x", "0 ;x", "00", ""]),
        end in prop::sample::select(vec!["\r\n\r\n", "\n\r\n", "\r\n\n", "\r\r\n\r\n", "", "\r\n\r\nGET / HTTP/1.1\r\n"]),
    ) {
        let body = chunks.concat() + last_chunk + end;
        if !has_trailers(body.as_bytes()) {
            prop_assert_eq!(end_in_request(body.as_bytes()), end_in_response(body.as_bytes()), "{:?}", body);
        }
    }
}

#[test]
fn a_padded_chunk_size_is_valid_in_both_directions() {
    for (last_chunk, is_end) in [("0", true), ("0 ", true), ("0 \t;x", true), ("0\u{c}", false), ("0\u{c};x", false)] {
        let body = format!("{last_chunk}\r\n\r\n");
        let end = is_end.then_some(body.len());
        assert_eq!((end_in_request(body.as_bytes()), end_in_response(body.as_bytes())), (end, end), "{body:?}");
    }
}
