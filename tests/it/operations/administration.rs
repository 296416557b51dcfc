//! Admin actions on the running program, and their authorization.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    ADMIN_TOKEN,
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

fn post(socket: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "POST {target} HTTP/1.1\r\nHost: any\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn quarantine_and_lift_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__ADMIN__SOCKET", &socket.display().to_string())]);
    assert_eq!(post(&socket, "/api/quarantine"), "200");
    proxy.connect().get("/x").assert_problem(503, "quarantined");
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(proxy.ops().get("/readyz").status, 200, "a quarantine does not affect readiness");
    assert_eq!(post(&socket, "/api/quarantine/lift"), "200");
    proxy.process.wait_for_line(|line| line.contains("token obtained") && line.contains(r#""token.version":2"#));
    assert_eq!(proxy.connect().get("/x").status, 200);
    for message in ["quarantine started: no token is used or fetched until it is lifted", "the quarantine was lifted"] {
        assert_eq!(proxy.process.wait_for_log(message)["target"], "finicity_proxy::audit");
    }
}

#[test]
fn a_token_is_invalidated_and_revoked_with_the_admin_token() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let variables = [("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN), ("FINICITY__AUTH__REVOCATION_PATH", "/oauth/revoke")];
    let proxy = Proxy::start_with(&upstream, &variables);
    let mut admin = Client::connect(proxy.admin);
    assert_eq!(admin.call("POST", "/api/token/invalidate", &["Content-Length: 0"], b"").status, 401);
    assert_eq!(upstream.requests().len(), 0);
    let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
    let lines = ["Content-Length: 0", authorization.as_str()];
    assert_eq!(admin.call("POST", "/api/token/invalidate", &lines, b"").status, 200);
    let revocation = upstream.wait_for("/oauth/revoke");
    assert!(String::from_utf8_lossy(&revocation.body).starts_with("token=canarytoken1&token_type_hint=access_token&"));
    proxy.process.wait_for_line(|line| line.contains("token obtained") && line.contains(r#""token.version":2"#));
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert!(!proxy.process.output().contains("canary"));
}

#[test]
fn a_latch_is_reset_within_the_budget_only() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let upstream = Upstream::start_raw(|_| Reply::status(401, "Unauthorized", "{}"));
    let proxy = Proxy::launch(&upstream, &[("FINICITY__ADMIN__SOCKET", &socket.display().to_string())]);
    for rejections in 1..=3 {
        proxy.process.wait_for_line(|line| {
            line.contains("credentials rejected") && line.contains(&format!(r#""rejections":{rejections}"#))
        });
        let expected = if rejections < 3 { "200" } else { "409" };
        assert_eq!(post(&socket, "/api/latch/reset"), expected);
    }
    assert_eq!(upstream.received().len(), 3);
    assert_eq!(post(&socket, "/api/latch/reset?override_budget=true"), "200");
    proxy.process.wait_for_line(|line| line.contains("credentials rejected") && line.contains(r#""rejections":4"#));
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn wrong_admin_tokens_are_delayed_and_the_right_one_is_not() {
    const GUESSES: usize = 8;
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)]);
    let start = Instant::now();
    let guesses: Vec<_> = (0..GUESSES)
        .map(|number| {
            let mut admin = Client::connect(proxy.admin);
            let guess = format!("Authorization: Bearer guess-number-{number:05}");
            thread::spawn(move || {
                let status = admin.call("POST", "/api/quarantine", &["Content-Length: 0", &guess], b"").status;
                (status, Instant::now())
            })
        })
        .collect();
    proxy.process.wait_for_log("admin request rejected");
    let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
    let lines = ["Content-Length: 0", authorization.as_str()];
    assert_eq!(Client::connect(proxy.admin).call("POST", "/api/quarantine/lift", &lines, b"").status, 200);
    let right = Instant::now();
    let mut ends: Vec<_> = guesses
        .into_iter()
        .map(|guess| {
            let (status, end) = guess.join().unwrap();
            assert_eq!(status, 401);
            end
        })
        .collect();
    ends.sort_unstable();
    assert!(right < *ends.last().unwrap(), "the right token waited for the guesses");
    // A timer never fires early, so this also holds on a slow machine.
    for (number, end) in (1..).zip(&ends) {
        assert!(end.duration_since(start) >= number * Duration::from_secs(1), "rejection {number} was early");
    }
}
