//! Which secrets verify webhooks after a rotation.

use std::fs;

use rustix::process::Signal;

use crate::support::{
    CLIENT_SECRET, WEBHOOK_SECRET,
    process::{Proxy, partner_command, serve_command},
    service::{Service, event, post_signed},
    upstream::{Reply, Upstream},
};

const OTHER_SECRET: &str = "canary-Webhook+other1!";

fn listen(service: &Service) -> [(&str, &str); 2] {
    [("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:0"), ("FINICITY__WEBHOOK__FORWARD_TO", &service.url)]
}

#[test]
fn both_secrets_are_accepted_after_a_partner_secret_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    fs::write(&secret_file, CLIENT_SECRET).unwrap();
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let service = Service::start(&[]);
    let mut command = partner_command(&upstream, &listen(&service));
    command.env_remove("FINICITY_PARTNER_SECRET").env("FINICITY_PARTNER_SECRET_FILE", &secret_file);
    let proxy = Proxy::run_with_token(command);
    let address = proxy.webhook.unwrap();
    assert_eq!(post_signed(address, OTHER_SECRET, &event(1)), 401);
    fs::write(&secret_file, OTHER_SECRET).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("the webhook secret has changed; the previous one is accepted for 30 days");
    while post_signed(address, OTHER_SECRET, &event(1)) == 401 {}
    assert_eq!(post_signed(address, CLIENT_SECRET, &event(2)), 200);
    assert_eq!(post_signed(address, "another-Secret-1!", &event(3)), 401);
    assert_eq!(service.received().len(), 2);
}

#[test]
fn a_configured_previous_secret_is_accepted() {
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let service = Service::start(&[]);
    let previous = [("FINICITY_WEBHOOK_SECRET_PREVIOUS", WEBHOOK_SECRET)];
    let proxy = Proxy::run_with_token(partner_command(&upstream, &[&listen(&service)[..], &previous].concat()));
    for (secret, status) in [(CLIENT_SECRET, 200), (WEBHOOK_SECRET, 200), (OTHER_SECRET, 401)] {
        assert_eq!(post_signed(proxy.webhook.unwrap(), secret, &event(status.into())), status, "{secret}");
    }
}

#[test]
fn the_webhook_secret_replaces_the_partner_secret() {
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    fs::write(&secret_file, format!("{WEBHOOK_SECRET}\n")).unwrap();
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let service = Service::start(&[]);
    let file = [("FINICITY_WEBHOOK_SECRET_FILE", secret_file.to_str().unwrap())];
    let proxy = Proxy::run_with_token(serve_command(&upstream, &[&listen(&service)[..], &file].concat()));
    let address = proxy.webhook.unwrap();
    assert_eq!(post_signed(address, WEBHOOK_SECRET, &event(1)), 200);
    assert_eq!(post_signed(address, CLIENT_SECRET, &event(2)), 401);
    fs::write(&secret_file, "\"spoiled\"").unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("cannot load the webhook secrets; keeping the previous ones");
    assert_eq!(post_signed(address, WEBHOOK_SECRET, &event(3)), 200);
    fs::write(&secret_file, OTHER_SECRET).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("the webhook secret has changed; the previous one is accepted for 30 days");
    while post_signed(address, OTHER_SECRET, &event(4)) == 401 {}
    assert_eq!(post_signed(address, WEBHOOK_SECRET, &event(5)), 200);
}
