//! Message framing: compares the proxy's framer with hyper, which parses what the framer lets through.
//!
//! If the two saw different messages in the same bytes, a request could be smuggled past the proxy's checks. hyper gets exactly what the
//! framer and the head check let through, as in the program. Then it must serve no message that the framer did not count, each served
//! message must have the head and body that the framer saw, and hyper must reject no head itself.

mod hyper;

use std::ops::Range;

use bytes::Bytes;
use finicity_proxy::message::framing::{FramingError, HeadLimits, MessageFramer, Position, check};
use http::Uri;

use self::hyper::Served;

/// Small enough for the fuzzer to exceed.
const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 10 };

/// Checks a connection that starts with `input`.
pub fn framing(input: &[u8]) {
    let outcome = frame(input, |_| input.len());
    for size in [1, 2, 7, 64, 4096] {
        assert_eq!(frame(input, |_| size), outcome, "in pieces of {size} bytes");
    }
    let by_content = |at: usize| usize::from(input[at] % 16) + 1;
    assert_eq!(frame(input, by_content), outcome, "in pieces of changing sizes");

    let framed = &input[..outcome.error.map_or(input.len(), |error| error.offset)];
    check_heads(framed);
    let mut messages = messages(framed);
    assert_eq!(messages.len() as u64, outcome.heads);
    // For the first head that hyper cannot parse, the program passes on a substitute, and nothing after it.
    let unreadable = messages.iter().position(|message| !message.is_readable);
    // It does not pass on an incomplete head.
    let whole = framed.len() - outcome.unfinished;
    let passed = &framed[..unreadable.map_or(whole, |number| messages[number].head.start)];
    messages.truncate(unreadable.unwrap_or(messages.len()));
    for takes_bodies in [true, false] {
        for (served, rejected) in
            [hyper::serve(passed, takes_bodies, |_| passed.len()), hyper::serve(passed, takes_bodies, by_content)]
        {
            assert!(!rejected, "hyper rejects a head in {}", passed.escape_ascii());
            assert!(served.len() <= messages.len(), "hyper serves {served:?}, the framer saw {messages:?}");
            served.iter().zip(&messages).for_each(|(served, message)| compare(served, message, passed));
        }
    }
}

/// The result of framing a connection.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    heads: u64,
    position: Position,
    error: Option<FramingError>,
    /// The number of bytes of an incomplete head.
    unfinished: usize,
}

/// Frames `input` in pieces; `size` returns the size of the piece at an offset.
fn frame(input: &[u8], size: impl Fn(usize) -> usize) -> Outcome {
    let mut framer = MessageFramer::new(LIMITS);
    let (mut at, mut error) = (0, None);
    while at < input.len() && error.is_none() {
        let end = input.len().min(at + size(at));
        error = framer.consume(&input[at..end]).err().map(|error| FramingError { offset: at + error.offset, ..error });
        at = end;
    }
    let unfinished = if error.is_none() { framer.head_bytes() } else { 0 };
    Outcome { heads: framer.heads(), position: framer.position(), error, unfinished }
}

/// A message as the framer saw it.
#[derive(Debug)]
struct Message {
    head: Range<usize>,
    /// The body, if it is complete.
    body: Option<Range<usize>>,
    /// Whether the head has a fault. Then the service rejects the message by its number, and its body does not matter.
    rejected: bool,
    /// Whether the head is passed on unchanged.
    is_readable: bool,
}

/// Checks that the incremental check of a head agrees with the full one.
fn check_heads(passed: &[u8]) {
    let (mut framer, mut at) = (MessageFramer::new(LIMITS), 0);
    while at < passed.len() {
        let heads = framer.heads();
        let (consumed, fault) = match framer.consume_to_head_end(&passed[at..]) {
            Ok(consumed) => (consumed, None),
            Err(error) => (error.offset, Some(error.fault)),
        };
        at += consumed;
        if framer.heads() > heads {
            let ended = framer.ended_head();
            let head = &passed[at - ended.bytes..at];
            assert_eq!(ended.check(head, LIMITS.headers), check(head, LIMITS.headers));
        }
        if fault.is_some() {
            return;
        }
    }
}

