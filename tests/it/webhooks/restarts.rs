//! Which state survives a restart.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::support::{
    CLIENT_SECRET,
    client::Client,
    process::{Proxy, partner_command},
    service::{Reaction, Service, event, post_signed, sign},
    upstream::{Reply, Upstream},
};

fn start(upstream: &Upstream, service: &Service, state_dir: &Path) -> Proxy {
    let variables = [
        ("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:0"),
        ("FINICITY__WEBHOOK__FORWARD_TO", service.url.as_str()),
        ("FINICITY__WEBHOOK__TIMEOUT", "60s"),
        ("FINICITY__AUTH__STATE_DIR", state_dir.to_str().unwrap()),
    ];
    Proxy::run_with_token(partner_command(upstream, &variables))
}

#[test]
fn a_replay_is_detected_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let service = Service::start(&[]);
    for (round, expected) in [(0, 1), (1, 1)] {
        let mut proxy = start(&upstream, &service, dir.path());
        assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &event(1)), 200);
        assert_eq!(service.received().len(), expected, "round {round}");
        proxy.process.signal(Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0));
    }
    let file = fs::read_to_string(dir.path().join("webhooks.json")).unwrap();
    assert!(!file.contains("added") && file.len() < 200, "only a hash is kept: {file}");

    // An unreadable file is reported and replaced.
    fs::write(dir.path().join("webhooks.json"), "{").unwrap();
    let mut proxy = start(&upstream, &service, dir.path());
    let message = "cannot load a state file; its content is lost, and it will be replaced";
    let line = proxy.process.wait_for_log(message);
    assert!(line["file"].as_str().unwrap().ends_with("/webhooks.json"), "{line}");
    assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &event(1)), 200);
    assert_eq!(service.received().len(), 2);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    assert!(fs::read_to_string(dir.path().join("webhooks.json")).unwrap().starts_with(r#"{"version":1,"#));
}

#[test]
fn an_unacknowledged_event_is_forwarded_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let service = Service::start(&[Reaction::Held(200)]);
    let mut proxy = start(&upstream, &service, dir.path());
    let body = event(1);
    let mut sender = Client::connect(proxy.webhook.unwrap());
    sender.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Finicity-Signature: {}\r\nContent-Length: {}\r\n\r\n{body}",
        sign(CLIENT_SECRET, body.as_bytes()),
        body.len()
    ));
    service.wait_for(1);
    proxy.process.signal(Signal::KILL);
    proxy.process.wait();
    service.release();
    assert!(sender.read_response(false).is_err(), "the vendor gets no response and resends the event");

    let proxy = start(&upstream, &service, dir.path());
    for _ in 0..2 {
        assert_eq!(post_signed(proxy.webhook.unwrap(), CLIENT_SECRET, &body), 200);
    }
    assert_eq!(service.received().len(), 2, "at-least-once delivery");
}
