//! Which webhooks are forwarded to the service, and the responses to the vendor.

use rustix::process::Signal;

use crate::support::{
    CLIENT_SECRET,
    client::Client,
    process::{Proxy, partner_command},
    service::{Reaction, Service, event, post, post_signed, sign},
    upstream::{Reply, Upstream},
};

fn vendor() -> Upstream {
    Upstream::start_partner(|_| Reply::json("{}"))
}

fn start(upstream: &Upstream, service: &Service, variables: &[(&str, &str)]) -> Proxy {
    let webhooks = [("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:0"), ("FINICITY__WEBHOOK__FORWARD_TO", &service.url)];
    Proxy::run_with_token(partner_command(upstream, &[&webhooks, variables].concat()))
}

/// Stops the program, and returns its output at TRACE.
fn all_output(mut proxy: Proxy) -> String {
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    proxy.process.output()
}

fn count(proxy: &Proxy, outcome: &str, expected: u64) {
    proxy.wait_for_metric(&format!(r#"webhooks_total{{outcome="{outcome}"}}"#), expected);
}

#[test]
fn a_genuine_event_is_forwarded_byte_for_byte_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = vendor();
    for service in [Service::start(&[]), Service::start_unix(&dir.path().join("service.sock"), &[])] {
        let proxy = start(&upstream, &service, &[]);
        let address = proxy.webhook.unwrap();
        let bodies: [&[u8]; 4] = [
            event(1).as_bytes(),
            b"{\"eventType\" : \"added\",\r\n\t\"a\":1,\"a\":1.0e5 }\n",
            b"<event><type>added</type></event>",
            b"\xff\0 not text",
        ]
        .map(|body: &[u8]| &*body.to_vec().leak());
        for body in bodies {
            let signature = sign(CLIENT_SECRET, body);
            let lines = [
                format!("X-Finicity-Signature: {signature}"),
                "Content-Type: application/json".to_owned(),
                "X-Finicity-Proxy-Verified: forged".to_owned(),
                "x_finicity_proxy_verified: forged".to_owned(),
                "X-Of-The-Service: 7".to_owned(),
                "Connection: keep-alive, x-hop".to_owned(),
                "X-Hop: 1".to_owned(),
            ];
            let response = post(address, &lines.each_ref().map(String::as_str), body);
            assert_eq!((response.status, response.body.len()), (200, 0));
        }
        let received = service.wait_for(bodies.len());
        for (event, body) in received.iter().zip(bodies) {
            assert!(event.head.starts_with("POST /webhooks HTTP/1.1\r\n"), "{}", event.head);
            assert_eq!(event.body, body);
            assert_eq!(event.headers("x-finicity-proxy-verified"), ["true"]);
            assert_eq!(event.headers("x-of-the-service"), ["7"]);
            assert_eq!(event.headers("content-type"), ["application/json"]);
            assert_eq!((event.headers("x-hop").len(), event.headers("host").len()), (0, 1));
            assert!(!event.head.contains("forged"), "{}", event.head);
        }
        count(&proxy, "forwarded", 4);
        let output = all_output(proxy);
        for body in bodies {
            assert!(!output.contains(&sign(CLIENT_SECRET, body)), "a signature is in the log");
        }
    }
    assert!(upstream.requests().is_empty(), "nothing is sent to the vendor");
}

#[test]
fn a_forged_event_is_rejected_and_logged() {
    let upstream = vendor();
    let service = Service::start(&[]);
    let proxy = start(&upstream, &service, &[("FINICITY__WEBHOOK__BODY_BYTES", "2000")]);
    let address = proxy.webhook.unwrap();
    let body = event(1);
    let signature = sign(CLIENT_SECRET, body.as_bytes());
    let field = |value: &str| format!("X-Finicity-Signature: {value}");
    let mut flipped = body.clone().into_bytes();
    flipped[20] ^= 1;
    let reserialised =
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&body).unwrap()).unwrap();
    let rows: Vec<(Vec<String>, Vec<u8>)> = vec![
        (vec![], body.clone().into_bytes()),
        (vec![field("")], body.clone().into_bytes()),
        (vec![field(&signature.to_uppercase())], body.clone().into_bytes()),
        (vec![field(&signature[..63])], body.clone().into_bytes()),
        (vec![field(&format!("{signature}00"))], body.clone().into_bytes()),
        (vec![field(&signature), field(&signature)], body.clone().into_bytes()),
        (vec![format!("X-Signature: {signature}")], body.clone().into_bytes()),
        (vec![field(&sign("another-Secret-1!", body.as_bytes()))], body.clone().into_bytes()),
        (vec![field(&signature)], flipped),
        (vec![field(&signature)], reserialised.into_bytes()),
        (vec![field(&signature)], [body.as_bytes(), b"\n"].concat()),
        (vec![field(&signature)], vec![]),
    ];
    let refused = rows.len() as u64;
    for (lines, body) in rows {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(post(address, &lines, &body).status, 401, "{lines:?}");
    }
    let large = "x".repeat(2001);
    assert_eq!(post_signed(address, CLIENT_SECRET, &large), 413);
    assert_eq!(Client::connect(address).get("/").status, 405);
    count(&proxy, "refused", refused);
    count(&proxy, "invalid", 2);
    let line = proxy.process.wait_for_log("webhook rejected: signature missing, malformed or wrong");
    assert_eq!(line["target"], "finicity_proxy::audit");
    assert!(line["actor"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(service.received().is_empty());
    // The event itself is still accepted.
    assert_eq!(post_signed(address, CLIENT_SECRET, &body), 200);
    service.wait_for(1);
    assert!(!all_output(proxy).contains(&signature), "a signature is in the log");
}

#[test]
fn a_ping_needs_no_service() {
    let upstream = vendor();
    let mut service = Service::start(&[]);
    service.url = "unix:/nonexistent/service.sock".to_owned();
    let proxy = start(&upstream, &service, &[]);
    let ping = r#"{"eventType":"ping","payload":{}}"#;
    for _ in 0..2 {
        assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, ping), 200);
    }
    assert_eq!(post_signed(proxy.webhook.unwrap(), "another-Secret-1!", ping), 401);
    count(&proxy, "ping", 2);
    assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &event(1)), 502);
    count(&proxy, "service_failed", 1);
}

