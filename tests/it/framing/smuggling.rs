//! Request smuggling: thousands of ways to say "the body ends elsewhere", against the running program.
//!
//! Whatever is sent, the upstream must see exactly the requests that the proxy answered as forwarded. One more would be a request
//! that somebody smuggled past the proxy's checks, with the proxy's credentials on it.

use std::{
    collections::{BTreeSet, HashMap},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
};

use crate::support::{
    TIMEOUT,
    process::Proxy,
    upstream::{ReceivedRequest, Reply, Upstream},
};

/// Header lines that some reader may take for `Transfer-Encoding: chunked`, and some may not.
#[expect(clippy::too_many_lines, reason = "a table")]
fn gadgets() -> BTreeSet<Vec<u8>> {
    let mut gadgets = BTreeSet::new();
    let mut add = |parts: &[&[u8]]| gadgets.insert(parts.concat());
    let (name, value) = (b"Transfer-Encoding".as_slice(), b"chunked".as_slice());
    for byte in (0_u8..=0x2f).chain(0x3a..=0x40).chain(0x5b..=0x60).chain(0x7b..=0xff).filter(|byte| *byte != b'\n') {
        let byte = &[byte][..];
        add(&[name, byte, b": ", value]);
        add(&[byte, name, b": ", value]);
        add(&[name, b":", byte, value]);
        add(&[name, b": ", value, byte]);
        add(&[name, b": ", byte, value, byte]);
        add(&[name, b": ", value, b",", byte]);
        add(&[b"X: y", byte, name, b": ", value]);
        add(&[b"X: y\r\n", byte, name, b": ", value]);
        add(&[b"Transfer", byte, b"Encoding: ", value]);
    }
    for separator in [&b":"[..], b": ", b":\t", b": \t ", b" : ", b"\t:", b":\r\n ", b":\r\n\t", b":\n ", b"::", b":  "]
    {
        for value in [
            &b"chunked"[..],
            b"CHUNKED",
            b"Chunked",
            b"chunked ",
            b"chunked\t",
            b"\"chunked\"",
            b"'chunked'",
            b"chunked;x",
            b"chunked;q=0",
            b"identity",
            b"identity, chunked",
            b"chunked, identity",
            b"gzip, chunked",
            b"chunked, gzip",
            b"xchunked",
            b"chunkedx",
            b"chunk",
            b"cow",
            b"",
            b",chunked",
            b"chunked,",
            b"x chunked",
            b"chunked x",
            b"{chunked}",
            b"[chunked]",
            b"chun\0ked",
            b"chunked\0",
            b"%63hunked",
            b"chunked\r\nTransfer-Encoding: identity",
            b"identity\r\nTransfer-Encoding: chunked",
            b"chunked\r\nTransfer-Encoding: chunked",
            b"chunked\nTransfer-Encoding: x",
            b"x\nTransfer-Encoding: chunked",
        ] {
            for name in [
                &b"Transfer-Encoding"[..],
                b"transfer-encoding",
                b"TRANSFER-ENCODING",
                b"tRANSFER-eNCODING",
                b"Transfer_Encoding",
                b"Content-Encoding",
            ] {
                gadgets.insert([name, separator, value].concat());
            }
        }
    }
    gadgets
}

/// The bytes of one attempt: a request with the gadget, a body that is empty in chunks and not without them, another request
/// that is a part of the body by one length, and a last one that closes the connection. All targets end with `id`.
fn attempt(id: &str, length: &str, gadget: &[u8]) -> Vec<u8> {
    let head = format!("POST /first{id} HTTP/1.1\r\nHost: localhost\r\n{length}");
    let smuggled = format!("0\r\n\r\nGET /smuggled{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let last = format!("GET /last{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), gadget, b"\r\n\r\n", smuggled.as_bytes(), last.as_bytes()].concat()
}

/// Sends `bytes` on a connection of their own, and gives all that comes back until it is closed.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answers = Vec::new();
    let ended = stream.read_to_end(&mut answers);
    assert!(ended.is_ok(), "{ended:?} after {}", bytes.escape_ascii());
    answers
}

/// What every answer of the upstream has, and none of the proxy's own.
const MARK: &str = "x-from-upstream: 1";

/// How many of the answers are the upstream's.
fn forwarded(answers: &[u8]) -> usize {
    answers.windows(MARK.len()).filter(|window| *window == MARK.as_bytes()).count()
}

#[test]
fn a15_the_upstream_sees_exactly_what_was_answered_as_forwarded() {
    let upstream = Upstream::start(3600, |_| {
        Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{MARK}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    });
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LOG__LEVEL", "info")]);
    let lengths = ["", "Content-Length: 5\r\n", "Content-Length: 59\r\n"];
    let attempts: Vec<(String, Vec<u8>)> = gadgets()
        .iter()
        .flat_map(|gadget| lengths.map(|length| (length, gadget)))
        .enumerate()
        .map(|(number, (length, gadget))| {
            let id = format!("-{number:06}");
            let bytes = attempt(&id, length, gadget);
            (id, bytes)
        })
        .collect();
    assert!(attempts.len() > 5_000, "{}", attempts.len());

    let address = proxy.proxy[0];
    let work = |part: &[(String, Vec<u8>)]| -> Vec<usize> {
        part.iter().map(|(_, bytes)| forwarded(&exchange(address, bytes))).collect()
    };
    let answered: Vec<usize> = thread::scope(|scope| {
        let parts = attempts.chunks(attempts.len().div_ceil(4));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });

    let mut seen: HashMap<String, Vec<ReceivedRequest>> = HashMap::new();
    for request in upstream.requests() {
        let id = request.target().rsplit_once('-').unwrap().1.to_owned();
        seen.entry(format!("-{id}")).or_default().push(request);
    }
    for ((id, bytes), answered) in attempts.iter().zip(answered) {
        let requests = seen.remove(id).unwrap_or_default();
        let shown = bytes.escape_ascii();
        assert_eq!(requests.len(), answered, "{shown}");
        // A coding that was understood is the plain one: nobody else's reading of the rest could then differ.
        if requests
            .first()
            .is_some_and(|first| first.target().starts_with("/first") && !first.headers("transfer-encoding").is_empty())
        {
            let head = String::from_utf8_lossy(bytes).to_lowercase();
            let plain = head.split("\r\n\r\n").next().unwrap().split(['\r', '\n']).any(|line| {
                line.strip_prefix("transfer-encoding:")
                    .is_some_and(|value| value.trim_matches([' ', '\t']) == "chunked")
            });
            assert!(plain && !head.contains("content-length"), "{shown}");
        }
    }
    assert!(seen.is_empty(), "requests that nobody sent: {:?}", seen.keys());
}
