//! Probes, metrics and status.

use std::net::SocketAddr;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

#[test]
fn probes_and_metrics_show_the_state_of_the_proxy() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/aggregation/v1/customers/987654321" => Reply::status(404, "Not Found", "{}"),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.get("/aggregation/v1/customers?search=someone");
    client.get("/aggregation/v1/customers/987654321");
    client.call("GET", "/no/such/operation", &["finicity_APP_key: evil", "Authorization: Bearer evil"], b"");
    client.call("TRACE", "/x", &[], b"").assert_problem(405, "method_not_allowed");

    for probe in ["/startupz", "/livez", "/readyz"] {
        let response = proxy.ops().get(probe);
        assert_eq!((response.status, response.text().as_str()), (200, "ok\n"), "{probe}");
    }
    assert!(proxy.ops().get("/readyz?verbose").text().contains("token state: fresh"));
    let metrics = proxy.ops().get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text();
    for line in [
        r#"finicity_proxy_requests_total{method="GET",route="/aggregation/v1/customers",status_class="2xx"} 1"#,
        r#"finicity_proxy_requests_total{method="GET",route="/aggregation/v1/customers/{customerId}",status_class="4xx"} 1"#,
        r#"finicity_proxy_requests_total{method="_OTHER",route="other",status_class="2xx"} 1"#,
        r#"finicity_proxy_upstream_first_byte_seconds_count{method="GET",route="/aggregation/v1/customers"} 1"#,
        r#"finicity_proxy_errors_total{code="method_not_allowed"} 1"#,
        // d05
        "finicity_proxy_caller_credentials_total 1",
        r#"finicity_proxy_token_refreshes_total{outcome="success"} 1"#,
        "finicity_proxy_token_version 1",
        "finicity_proxy_connections 1",
        "finicity_proxy_requests_in_flight 0",
        r#"version="0.1.0"} 1"#,
        r#"finicity_proxy_request_duration_seconds_count{method="GET",route="/aggregation/v1/customers"} 1"#,
        r#"finicity_proxy_errors_total{code="upstream_timeout"} 0"#,
        r#"finicity_proxy_billable_requests_total{method="_OTHER",route="other"} 1"#,
        r#"finicity_proxy_upstream_requests_total{connection="new"} 1"#,
        r#"finicity_proxy_upstream_requests_total{connection="reused"} 2"#,
        "finicity_proxy_upstream_connections 1",
        "finicity_proxy_upstream_connections_idle 1",
        "finicity_proxy_upstream_connect_seconds_count 1",
        "finicity_proxy_token_call_duration_seconds_count 1",
        r#"finicity_proxy_credentials_candidate{state="none"} 1"#,
        "finicity_proxy_live 1",
        "finicity_proxy_ready 1",
        "finicity_proxy_draining 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let expiry = text.lines().find_map(|line| line.strip_prefix("finicity_proxy_token_expiry_seconds ")).unwrap();
    assert!((3_000.0..3_570.1).contains(&expiry.parse::<f64>().unwrap()), "{expiry}");
    // The process is not dumpable, but can still read its own entries in /proc.
    for name in ["resident_memory_bytes", "open_fds", "max_fds", "cpu_seconds_total", "start_time_seconds"] {
        let value = text.lines().find_map(|line| line.strip_prefix("process_")?.strip_prefix(name)).unwrap();
        assert!(value.trim().parse::<f64>().unwrap() > 0.0, "{name} {value}");
    }
    assert!(!text.contains(r#"billable_requests_total{method="GET""#), "this operation is free");
    assert!(!text.contains("987654321") && !text.contains("someone"), "{text}");
}

#[test]
fn every_label_value_is_exported_before_its_first_event() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let text = Proxy::start(&upstream).ops().get("/metrics").text();
    let missing: Vec<_> = [
        ("errors_total", "code", "draining"),
        ("errors_total", "code", "internal"),
        ("connections_evicted_total", "reason", "idle"),
        ("connections_evicted_total", "reason", "stalled_response"),
        ("accept_problems_total", "problem", "failed"),
        ("requests_shed_total", "reason", "queue_timeout"),
        ("policy_denials_total", "reason", "unclear"),
        ("token_refreshes_total", "outcome", "certificate"),
        ("heals_total", "outcome", "not_replayable"),
        ("token_state", "state", "stopped"),
        ("credentials_candidate", "state", "held"),
        ("upstream_connections_closed_total", "reason", "failed"),
        ("upstream_connect_failures_total", "reason", "timeout"),
        ("upstream_tls_failures_total", "fault", "version"),
        ("upstream_tls_failures_total", "fault", "other"),
        ("reloads_total", "subject", "ca_file"),
    ]
    .into_iter()
    .filter(|(family, label, value)| {
        let (start, label) = (format!("finicity_proxy_{family}{{"), format!(r#"{label}="{value}""#));
        !text.lines().any(|line| line.starts_with(&start) && line.contains(&label) && line.ends_with(" 0"))
    })
    .collect();
    assert!(missing.is_empty(), "{missing:?} not in\n{text}");
}

#[test]
fn l10_metric_cardinality_is_bounded() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let mut count = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            client.get(&format!("/random/{n}/path"));
            client.call(&format!("METHOD{n}"), "/x", &[], b"").assert_problem(405, "method_not_allowed");
        }
        proxy.ops().get("/metrics").text().lines().count()
    };
    let before = count(0..1);
    assert_eq!(count(1..200), before);
}

