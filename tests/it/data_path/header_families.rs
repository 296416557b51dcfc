//! Which headers of a client reach the upstream: those about the request, and none about the client.

use serde_json::Value;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program},
    upstream::{Reply, Upstream, token},
};

/// Headers about the client's network, trace, identity and credentials, in the spelling of real products.
const CLIENT_HEADERS: [&str; 100] = [
    "X-Envoy-External-Address",
    "X-Envoy-Attempt-Count",
    "x-envoy-some-new-header",
    "l5d-client-id",
    "l5d-ctx-trace",
    "X-Client-IP",
    "Client-IP",
    "Fastly-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "X-Acme-Client-Ip",
    "CF-Connecting-IP",
    "DO-Connecting-IP",
    "X-Acme-Connecting-IP",
    "X-Real-IP",
    "X-Original-Forwarded-For",
    "X-Original-URL",
    "X-Original-Foo",
    "X-Rewrite-URL",
    "X-Rewrite-Foo",
    "Forwarded",
    "Forwarded-For",
    "X-Forwarded-For",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Acme",
    "Via",
    "CF-Ray",
    "CF-IPCountry",
    "CDN-Loop",
    "Akamai-Origin-Hop",
    "X-Azure-SocketIP",
    "X-Azure-FDID",
    "X-AppEngine-User-IP",
    "X-Goog-Foo",
    "CloudFront-Viewer-Address",
    "X-Amz-Cf-Id",
    "X-Amzn-Trace-Id",
    "X-Cloud-Trace-Context",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "X-B3-TraceId",
    "uber-trace-id",
    "uberctx-user",
    "X-Datadog-Trace-Id",
    "newrelic",
    "X-NewRelic-ID",
    "elastic-apm-traceparent",
    "sentry-trace",
    "X-INSTANA-T",
    "X-Dynatrace",
    "X-Dynatrace-Application",
    "x-ot-span-context",
    "ot-tracer-traceid",
    "grpc-trace-bin",
    "sw8",
    "singularityheader",
    "ADRUM",
    "X-Acme-Trace-Id",
    "X-Istio-Attributes",
    "X-Consul-Token",
    "X-Kong-Request-Id",
    "X-Consumer-Username",
    "X-Auth-Request-Email",
    "X-Auth-Token",
    "X-Authenticated-User",
    "Remote-User",
    "X-Remote-User",
    "REMOTE_ADDR",
    "X-WebAuth-User",
    "X-Goog-IAP-JWT-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-MS-Client-Principal",
    "X-MS-TOKEN-AAD-ACCESS-TOKEN",
    "X-Amzn-Oidc-Data",
    "Cf-Access-Jwt-Assertion",
    "X-Pomerium-Jwt-Assertion",
    "Teleport-Jwt-Assertion",
    "X-authentik-username",
    "Tailscale-User-Login",
    "Impersonate-User",
    "SM_USER",
    "iv-user",
    "X-SSL-Client-Cert",
    "SSL-Client-S-DN",
    "Client-Cert",
    "X-Client-Cert",
    "X-Vault-Token",
    "X-Amz-Security-Token",
    "X-Gitlab-Token",
    "Private-Token",
    "X-Api-Key",
    "Api-Key",
    "apikey",
    "X-Access-Token",
    "X-CSRF-Token",
    "Ocp-Apim-Subscription-Key",
    "Cookie",
    "Cookie2",
];

/// Headers of the vendor, of HTTP, and of applications.
const REQUEST_HEADERS: [&str; 30] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Accept-Charset",
    "Content-Language",
    "Content-Encoding",
    "Content-MD5",
    "User-Agent",
    "Cache-Control",
    "Pragma",
    "Prefer",
    "If-None-Match",
    "If-Modified-Since",
    "Range",
    "X-Request-Id",
    "X-External-Request-Id",
    "Idempotency-Key",
    "Update-By",
    "Meta-Data",
    "MFA-Session",
    "X-Correlation-ID",
    "X-Requested-With",
    "X-Customer-Note",
    "X-Foo-IP-Range",
    "X-Forwardable",
    "X-Envoys",
    "CFO-Name",
    "X-Authored-By",
    "x_custom",
    "Sec-Fetch-Mode",
];

