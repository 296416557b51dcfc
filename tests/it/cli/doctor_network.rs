//! The command `doctor`, steps for the upstream: DNS, egress proxy, TCP, TLS and clock.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, date_time_ymd};

use super::doctor::{Diagnosis, doctor, token_requests, vendor};
use crate::{
    support::{
        EGRESS_PASSWORD, EGRESS_USERNAME,
        egress::EgressProxy,
        upstream::{ClosedPort, Reply, Upstream, token_response},
    },
    tls::trust::{TestCa, TestServer, upstream as upstream_with},
};

const URL: &str = "FINICITY__UPSTREAM__URL";

/// Checks that every step after `failed` is skipped and that no token request is made.
#[track_caller]
fn nothing_after(diagnosis: &Diagnosis, failed: &str) {
    let steps = ["dns", "egress_proxy", "tcp", "tls", "clock", "token_request"];
    let after = steps.iter().position(|step| *step == failed).unwrap() + 1;
    for step in &steps[after..] {
        assert_eq!(diagnosis.step(step).0, "skipped", "{step}: {diagnosis}");
    }
}

#[test]
fn a_name_that_does_not_exist_fails_dns() {
    let diagnosis = Diagnosis::of(doctor(&vendor(), &[(URL, "https://no-such-host.invalid")]));
    diagnosis.fails("dns", 13, &["no-such-host.invalid:443", "check the name in upstream.url", "the DNS server"]);
    nothing_after(&diagnosis, "dns");
}

#[test]
fn a_closed_port_fails_tcp() {
    let dead = ClosedPort::new();
    let diagnosis = Diagnosis::of(doctor(&vendor(), &[(URL, &dead.url())]));
    let parts = ["connection refused", "127.0.0.1:", "check upstream.url, and that a server is listening there"];
    diagnosis.fails("tcp", 15, &parts);
    nothing_after(&diagnosis, "tcp");
}

/// Runs `doctor` against a server with the configuration `server`. The CA `ca` is trusted unless `variables` set another one.
fn with_certificate(ca: &TestCa, server: &TestServer, variables: &[(&str, &str)]) -> Diagnosis {
    let upstream = upstream_with(&server.config);
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), ca.pem()).unwrap();
    let path = ca_file.path().display().to_string();
    let trusted = [("FINICITY__UPSTREAM__CA_FILE", path.as_str())];
    Diagnosis::of(doctor(&upstream, &[&trusted, variables].concat()))
}

#[test]
fn each_certificate_defect_fails_tls_with_its_own_remedy() {
    let (ca, other) = (TestCa::new("one"), TestCa::new("other"));
    let name =
        |params: &mut CertificateParams| *params = CertificateParams::new(vec!["other.test".to_owned()]).unwrap();
    let zeros = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let pins = [("FINICITY__UPSTREAM__PINNED_KEYS", zeros)];
    for (server, variables, parts) in [
        (
            ca.server(|params| params.not_after = date_time_ymd(2024, 1, 1)),
            &[][..],
            &["it expired at 2024-01-01T00:00:00Z", "renewed; if it is valid, correct this machine's clock"][..],
        ),
        (
            ca.server(|params| params.not_before = date_time_ymd(2900, 1, 1)),
            &[],
            &["it is valid from 2900-01-01T00:00:00Z", "-> correct this machine's clock, which says 20"],
        ),
        (
            other.server(|_| {}),
            &[],
            &[
                "issued by an untrusted CA",
                "openssl s_client -connect localhost:",
                "add its certificate to upstream.ca_file, which is /",
            ],
        ),
        (ca.server(name), &[], &["another host", "it is for other.test", "-> set upstream.url to a name"]),
        (ca.server(|_| {}), &pins, &["upstream.pinned_keys does not list", "-> if the vendor announced a new key"]),
    ] {
        let diagnosis = with_certificate(&ca, &server, variables);
        diagnosis.fails("tls", 16, parts);
        nothing_after(&diagnosis, "tls");
    }
}

#[test]
fn a_certificate_that_expires_soon_is_a_warning() {
    let ca = TestCa::new("one");
    for (days, outcome) in [(13, "warning"), (15, "ok")] {
        let end = SystemTime::now() + Duration::from_secs(days * 24 * 3600 + 3600);
        let server = ca.server(|params| params.not_after = end.into());
        let diagnosis = with_certificate(&ca, &server, &[]);
        assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
        diagnosis.has("tls", outcome, &["for localhost, trusted by upstream.ca_file", &format!("({days} days left)")]);
    }
}

#[test]
fn a_pinned_key_is_reported() {
    let ca = TestCa::new("one");
    let server = ca.server(|_| {});
    let pin = server.pin().to_owned();
    let diagnosis = with_certificate(&ca, &server, &[("FINICITY__UPSTREAM__PINNED_KEYS", &pin)]);
    diagnosis.has("tls", "ok", &["the key matches one of 1 in upstream.pinned_keys"]);
}

/// A listener that sends `greeting` on each connection, and then nothing until the client closes it.
fn listener(greeting: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(greeting);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    format!("https://127.0.0.1:{port}")
}