#[test]
fn q12_probes_respond_over_ipv4_and_ipv6() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LISTEN__OPS", "[::]:0")]);
    let mut hosts = vec!["127.0.0.1"];
    // On a machine without IPv6 the address is 0.0.0.0.
    if proxy.ops.is_ipv6() && std::net::TcpListener::bind("[::1]:0").is_ok() {
        hosts.push("::1");
    }
    for host in hosts {
        let mut ops = Client::connect(SocketAddr::new(host.parse().unwrap(), proxy.ops.port()));
        assert_eq!(ops.call("GET", "/livez", &["User-Agent: kube-probe/1.36"], b"").status, 200, "{host}");
    }
}

#[test]
fn ops_forwards_nothing_and_the_data_port_has_no_probes() {
    let upstream = Upstream::start(3600, |_| Reply::status(404, "Not Found", "from upstream"));
    let proxy = Proxy::start(&upstream);
    assert_eq!(proxy.ops().get("/aggregation/v1/customers").status, 404);
    assert_eq!(upstream.requests().len(), 0);
    let response = proxy.connect().call("GET", "/livez", &["User-Agent: kube-probe/1.36"], b"");
    assert_eq!(response.text(), "from upstream");
}

#[test]
fn the_admin_port_shows_the_status_to_local_programs_only() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    let mut admin = crate::support::client::Client::connect(proxy.admin);
    let status: serde_json::Value = serde_json::from_slice(&admin.get("/api/status").body).unwrap();
    assert_eq!((status["token"]["state"].as_str(), status["token"]["version"].as_u64()), (Some("fresh"), Some(1)));
    assert_eq!(status["upstream"].as_str(), Some(format!("{}/", upstream.url()).as_str()));
    assert_eq!(admin.call("GET", "/api/status", &["Origin: https://evil.example"], b"").status, 403);
}

/// The value of `key` in the lines of `probe`, or `default`.
fn number(probe: &str, key: &str, default: u64) -> u64 {
    let line = probe.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    line.map_or(default, |value| value.trim().parse().unwrap())
}

#[test]
fn the_heartbeat_limit_is_below_the_shipped_startup_probes() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes")];
    let mut probes = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for probe in text.split("startupProbe:").skip(1).map(|rest| rest.split("Probe:").next().unwrap()) {
                if !probe.contains("/startupz") {
                    continue;
                }
                let allowed = number(probe, "periodSeconds", 10) * number(probe, "failureThreshold", 3);
                assert!(allowed > finicity_proxy::token::HEARTBEAT_LIMIT.as_secs(), "{}: {allowed} s", path.display());
                probes += 1;
            }
        }
    }
    assert!(probes >= 3, "{probes} startup probes in deploy/kubernetes");
}