#[test]
fn an_event_is_forwarded_until_the_service_accepts_it() {
    let upstream = vendor();
    let service = Service::start(&[
        Reaction::Status(500),
        Reaction::Close,
        Reaction::Status(404),
        Reaction::Status(302),
        Reaction::Status(204),
    ]);
    let proxy = start(&upstream, &service, &[]);
    let address = proxy.webhook.unwrap();
    // The vendor resends an event until it gets a 2xx.
    let statuses: Vec<u16> = (0..7).map(|_| post_signed(address, CLIENT_SECRET, &event(1))).collect();
    assert_eq!(statuses, [502, 502, 502, 502, 200, 200, 200]);
    assert_eq!(service.received().len(), 5);
    assert!(service.received().iter().all(|received| received.body == event(1).as_bytes()));
    assert_eq!(post_signed(address, CLIENT_SECRET, &event(2)), 200, "another event is no replay");
    assert_eq!(service.received().len(), 6);
    for (outcome, expected) in [("service_refused", 3), ("service_failed", 1), ("forwarded", 2), ("replayed", 2)] {
        count(&proxy, outcome, expected);
    }
}

#[test]
fn a_slow_service_times_out_and_the_event_is_resent() {
    let upstream = vendor();
    let service = Service::start(&[Reaction::Held(200)]);
    let proxy = start(&upstream, &service, &[("FINICITY__WEBHOOK__TIMEOUT", "100ms")]);
    assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &event(1)), 504);
    service.release();
    // The service can be slow on a busy machine, so the event is resent as the vendor does.
    while post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &event(1)) != 200 {}
    assert!(service.received().len() >= 2);
}

#[test]
fn a_delivery_continues_after_the_sender_disconnects() {
    let upstream = vendor();
    let service = Service::start(&[Reaction::Held(200)]);
    let proxy = start(&upstream, &service, &[("FINICITY__WEBHOOK__TIMEOUT", "60s")]);
    let address = proxy.webhook.unwrap();
    let body = event(1);
    let mut sender = Client::connect(address);
    sender.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Finicity-Signature: {}\r\nContent-Length: {}\r\n\r\n{body}",
        sign(CLIENT_SECRET, body.as_bytes()),
        body.len()
    ));
    service.wait_for(1);
    // A duplicate in the meantime is neither forwarded nor acknowledged.
    assert_eq!(post_signed(address, CLIENT_SECRET, &body), 503);
    drop(sender);
    service.release();
    proxy.process.wait_for_log("webhook forwarded");
    while post_signed(address, CLIENT_SECRET, &body) == 503 {}
    assert_eq!(post_signed(address, CLIENT_SECRET, &body), 200);
    assert_eq!(service.received().len(), 1);
}

#[test]
fn a_drain_finishes_events_in_flight() {
    let upstream = vendor();
    let service = Service::start(&[Reaction::Held(200)]);
    let mut proxy = start(&upstream, &service, &[("FINICITY__WEBHOOK__TIMEOUT", "60s")]);
    let address = proxy.webhook.unwrap();
    let body = event(1);
    let mut sender = Client::connect(address);
    sender.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Finicity-Signature: {}\r\nContent-Length: {}\r\n\r\n{body}",
        sign(CLIENT_SECRET, body.as_bytes()),
        body.len()
    ));
    service.wait_for(1);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    // The listener closes; the received event is still delivered.
    while Client::try_connect(address).is_ok() {}
    service.release();
    assert_eq!(sender.read_response(false).unwrap().status, 200);
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn requests_over_the_rate_limit_get_429() {
    let upstream = vendor();
    let service = Service::start(&[]);
    let proxy = start(&upstream, &service, &[("FINICITY__WEBHOOK__RATE", "1")]);
    let address = proxy.webhook.unwrap();
    let limited = (0..1000).map(|_| post(address, &[], b"")).find(|response| response.status != 401).unwrap();
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("1")));
    count(&proxy, "limited", 1);
}