#[test]
fn a_server_without_tls_fails_tls() {
    let url = listener(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let diagnosis = Diagnosis::of(doctor(&vendor(), &[(URL, &url)]));
    diagnosis.fails("tls", 16, &["does not speak TLS", "check host and port in upstream.url"]);
    nothing_after(&diagnosis, "tls");
}

#[test]
fn a_silent_server_fails_tls() {
    let url = listener(b"");
    let variables = [(URL, url.as_str()), ("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "300ms")];
    let diagnosis = Diagnosis::of(doctor(&vendor(), &variables));
    diagnosis.fails("tls", 16, &["did not complete the TLS handshake within 300ms", "those of a TLS server"]);
    nothing_after(&diagnosis, "tls");
}

/// An upstream that sends a `Date` that is `seconds` ahead of the time of this machine.
fn upstream_at(seconds: i64) -> Upstream {
    Upstream::start_raw(move |request| {
        let now = SystemTime::now();
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let date = httpdate::fmt_http_date(if seconds < 0 { now - offset } else { now + offset });
        let is_token = request.head.starts_with("POST");
        let body = if is_token { token_response(1, 3600) } else { "{}".to_owned() };
        let head = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply::Bytes((head + &body).into_bytes())
    })
}

#[test]
fn a_skewed_clock_fails_its_step() {
    for (seconds, outcome, part) in [
        (3600, "failed", "s behind the upstream's Date"),
        (-3600, "failed", "s ahead of the upstream's Date"),
        (120, "warning", "s behind the upstream's Date"),
        (0, "ok", "of the upstream's Date"),
    ] {
        let upstream = upstream_at(seconds);
        let diagnosis = Diagnosis::of(doctor(&upstream, &[]));
        diagnosis.has("clock", outcome, &[part]);
        if outcome == "failed" {
            diagnosis.fails("clock", 17, &["synchronise the clock"]);
        } else {
            assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
        }
        // The lifetime of a token does not depend on the wall clock.
        diagnosis.has("token_request", "ok", &[]);
    }
}

#[test]
fn an_upstream_without_a_valid_response_costs_no_attempt() {
    for reply in ["", "not HTTP\r\n\r\n"] {
        let upstream = Upstream::start_raw(move |_| Reply::Cut(reply.as_bytes().to_vec()));
        for arguments in [&[][..], &["--no-token-request"]] {
            let mut command = doctor(&upstream, &[]);
            command.args(arguments);
            let diagnosis = Diagnosis::of(command);
            diagnosis.has("clock", "skipped", &["sent no valid response"]);
            diagnosis.fails(
                "token_request",
                18,
                &["not tried: ", "sent no valid response", "the vendor's status page"],
            );
        }
        assert_eq!(token_requests(&upstream), 0);
    }
}

#[test]
fn an_egress_proxy_that_is_down_or_denies_fails_its_step() {
    let (upstream, egress) = (vendor(), EgressProxy::start());
    let run = |url: &str| {
        let credentials = [
            ("FINICITY__UPSTREAM__EGRESS_PROXY", url),
            ("FINICITY_EGRESS_PROXY_USERNAME", EGRESS_USERNAME),
            ("FINICITY_EGRESS_PROXY_PASSWORD", EGRESS_PASSWORD),
        ];
        Diagnosis::of(doctor(&upstream, &credentials))
    };
    let dead = ClosedPort::new();
    let diagnosis = run(&dead.url().replace("https", "http"));
    diagnosis.fails(
        "egress_proxy",
        14,
        &["the egress proxy localhost:", "connection refused", "check upstream.egress_proxy"],
    );
    nothing_after(&diagnosis, "egress_proxy");
    run("http://no-such-host.invalid:3128").fails("dns", 13, &["no-such-host.invalid:3128", "upstream.egress_proxy"]);
    for (status, parts) in [
        (407, ["returned 407", "check FINICITY_EGRESS_PROXY_USERNAME"]),
        (403, ["returned 403", "allow CONNECT to localhost:"]),
        (502, ["returned 502", "can reach localhost:"]),
    ] {
        egress.respond_with(status);
        run(&egress.url()).fails("egress_proxy", 14, &parts);
    }
    egress.respond_with(200);
    let diagnosis = run(&egress.url());
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    diagnosis.has("egress_proxy", "ok", &["opened a tunnel to localhost:"]);
    diagnosis.has("tcp", "skipped", &["the egress proxy connects"]);
    diagnosis.has("tls", "ok", &[]);
    diagnosis.has("token_request", "ok", &[]);
}

#[test]
fn a_loopback_plaintext_upstream_skips_the_tls_step() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 2048];
            let is_token = stream.read(&mut head).unwrap() > 0 && head.starts_with(b"POST");
            let body = if is_token { token_response(1, 3600) } else { "{}".to_owned() };
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let variables = [(URL, url.as_str()), ("FINICITY__UPSTREAM__ALLOW_PLAINTEXT", "true")];
    let diagnosis = Diagnosis::of(doctor(&vendor(), &variables));
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    diagnosis.has("dns", "ok", &["upstream.url has an IP address: 127.0.0.1"]);
    diagnosis.has("tls", "skipped", &["on this machine"]);
    diagnosis.has("token_request", "ok", &[]);
}

#[test]
fn a_silent_egress_proxy_fails_its_step_by_timeout() {
    let url = listener(b"").replace("https", "http");
    let variables =
        [("FINICITY__UPSTREAM__EGRESS_PROXY", url.as_str()), ("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "300ms")];
    let diagnosis = Diagnosis::of(doctor(&vendor(), &variables));
    diagnosis.fails(
        "egress_proxy",
        14,
        &["opened no tunnel to localhost:", "within 300ms", "check upstream.egress_proxy"],
    );
    nothing_after(&diagnosis, "egress_proxy");
}
