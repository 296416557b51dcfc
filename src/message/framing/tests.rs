use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };

/// Result for `bytes`, consumed in one call: the heads, the position, and the fault with the bytes up to it.
fn frame(bytes: &[u8]) -> (u64, Position, Option<(usize, FramingFault)>) {
    let mut framer = MessageFramer::new(LIMITS);
    let fault = framer.consume(bytes).err().map(|error| (error.offset, error.fault));
    (framer.heads(), framer.position(), fault)
}

/// The fault of a head with these header lines, which is found where the head ends.
#[track_caller]
fn fault_in_head(fields: &str) -> Option<FramingFault> {
    let head = format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    let (heads, _, fault) = frame(format!("{head}GET /next HTTP/1.1\r\n\r\n").as_bytes());
    if let Some((at, _)) = fault {
        assert_eq!((heads, at), (1, head.len()), "{fields:?}");
    }
    fault.map(|(_, fault)| fault)
}

#[test]
fn messages_follow_each_other() {
    let get = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(frame(get.repeat(3).as_bytes()), (3, Position::Between, None));
    assert_eq!(frame(b"GET /x HTTP/1.1\r\nHost: l"), (0, Position::Head, None));
    assert_eq!(frame(b"G"), (0, Position::Head, None));
    assert_eq!(frame(b""), (0, Position::Between, None));
    assert_eq!(frame(b"\r\n\n\r\nGET /x HTTP/1.0\n\n"), (1, Position::Between, None));

    let post = "POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(frame(format!("{post}a\r\n\r\n{get}").as_bytes()), (2, Position::Between, None));
    assert_eq!(frame(format!("{post}abc").as_bytes()), (1, Position::Body, None));

    let chunked = "POST /x HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let bodies = ["0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "00A;x=1\r\n0123456789\r\n0 \r\nTrailer: x\r\n\r\n"];
    for body in bodies {
        assert_eq!(frame(format!("{chunked}{body}{get}").as_bytes()), (2, Position::Between, None), "{body:?}");
        let unfinished = format!("{chunked}{}", &body[..body.len() - 1]);
        assert_eq!(frame(unfinished.as_bytes()), (1, Position::Body, None), "{body:?}");
    }
}

#[test]
fn a01_a02_a_length_and_a_coding_are_a_fault() {
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "content-length:0\r\nX: y\r\ntransfer-ENCODING:\tchunked",
        "Transfer-Encoding : chunked\r\nContent-Length: 3",
    ] {
        assert_eq!(fault_in_head(fields), Some(FramingFault::LengthAndCoding), "{fields:?}");
    }
}

#[test]
fn a03_a04_a06_a07_a08_a_length_is_one_plain_number() {
    for value in ["+3", "-1", "0x3", "3z", "", "003", "00", "3, 3", "3 3", "18446744073709551616", "3\u{b}", "٣"] {
        assert_eq!(fault_in_head(&format!("Content-Length: {value}")), Some(FramingFault::Length), "{value:?}");
    }
    assert_eq!(fault_in_head("Content-Length: 3\r\nContent-Length: 4"), Some(FramingFault::Length));
    assert_eq!(fault_in_head("Content-Length: 3\r\nContent-Length: 3"), Some(FramingFault::Length));
    assert_eq!(fault_in_head("Content-Length:\r\nContent-Length: 3"), Some(FramingFault::Length));
    assert_eq!(fault_in_head("Content-Length: 0"), None);
    assert_eq!(fault_in_head("Content-Lengths: x\r\nX-Content-Length: y\r\nContent-Leng: z"), None);
}