/// The messages with a complete head in `passed`.
fn messages(passed: &[u8]) -> Vec<Message> {
    let mut framer = MessageFramer::new(LIMITS);
    let (mut messages, mut start) = (Vec::<Message>::new(), 0);
    for (at, byte) in passed.iter().enumerate() {
        let heads = framer.heads();
        let fault = framer.consume(&[*byte]).err().map(|error| error.fault);
        let end = at + 1;
        if framer.heads() > heads {
            let ended = framer.ended_head();
            let head = &passed[end - ended.bytes..end];
            let is_readable = ended.is_readable && check(head, LIMITS.headers).is_ok();
            messages.push(Message { head: start..end, body: None, rejected: fault.is_some(), is_readable });
        }
        if fault.is_none() && framer.position() == Position::Between {
            start = end;
            if let Some(message) = messages.last_mut().filter(|message| message.body.is_none()) {
                message.body = Some(message.head.end..end);
            }
        }
        assert!(fault.is_none() || end == passed.len(), "the framed bytes contain a fault");
    }
    messages
}

/// Checks that hyper served the message that the framer saw.
fn compare(served: &Served, message: &Message, passed: &[u8]) {
    let head = passed[message.head.clone()].trim_ascii_start();
    let mut words = head.split(|byte| b" \r\n".contains(byte));
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    assert_eq!(served.method.as_str().as_bytes(), method, "{}", head.escape_ascii());
    assert_eq!(Some(&served.uri), Uri::try_from(target).ok().as_ref(), "{}", head.escape_ascii());
    if let Some(body) = served.body.as_ref().filter(|_| !message.rejected) {
        let seen = message
            .body
            .clone()
            .unwrap_or_else(|| panic!("hyper completed a body that the framer did not: {served:?}"));
        let seen = &passed[seen];
        let seen = if served.chunked { dechunked(seen) } else { Bytes::copy_from_slice(seen) };
        assert_eq!(*body, seen, "{}", head.escape_ascii());
    }
}

/// The data of `body`, a complete chunked body according to the framer.
fn dechunked(mut body: &[u8]) -> Bytes {
    let mut data = Vec::new();
    loop {
        let line = take_line(&mut body);
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = str::from_utf8(&line[..digits]).expect("digits are ASCII");
        let size = usize::from_str_radix(size, 16).expect("the size of a complete chunk fits");
        if size == 0 {
            break;
        }
        data.extend_from_slice(&body[..size]);
        body = &body[size..];
        assert_eq!(take_line(&mut body), b"\r\n", "a chunk is as long as its size says");
    }
    while take_line(&mut body) != b"\r\n" {}
    assert!(body.is_empty(), "bytes after the body: {}", body.escape_ascii());
    data.into()
}

fn take_line<'a>(body: &mut &'a [u8]) -> &'a [u8] {
    let end = body.iter().position(|byte| *byte == b'\n').expect("every line of a chunked body ends with LF");
    let (line, rest) = body.split_at(end + 1);
    *body = rest;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against an oracle that serves nothing and therefore agrees with everything.
    #[test]
    fn r04_hyper_serves_well_formed_messages_with_bodies() {
        let input = b"GET /a?b HTTP/1.1\r\n\r\n\
            POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n\
            DELETE /d HTTP/1.1\r\n\r\n";
        let (served, rejected) = hyper::serve(input, true, |_| 5);
        assert!(!rejected);
        let shown: Vec<_> = served.iter().map(|s| (s.uri.path(), s.body.as_deref().unwrap())).collect();
        assert_eq!(shown, [("/a", &b""[..]), ("/b", b"abc"), ("/c", b"abcde"), ("/d", b"")]);
        assert_eq!(messages(input).len(), 4);
        // If the service does not read bodies, hyper skips only those with a length.
        let (without, _) = hyper::serve(input, false, |_| input.len());
        assert_eq!(without.len(), 3, "{without:?}");
        assert!(hyper::serve(b"GET /<> HTTP/1.1\r\n\r\n", true, |_| 5).1);
    }
}
