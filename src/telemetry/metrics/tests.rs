use std::{fs, path::Path};

use http::StatusCode;

use super::*;

#[test]
fn a_request_is_counted_by_route_and_class() {
    let metrics = Metrics::new();
    let route = metrics.route(Some(3), "GET", "/a/{b}", true);
    route.finished(Some(StatusCode::OK), Duration::from_millis(4));
    route.finished(Some(StatusCode::NOT_FOUND), Duration::from_millis(40));
    route.finished(None, Duration::from_secs(400));
    route.observe_first_byte(Duration::from_millis(3));
    route.reached_upstream();
    metrics.route(Some(4), "GET", "/free", false).reached_upstream();
    metrics.init_token_failure("rejected");
    let text = metrics.render();
    for line in [
        r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="2xx"} 1"#,
        r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="4xx"} 1"#,
        r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="aborted"} 1"#,
        r#"finicity_proxy_upstream_first_byte_seconds_bucket{method="GET",route="/a/{b}",le="0.005"} 1"#,
        r#"finicity_proxy_request_duration_seconds_bucket{method="GET",route="/a/{b}",le="0.005"} 1"#,
        r#"finicity_proxy_request_duration_seconds_bucket{method="GET",route="/a/{b}",le="240"} 2"#,
        r#"finicity_proxy_request_duration_seconds_bucket{method="GET",route="/a/{b}",le="+Inf"} 3"#,
        r#"finicity_proxy_billable_requests_total{method="GET",route="/a/{b}"} 1"#,
        r#"finicity_proxy_token_refreshes_total{outcome="rejected"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(r#"billable_requests_total{method="GET",route="/free"}"#), "{text}");
}

#[test]
fn an_unknown_status_class_or_route_is_counted() {
    let metrics = Metrics::new();
    metrics.route(None, "_OTHER", "other", true).finished(StatusCode::from_u16(999).ok(), Duration::ZERO);
    assert!(metrics.render().contains(r#"route="other",status_class="5xx"} 1"#));
}

#[test]
fn upstream_connections_and_failures_are_counted() {
    let metrics = Metrics::new();
    let upstream = metrics.upstream();
    upstream.opened(Duration::from_millis(2));
    upstream.opened(Duration::from_millis(2));
    upstream.closed(CloseReason::Failed);
    upstream.connect_failed(ConnectFailure::Tls, Some(crate::tls::TlsFailure::PinMismatch));
    upstream.connect_failed(ConnectFailure::Tls, None);
    upstream.connect_failed(ConnectFailure::Timeout, None);
    upstream.request_sent(true);
    let text = metrics.render();
    for line in [
        "finicity_proxy_upstream_connections 1",
        "finicity_proxy_upstream_connections_opened_total 2",
        r#"finicity_proxy_upstream_connections_closed_total{reason="failed"} 1"#,
        r#"finicity_proxy_upstream_connect_failures_total{reason="tls"} 2"#,
        r#"finicity_proxy_upstream_connect_failures_total{reason="timeout"} 1"#,
        r#"finicity_proxy_upstream_tls_failures_total{fault="pin"} 1"#,
        r#"finicity_proxy_upstream_tls_failures_total{fault="other"} 1"#,
        r#"finicity_proxy_upstream_requests_total{connection="reused"} 1"#,
        r#"finicity_proxy_upstream_requests_total{connection="new"} 0"#,
        "finicity_proxy_upstream_connect_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_failed_reload_shows_until_the_next_success() {
    let metrics = Metrics::new();
    let shows = |line: &str| metrics.render().contains(line);
    assert!(shows(r#"finicity_proxy_reload_last_successful{subject="credentials"} 1"#));
    metrics.reloaded(ReloadTarget::Credentials, false);
    assert!(shows(r#"finicity_proxy_reload_last_successful{subject="credentials"} 0"#));
    assert!(shows(r#"finicity_proxy_reload_last_successful{subject="ca_file"} 1"#));
    metrics.reloaded(ReloadTarget::Credentials, true);
    assert!(shows(r#"finicity_proxy_reload_last_successful{subject="credentials"} 1"#));
    assert!(shows(r#"finicity_proxy_reloads_total{outcome="failure",subject="credentials"} 1"#));
}

#[test]
fn process_metrics_have_the_standard_names() {
    let text = Metrics::new().render();
    let value = |name: &str| -> f64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().parse().unwrap()
    };
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!((1.0..=value("process_max_fds")).contains(&value("process_open_fds")));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_start_time_seconds") > 1.7e9);
}

/// Uses more operations than the catalogue has, with templates as long as its longest.
#[test]
fn l10_the_page_is_bounded_with_all_operations_in_use() {
    let metrics = Metrics::new();
    for index in 0..200 {
        let template =
            format!("/aggregation/v1/{index:04}/{{customerId}}/institutionLogins/{{institutionLoginId}}/accounts");
        let route = metrics.route(Some(index), "DELETE", &template, true);
        route.finished(Some(StatusCode::OK), Duration::from_millis(123));
        route.observe_first_byte(Duration::from_millis(123));
    }
    let bytes = metrics.render().len();
    assert!(bytes < 2 << 20, "{bytes} bytes");
}

/// The families in the tables of docs/metrics.md.
fn documented() -> Vec<MetricFamily> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(path).unwrap();
    let cells = text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split('|').collect::<Vec<_>>()));
    let mut families: Vec<MetricFamily> = cells
        .filter_map(|cells| {
            let kind = ["counter", "gauge", "histogram"].into_iter().find(|kind| *kind == cells[1].trim())?;
            let name = cells[0].trim().trim_matches('`');
            let name = if name.starts_with("process_") { name.to_owned() } else { format!("finicity_proxy_{name}") };
            let labels = cells[2].split(',').map(|label| label.trim().trim_matches('`').to_owned());
            let mut labels: Vec<String> = labels.filter(|label| !label.is_empty()).collect();
            labels.sort();
            Some(MetricFamily { name, kind, labels })
        })
        .collect();
    families.sort();
    families
}

#[test]
fn the_documentation_lists_exactly_the_metric_families() {
    let metrics = Metrics::new();
    let shown = metrics.families();
    let documented = documented();
    for family in shown {
        assert!(documented.contains(family), "docs/metrics.md lacks {family:?}");
    }
    for family in &documented {
        assert!(shown.contains(family), "/metrics has no {family:?}");
    }
    assert_eq!(shown.len(), documented.len(), "a family is in docs/metrics.md twice");
}

#[test]
fn names_follow_the_prometheus_conventions() {
    for MetricFamily { name, kind, .. } in Metrics::new().families() {
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name}");
        assert!(
            !["_ms", "_millis", "_kib", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)),
            "{name}"
        );
    }
}
