//! Connections to the upstream through an egress proxy.

use crate::support::{
    EGRESS_PASSWORD, EGRESS_USERNAME,
    egress::EgressProxy,
    process::{Process, Proxy, serve_command},
    upstream::{ClosedPort, Reply, Upstream},
};

const CREDENTIALS: [(&str, &str); 2] =
    [("FINICITY_EGRESS_PROXY_USERNAME", EGRESS_USERNAME), ("FINICITY_EGRESS_PROXY_PASSWORD", EGRESS_PASSWORD)];

fn ok() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// The values of `Proxy-Authorization` in a head.
fn authorization(head: &str) -> Option<&str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization")))
        .map(|(_, value)| value)
}

#[test]
fn all_upstream_connections_use_the_egress_proxy() {
    let (upstream, egress) = (ok(), EgressProxy::start());
    let url = egress.url();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__EGRESS_PROXY", &url)]);
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/x").status, 200);
    }
    let heads = egress.heads();
    assert_eq!(
        (heads.len(), upstream.connections()),
        (2, 2),
        "one for the token request, one for the API requests: {heads:?}"
    );
    for head in heads {
        assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", upstream.authority())), "{head}");
        assert_eq!(authorization(&head), None);
    }
}

#[test]
fn egress_credentials_go_only_to_the_egress_proxy() {
    let (upstream, egress) = (ok(), EgressProxy::start());
    let url = egress.url();
    let variables = [&CREDENTIALS[..], &[("FINICITY__UPSTREAM__EGRESS_PROXY", &url)]].concat();
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
    let heads = egress.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        // "canary-egress:canary-Egress+9b/2=e!"
        assert_eq!(authorization(&head), Some("Basic Y2FuYXJ5LWVncmVzczpjYW5hcnktRWdyZXNzKzliLzI9ZSE="));
    }
    for request in upstream.received() {
        assert_eq!(request.headers("proxy-authorization"), [""; 0]);
    }
}

#[test]
fn an_egress_proxy_error_is_a_502_and_is_logged() {
    for status in [407, 403] {
        let (upstream, egress) = (ok(), EgressProxy::start());
        let url = egress.url();
        let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__EGRESS_PROXY", &url)]);
        egress.respond_with(status);
        proxy.connect().get("/x").assert_problem(502, "upstream_unreachable");
        let line = proxy.process.wait_for_log("request");
        let cause = line["error.message"].as_str().unwrap();
        assert!(cause.contains(&format!("the egress proxy returned {status} ")), "{cause}");
        assert_eq!(upstream.requests().len(), 0);
        egress.respond_with(200);
        assert_eq!(proxy.connect().get("/x").status, 200, "it recovers without a restart");
    }
}

#[test]
fn a_token_request_denied_by_the_egress_proxy_is_retried() {
    let (upstream, egress) = (ok(), EgressProxy::start());
    egress.respond_with(407);
    let url = egress.url();
    let proxy = Proxy::launch(&upstream, &[("FINICITY__UPSTREAM__EGRESS_PROXY", &url)]);
    assert_eq!(proxy.process.wait_for_log("token refresh failed")["class"], "transient");
    egress.respond_with(200);
    proxy.process.wait_for_log("token obtained");
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn certificates_are_verified_through_the_egress_proxy() {
    let (upstream, egress) = (ok(), EgressProxy::start());
    let url = egress.url();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__EGRESS_PROXY", &url)]);
    upstream.use_untrusted_certificate();
    proxy.connect().get("/x").assert_problem(502, "upstream_tls");
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn proxy_environment_variables_are_ignored() {
    let (upstream, dead) = (ok(), ClosedPort::new());
    let url = dead.url().replace("https", "http");
    let variables = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let proxy = Proxy::start_with(&upstream, &variables.map(|name| (name, url.as_str())));
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert_eq!(proxy.process.logs("token refresh failed").len(), 0);
    drop(proxy);

    // They do not bypass the configured egress proxy.
    let egress = EgressProxy::start();
    let url = egress.url();
    let variables = [("FINICITY__UPSTREAM__EGRESS_PROXY", url.as_str()), ("NO_PROXY", "*"), ("no_proxy", "localhost")];
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert_eq!(egress.heads().len(), 2);
}

#[test]
fn invalid_egress_credentials_fail_startup() {
    let upstream = ok();
    let url = ("FINICITY__UPSTREAM__EGRESS_PROXY", "http://proxy.internal:3128");
    for (variables, expected) in [
        (
            vec![("FINICITY__UPSTREAM__EGRESS_PROXY", "http://canary:canary@proxy.internal")],
            "FINICITY_EGRESS_PROXY_USERNAME and",
        ),
        (vec![url, CREDENTIALS[0]], "FINICITY_EGRESS_PROXY_PASSWORD is not set"),
        (vec![url, CREDENTIALS[1]], "FINICITY_EGRESS_PROXY_USERNAME is not set"),
        (vec![url, ("FINICITY_EGRESS_PROXY_USERNAME", "a:canary"), CREDENTIALS[1]], "has a colon"),
        (CREDENTIALS.to_vec(), "upstream.egress_proxy"),
    ] {
        let mut process = Process::start(serve_command(&upstream, &variables));
        assert_eq!(process.wait().code(), Some(78));
        let output = process.output();
        assert!(output.contains(expected) && !output.contains("canary"), "{output}");
    }
}
