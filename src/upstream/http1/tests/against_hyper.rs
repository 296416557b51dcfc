//! Comparison with hyper: hyper's client accepts each response that is accepted as complete here, with the same content. hyper may accept
//! more.

use hyper_util::rt::TokioIo;
use proptest::{prelude::*, sample::Index};

use super::*;

/// The response to a request with `method`, as hyper reads it.
async fn hyper(method: Method, script: ScriptedStream) -> hyper::Result<ReceivedResponse> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(head::MAX_BYTES).max_headers(128);
    let (mut sender, connection) = builder.handshake::<_, TestBody>(TokioIo::new(script)).await?;
    let driving = tokio::spawn(connection);
    let exchange = async {
        let (head, body) = sender.send_request(request(method)).await?.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        Ok(ReceivedResponse { status: head.status.as_u16(), fields: fields(&head.headers), body, is_reusable: false })
    };
    let received = exchange.await;
    driving.abort();
    received
}

/// Responses composed of parts that may be malformed.
fn responses() -> impl Strategy<Value = Vec<u8>> {
    let pick = |from: &'static [&'static str]| proptest::sample::select(from).prop_map(str::to_owned);
    let informational =
        pick(&["", "", "", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n", "\r\n"]);
    let status = pick(&[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 404 \r\n",
        "HTTP/1.0 500 Oh\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 304 Not Modified\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
    ]);
    let field = pick(&[
        "a: b\r\n",
        "Set-Cookie: c=d\r\n",
        "a:\n",
        "connection: close\r\n",
        "connection: keep-alive\r\n",
        "x: \u{e9}\r\n",
    ]);
    let framing = pick(&[
        "content-length: 5\r\n",
        "content-length: 5\r\n",
        "content-length: 5, 5\r\n",
        "content-length: 6\r\n",
        "content-length: 0\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "",
    ]);
    let chunk = pick(&[
        "5\r\nhello\r\n",
        "1;e=f\r\nx\r\n",
        "02 \r\nab\r\n",
        "\r\n",
        ";\r\n",
        "A\r\n0123456789\r\n",
        "5\nhello\n",
    ]);
    let chunks = prop::collection::vec(chunk, 0..4).prop_map(|chunks| chunks.concat());
    let last_chunk = pick(&[
        "0\r\n\r\n",
        "0\r\n\r\n",
        "0\r\na: b\r\n\r\n",
        "00;x\r\na: b\r\nc: d\r\n\r\n",
        "0\r\n\n",
        "0\r\nx\r\n\r\n",
        "\r\n\r\n",
        "0",
    ]);
    let body =
        prop_oneof![pick(&["hello", "hell", "hello, world", ""]), (chunks, last_chunk).prop_map(|(a, b)| a + &b)];
    let fields = prop::collection::vec(field, 0..3).prop_map(|fields| fields.concat());
    (informational, status, fields, framing, pick(&["\r\n", "\r\n", "\r\n", "\n"]), body)
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].concat().into_bytes())
}

/// A mutation of a response.
#[derive(Clone, Debug)]
enum Change {
    Put(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Put(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let special_bytes = proptest::sample::select(&b"\r\n :;,\t\x00019aAfFgx-+\x7f\xff"[..]);
    let byte = prop_oneof![4 => special_bytes, 1 => any::<u8>()].boxed();
    let change = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Cut),
    ];
    prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(change, 1..4)]
}

/// `bytes`, split at `cuts`.
fn pieces(bytes: &[u8], cuts: &[Index]) -> Vec<Bytes> {
    let mut offsets: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    offsets.extend([0, bytes.len()]);
    offsets.sort_unstable();
    offsets.dedup();
    offsets.windows(2).map(|ends| Bytes::copy_from_slice(&bytes[ends[0]..ends[1]])).collect()
}

/// All fields except `Content-Length`, because equal ones are merged here but not by hyper.
fn fields_without_length(received: &ReceivedResponse) -> Vec<&(String, Bytes)> {
    received.fields.iter().filter(|(name, _)| name != "content-length").collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_complete_response_is_the_same_to_hyper(
        response in responses(),
        changes in changes(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
        method in proptest::sample::select(&[Method::GET, Method::GET, Method::HEAD, Method::POST][..]),
    ) {
        let mut response = response;
        changes.iter().for_each(|change| change.apply(&mut response));
        let cut = pieces(&response, &cuts);
        let ours = receive(method.clone(), cut.clone(), StreamEnd::Clean).ok();
        let message_of = |received: &Option<ReceivedResponse>| {
            received.as_ref().map(|received| (received.status, received.fields.clone(), received.body.clone()))
        };
        let whole = receive(method.clone(), pieces(&response, &[]), StreamEnd::Clean).ok();
        prop_assert_eq!(message_of(&ours), message_of(&whole), "the result depends on the split");
        let Some(ours) = ours else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let theirs = runtime.block_on(hyper(method, ScriptedStream::new(cut, StreamEnd::Clean)));
        let theirs = theirs.map_err(|error| TestCaseError::fail(format!("hyper rejects {ours:?}: {error:?}")))?;
        prop_assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body));
        prop_assert_eq!(fields_without_length(&ours), fields_without_length(&theirs));
    }
}
