//! HTTP/2 upstreams that refuse streams, close connections, violate the protocol, or send without end.

use crate::support::{
    h2::{
        Action, CANCEL, H2Upstream, INTERNAL_ERROR, OpenedStream, PROTOCOL_ERROR, REFUSED_STREAM, continuation, data,
        early_hints, field, goaway, head, head_without_end, ok, ping, reset, setting,
    },
    process::Proxy,
};

const FREE: &str = "/aggregation/v1/customers";
const BILLED: &str = "/aggregation/v1/customers/1/accounts/2/owner";

/// An upstream that reacts with `act` to the second request, and responds to all others with a 200.
fn odd_second(act: impl Fn(OpenedStream) -> Action + Send + Sync + 'static) -> H2Upstream {
    H2Upstream::start(move |opened| if opened.count == 1 { act(opened) } else { Action::Send(ok(opened.stream)) })
}

/// Sends a GET and then a second request. Returns the status of the second one.
fn second(proxy: &Proxy, method: &str, path: &str, body: &[u8]) -> u16 {
    let mut client = proxy.connect();
    assert_eq!(client.get("/first").text(), "ok");
    let length = format!("Content-Length: {}", body.len());
    let lines: &[&str] = if body.is_empty() { &[] } else { &[&length] };
    client.call(method, path, lines, body).status
}