#[test]
fn a09_a11_a13_only_chunked_is_understood() {
    for value in ["gzip, chunked", "deflate,x-gzip , Chunked"] {
        assert_eq!(
            fault_in_head(&format!("Transfer-Encoding: {value}")),
            Some(FramingFault::UnsupportedCoding),
            "{value:?}"
        );
    }
    for value in [
        "identity",
        "identity, chunked",
        "xchunked",
        "\"chunked\"",
        "chunked;q=1",
        "cow chunked",
        "\u{b}chunked",
        "chunked, gzip",
        "chunked, chunked",
        ", chunked",
        "chunked,",
        "",
    ] {
        assert_eq!(fault_in_head(&format!("Transfer-Encoding: {value}")), Some(FramingFault::Coding), "{value:?}");
    }
    assert_eq!(fault_in_head("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), Some(FramingFault::Coding));
    assert_eq!(fault_in_head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Some(FramingFault::Coding));
}

#[test]
fn a14_http_1_0_has_no_transfer_coding() {
    let (heads, _, fault) = frame(b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!((heads, fault.map(|(_, fault)| fault)), (1, Some(FramingFault::Coding)));
}

#[test]
fn a20_a21_chunks_must_match_their_sizes() {
    for body in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "-3\r\n",
        "0x3\r\n",
        "3 3\r\n",
        "\r\n",
        ";x\r\n",
        "3;a\rb\r\n",
        "00000000000000003\r\nabc\r\n",
        "0\r\nTrailer: x\n\r\n",
    ] {
        let head = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (_, _, fault) = frame(format!("{head}{body}").as_bytes());
        assert_eq!(fault.map(|(_, fault)| fault), Some(FramingFault::Chunk), "{body:?}");
    }
    let mut framer = MessageFramer::new(LIMITS);
    framer.consume(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
    let consumed = (0..).find(|_| framer.consume(chunk.as_bytes()).is_err()).unwrap();
    assert_eq!(consumed, MAX_CHUNK_EXTRA / 1001);
}

#[test]
fn b12_c12_targets_and_heads_have_limits() {
    let fault = |head: &str| frame(head.as_bytes()).2.map(|(_, fault)| fault);
    assert_eq!(fault("GET /denied#/allowed HTTP/1.1\r\n\r\n"), Some(FramingFault::Fragment));
    assert_eq!(fault("GET /x HTTP/1.1\r\nX: #\r\n\r\n"), None);
    for (length, expected) in
        [(100, None), (101, Some(FramingFault::TargetTooLong)), (50_000, Some(FramingFault::TargetTooLong))]
    {
        assert_eq!(fault(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 1))), expected, "{length}");
    }
    assert_eq!(fault(&format!("GET /x HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5))), None);
    assert_eq!(fault(&format!("GET /x HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(6))), Some(FramingFault::HeadersTooLarge));
    assert_eq!(fault(&format!("GET /x HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(995))), None);
    for length in [996, 50_000] {
        let head = format!("GET /x HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(length));
        assert_eq!(fault(&head), Some(FramingFault::HeadersTooLarge), "{length}");
    }
}

#[test]
fn the_buffered_part_of_a_line_is_limited() {
    let mut framer = MessageFramer::new(LIMITS);
    framer.consume(b"GET /x HTTP/1.1\r\nX: ").unwrap();
    for _ in 0..1000 {
        framer.consume(&[b'y'; 1000]).unwrap();
        assert!(framer.line.capacity() == 0, "a head is not buffered a second time");
    }
    assert_eq!(framer.head_bytes(), 1_000_020);
    let error = framer.consume(b"\r\n\r\n").unwrap_err();
    assert_eq!(error, FramingError { offset: 4, fault: FramingFault::HeadersTooLarge });
}

/// Result for `bytes`, consumed in pieces of `size`.
fn frame_in_pieces(bytes: &[u8], size: usize) -> (u64, Position, Option<(usize, FramingFault)>) {
    let mut framer = MessageFramer::new(LIMITS);
    let error = bytes.chunks(size).enumerate().find_map(|(number, piece)| {
        framer.consume(piece).err().map(|error| (number * size + error.offset, error.fault))
    });
    (framer.heads(), framer.position(), error)
}

#[test]
fn b12_a21_an_overlong_line_has_the_same_fault_in_pieces() {
    let long = "x".repeat(20_000);
    let chunked = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (bytes, fault) in [
        (format!("{long} /x HTTP/1.1\r\n\r\n"), FramingFault::TargetTooLong),
        (format!("GET /x HTTP/1.1\r\nX: {long}\r\n\r\n"), FramingFault::HeadersTooLarge),
        (format!("{chunked}0\r\nX: {long}\r\n\r\n"), FramingFault::Chunk),
        (format!("{chunked}1;{long}\r\na\r\n"), FramingFault::Chunk),
    ] {
        let whole = frame(bytes.as_bytes());
        assert_eq!(whole.2.map(|(_, fault)| fault), Some(fault));
        for size in [1, 7, 1000, 19_000] {
            assert_eq!(frame_in_pieces(bytes.as_bytes(), size), whole, "{fault:?} in pieces of {size}");
        }
    }
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_how_bytes_are_split(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "GET /x HTTP/1.1\r\n", "POST /y HTTP/1.0\r\n", "\r\n", "\n", "Content-Length: 3\r\n", "Content-Length: 0\r\n",
                "Transfer-Encoding: chunked\r\n", "abc", "3\r\nabc\r\n", "0\r\n", "X: y\r\n", "#", "GET /a#b HTTP/1.1\r\n\r\n",
            ]),
            0..12,
        ),
        cuts in prop::collection::vec(1_usize..9, 1..40),
    ) {
        let bytes: Vec<u8> = pieces.concat().into_bytes();
        let whole = frame(&bytes);
        let mut framer = MessageFramer::new(LIMITS);
        let (mut at, mut cuts, mut fault) = (0, cuts.iter().cycle(), None);
        while at < bytes.len() {
            let end = bytes.len().min(at + cuts.next().unwrap());
            if let Err(error) = framer.consume(&bytes[at..end]) {
                fault = Some((at + error.offset, error.fault));
                break;
            }
            at = end;
        }
        prop_assert_eq!((framer.heads(), framer.position(), fault), whole);
    }

    #[test]
    fn long_lines_may_be_split_anywhere(
        request in prop::collection::vec(prop::sample::select(vec![" ", "/x#", " HTTP/1.0", " HTTP/1.1", "\r", "GET", "yyyyyyyyyy"]), 1..16),
        fields in prop::collection::vec(
            (
                prop::sample::select(vec!["Content-Length", "transfer-encoding", "X", "Content-Lengths", "T"]),
                prop::sample::select(vec![": ", ":", " :", "", "\r:"]),
                prop::sample::select(vec!["3", "0", "chunked", "gzip, chunked", "x"]),
                prop::sample::select(vec![0_usize, 1, 230, 240, 241, 242, 250, 254, 256, 300, 900, 20_000]),
            ),
            0..4,
        ),
        size in 1_usize..300,
    ) {
        let mut bytes = request.concat() + "\r\n";
        for (name, colon, value, spaces) in fields {
            bytes += &format!("{name}{}{colon}{value}{}\r\n", " ".repeat(spaces / 2), " ".repeat(spaces - spaces / 2));
        }
        bytes += "\r\nabcGET /next HTTP/1.1\r\n\r\n";
        prop_assert_eq!(frame_in_pieces(bytes.as_bytes(), size), frame(bytes.as_bytes()));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        frame(&bytes);
    }
}