/// Sends the headers `names` in several requests, and returns those that arrive.
fn arriving(proxy: &Proxy, upstream: &Upstream, names: &[String]) -> Vec<String> {
    let mut arrived = Vec::new();
    for (part, names) in names.chunks(40).enumerate() {
        let lines: Vec<String> = names.iter().map(|name| format!("{name}: the-value")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let target = format!("/part-{part}");
        upstream.clear_received();
        assert_eq!(proxy.connect().call("GET", &target, &lines, b"").status, 200);
        let request = upstream.wait_for(&target);
        arrived.extend(names.iter().filter(|name| request.headers(name) == ["the-value"]).cloned());
        let with_value = request.head.split("\r\n").skip(1).filter(|line| line.contains("the-value"));
        assert_eq!(with_value.count(), names.iter().filter(|name| arrived.contains(name)).count(), "{}", request.head);
        assert_eq!(request.headers("finicity-app-key"), [APP_KEY]);
        assert_eq!(request.headers("authorization"), [format!("Bearer {}", token(1))]);
    }
    arrived
}

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

#[test]
fn headers_about_the_client_are_removed_in_any_spelling() {
    let upstream = upstream();
    let proxy = Proxy::start(&upstream);
    for separator in ["-", "_", ".", "~", "!", "--", "_-"] {
        let names = CLIENT_HEADERS.map(|name| name.replace(['-', '_'], separator));
        assert_eq!(arriving(&proxy, &upstream, &names), [""; 0], "{separator}");
    }
    assert_eq!(arriving(&proxy, &upstream, &CLIENT_HEADERS.map(str::to_uppercase)), [""; 0]);
}

#[test]
fn headers_in_no_family_are_forwarded() {
    let upstream = upstream();
    let proxy = Proxy::start(&upstream);
    let names = REQUEST_HEADERS.map(str::to_owned);
    assert_eq!(arriving(&proxy, &upstream, &names), names);
}

#[test]
fn headers_forward_permits_a_name() {
    let upstream = upstream();
    let variables = [("FINICITY__HEADERS__FORWARD", "traceparent, X-Api-Key, x-envoy-b")];
    let proxy = Proxy::start_with(&upstream, &variables);
    let names = ["Traceparent", "tracestate", "X-Api-Key", "X_Api_Key", "X-Envoy-A", "X-Envoy-B"].map(str::to_owned);
    assert_eq!(arriving(&proxy, &upstream, &names), ["Traceparent", "X-Api-Key", "X-Envoy-B"]);
}

#[test]
fn headers_forward_rejects_an_injected_name() {
    let secrets =
        [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];
    for name in ["Authorization", "finicity-app-key", "Finicity_App_Token", "App-Key", "Host", "Content-Length", "TE"] {
        let mut command = program();
        command.args(["check", &format!("--set=headers.forward={name}")]).envs(secrets);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(78), "{name}");
        let output = process.output();
        assert!(output.starts_with("finicity-proxy: headers.forward (set by --set): name 1 "), "{output}");
    }
}

#[test]
fn each_removed_header_is_logged_once_by_a_known_name() {
    let upstream = upstream();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LOG__LEVEL", "debug")]);
    let names = [
        "X-Api-Key",
        "x_api_key",
        "X-Envoy-private-1",
        "X-Envoy-private-2",
        "X-Envoy-Attempt-Count",
        "private-3-token",
    ];
    for _ in 0..3 {
        arriving(&proxy, &upstream, &names.map(str::to_owned));
    }
    arriving(&proxy, &upstream, &["traceparent".to_owned()]);
    const MESSAGE: &str = "caller's header field not forwarded; add its name to headers.forward to forward it";
    let is_last = |line: &str| line.contains(MESSAGE) && line.contains("traceparent");
    proxy.process.wait_for_line(is_last);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut logged: Vec<_> =
        proxy.process.logs(MESSAGE).iter().map(|line| (text(&line["header"]), text(&line["family"]))).collect();
    logged.sort_unstable();
    let expected = [
        ("*-token", "credentials"),
        ("traceparent", "trace"),
        ("x-api-key", "credentials"),
        ("x-envoy-*", "network"),
        ("x-envoy-attempt-count", "network"),
    ];
    assert_eq!(logged, expected.map(|(header, family)| (header.to_owned(), family.to_owned())));
    assert!(!proxy.process.output().contains("private"), "{}", proxy.process.output());
}