#[test]
fn h04_a_request_above_the_goaway_stream_id_is_resent() {
    for (method, path, body) in [("GET", FREE, &b""[..]), ("GET", BILLED, b""), ("POST", "/x", b"body")] {
        for code in [0, PROTOCOL_ERROR] {
            let upstream = odd_second(move |opened| Action::Close(goaway(opened.stream - 2, code)));
            let proxy = upstream.proxy(&[]);
            assert_eq!(second(&proxy, method, path, body), 200, "{method} {path} {code}");
            proxy.process.wait_for_line(|line| line.contains(r#""retried":true"#));
            assert_eq!(upstream.opened(), 3);
        }
    }
}

#[test]
fn h04_a_request_up_to_the_goaway_stream_id_is_not_resent() {
    let upstream = odd_second(|opened| Action::Close(goaway(opened.stream, 0)));
    let proxy = upstream.proxy(&[]);
    assert_eq!(second(&proxy, "POST", "/x", b"body"), 502);
    assert_eq!(upstream.opened(), 2);
}

#[test]
fn h04_open_streams_finish_after_a_goaway() {
    let upstream = odd_second(|opened| Action::Send([goaway(opened.stream, 0), ok(opened.stream)].concat()));
    let proxy = upstream.proxy(&[]);
    assert_eq!(second(&proxy, "POST", "/x", b"body"), 200);
    assert_eq!(proxy.connect().call("POST", "/x", &["Content-Length: 4"], b"body").status, 200);
    assert_eq!(upstream.opened(), 3);
}

#[test]
fn h04_a_refused_stream_is_resent_for_any_method() {
    for (method, path, body) in [("GET", BILLED, &b""[..]), ("POST", "/x", b"body"), ("DELETE", "/x", b"")] {
        let upstream = odd_second(|opened| Action::Send(reset(opened.stream, REFUSED_STREAM)));
        let proxy = upstream.proxy(&[]);
        assert_eq!(second(&proxy, method, path, body), 200, "{method}");
        assert_eq!(upstream.opened(), 3);
    }
}

#[test]
fn h04_a_stream_refused_twice_is_a_502() {
    let upstream = H2Upstream::start(|opened| Action::Send(reset(opened.stream, REFUSED_STREAM)));
    let proxy = upstream.proxy(&[]);
    proxy.connect().get(FREE).assert_problem(502, "upstream_unreachable");
    assert_eq!(upstream.opened(), 2);
}

#[test]
fn g04_a_refused_stream_is_not_resent_if_its_body_was_not_kept() {
    for (buffer, status, seen) in [("0", 502, 2), ("65536", 200, 3)] {
        let upstream = odd_second(|opened| Action::AfterData(reset(opened.stream, REFUSED_STREAM)));
        let proxy = upstream.proxy(&[("FINICITY__UPSTREAM__REPLAY_BUFFER", buffer)]);
        assert_eq!(second(&proxy, "POST", "/x", b"body"), status, "{buffer}");
        assert_eq!(upstream.opened(), seen);
    }
}

#[test]
fn g02_a_stream_reset_for_another_reason_is_not_resent() {
    for code in [INTERNAL_ERROR, CANCEL, PROTOCOL_ERROR] {
        let upstream = odd_second(move |opened| Action::Send(reset(opened.stream, code)));
        let proxy = upstream.proxy(&[]);
        assert_eq!(second(&proxy, "GET", FREE, b""), 502, "{code}");
        assert_eq!(upstream.opened(), 2);
    }
}

#[test]
fn g01_g02_after_an_abrupt_close_only_free_reads_are_resent() {
    for (path, status, seen) in [(FREE, 200, 3), (BILLED, 502, 2), ("/x", 502, 2)] {
        let upstream = odd_second(|_| Action::Close(Vec::new()));
        let proxy = upstream.proxy(&[]);
        assert_eq!(second(&proxy, "GET", path, b""), status, "{path}");
        assert_eq!(upstream.opened(), seen);
    }
}

/// Checks a second request to which the upstream reacts with `act`: the response is a 502 with `code`, or truncated if `code` is
/// `None`; the process grows by less than 32 MiB; later requests succeed.
fn check_hostile(code: Option<&str>, act: impl Fn(OpenedStream) -> Action + Send + Sync + 'static) -> usize {
    let upstream = odd_second(act);
    let proxy =
        upstream.proxy(&[("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s"), ("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "2s")]);
    assert_eq!(proxy.connect().get("/first").text(), "ok");
    let before = proxy.process.status_kib("VmHWM");
    let mut client = proxy.connect();
    client.send("GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.read_response(false);
    match code {
        Some(code) => response.unwrap().assert_problem(502, code),
        None => assert!(response.is_err(), "{response:?}"),
    }
    assert_eq!(proxy.connect().get("/third").text(), "ok");
    let grown = proxy.process.status_kib("VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "the process grew by {grown} KiB");
    upstream.flooded()
}

#[test]
fn h02_an_endless_head_is_a_502() {
    let sent = check_hostile(Some("upstream_protocol"), |opened| {
        let fields = field("x", &"a".repeat(8000), false);
        Action::Flood(head_without_end(opened.stream, &[]), continuation(opened.stream, &fields, false), 100_000)
    });
    assert!(sent < 100_000, "the connection must be closed");
}

#[test]
fn endless_informational_responses_are_a_502() {
    for fields in [Vec::new(), field("link", &"a".repeat(1000), false)] {
        let sent = check_hostile(Some("upstream_protocol"), move |opened| {
            Action::Flood(early_hints(opened.stream, &fields), early_hints(opened.stream, &fields), 1_000_000)
        });
        assert!(sent < 1_000_000, "the connection must be closed");
    }
}

#[test]
fn a_few_informational_responses_are_skipped() {
    let upstream = odd_second(|opened| {
        let hints = early_hints(opened.stream, &field("link", "<x>", false)).repeat(900);
        Action::Send([hints, ok(opened.stream)].concat())
    });
    let proxy = upstream.proxy(&[]);
    assert_eq!(second(&proxy, "POST", "/x", b"body"), 200);
}

#[test]
fn h02_endless_empty_data_frames_are_cut_off() {
    let sent =
        check_hostile(None, |opened| Action::Flood(head(opened.stream, &[]), data(opened.stream, b"", false), 100_000));
    assert!(sent < 100_000, "the connection must be closed");
}

#[test]
fn h03_an_hpack_bomb_is_a_502() {
    check_hostile(Some("upstream_protocol"), |opened| {
        // One indexed field of 4,000 bytes, referenced 2,000 times with one byte each.
        let bomb = [field("x", &"a".repeat(4000), true), vec![0x80 | 62; 2000]].concat();
        Action::Send([head(opened.stream, &bomb), data(opened.stream, b"", true)].concat())
    });
}

#[test]
fn h03_f14_a_head_over_the_limit_is_a_502() {
    check_hostile(Some("upstream_protocol"), |opened| {
        let fields = field("x", &"a".repeat(12_000), false);
        let rest: Vec<u8> = (0..7).flat_map(|n| continuation(opened.stream, &fields, n == 6)).collect();
        Action::Send([head_without_end(opened.stream, &[]), rest, data(opened.stream, b"", true)].concat())
    });
}

#[test]
fn h05_connection_specific_headers_are_a_502() {
    for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("Upper", "x"), ("upgrade", "x")] {
        check_hostile(Some("upstream_protocol"), move |opened| {
            Action::Send([head(opened.stream, &field(name, value, false)), data(opened.stream, b"", true)].concat())
        });
    }
}

#[test]
fn h06_invalid_settings_are_a_502() {
    // SETTINGS_MAX_FRAME_SIZE below and above its bounds, SETTINGS_INITIAL_WINDOW_SIZE above its bound.
    for (name, value) in [(5, 0), (5, 1 << 24), (4, 1 << 31)] {
        check_hostile(Some("upstream_protocol"), move |_| Action::Send(setting(name, value)));
    }
}

#[test]
fn h06_a_flood_of_pings_or_settings_is_tolerated() {
    for flood in [ping(), setting(3, 100)] {
        let times = 20_000;
        let response = check_flood_before(flood, times);
        assert_eq!(response, "ok");
    }
}

/// Sends `flood` `times` times before the second response, and returns the body of that response.
fn check_flood_before(flood: Vec<u8>, times: usize) -> String {
    let upstream = odd_second(move |opened| Action::Send([flood.repeat(times), ok(opened.stream)].concat()));
    let proxy = upstream.proxy(&[]);
    let mut client = proxy.connect();
    assert_eq!(client.get("/first").text(), "ok");
    let before = proxy.process.status_kib("VmHWM");
    let response = client.get("/second");
    let grown = proxy.process.status_kib("VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "the process grew by {grown} KiB");
    response.text()
}

#[test]
fn h02_rapid_stream_resets_use_bounded_memory() {
    let upstream = H2Upstream::start(|opened| {
        Action::Send(if opened.count % 2 == 1 {
            [head(opened.stream, &[]), reset(opened.stream, CANCEL)].concat()
        } else {
            ok(opened.stream)
        })
    });
    let proxy = upstream.proxy(&[]);
    let mut client = proxy.connect();
    assert_eq!(client.get("/x").status, 200);
    let before = proxy.process.status_kib("VmHWM");
    for _ in 0..1000 {
        let mut broken = proxy.connect();
        broken.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = broken.read_response(false);
        assert!(response.is_err() || response.unwrap().status == 502);
        assert_eq!(client.get("/x").text(), "ok");
    }
    let grown = proxy.process.status_kib("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "the process grew by {grown} KiB");
}
