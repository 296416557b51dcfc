//! The alert rules, the runbook, the copy of the rules for the Prometheus operator, the dashboard and the metrics match each other.
//! `.ci/alerts` runs promtool, which tests when the rules fire.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use finicity_proxy::telemetry::Metrics;

fn read(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The name and the lines of each rule.
fn rules() -> Vec<(String, String)> {
    let text = read("deploy/prometheus/alerts.yml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, rest) = rule.split_once('\n').unwrap();
        (name.to_owned(), rest.to_owned())
    });
    rules.collect()
}

/// The names of all time series of this program.
fn series() -> BTreeSet<String> {
    let metrics = Metrics::new();
    let mut names = BTreeSet::new();
    for family in metrics.families() {
        let parts: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        names.extend(parts.iter().map(|part| format!("{}{part}", family.name)));
    }
    names
}

/// The metric names in a query or a text.
fn queried(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("finicity_proxy_") || word.starts_with("process_")).collect()
}

#[test]
fn every_metric_in_alert_rules_and_their_tests_exists() {
    let series = series();
    for file in ["alerts.yml", "alerts.test.yml", "alerts.week.test.yml"] {
        let text = read(&format!("deploy/prometheus/{file}"));
        for name in queried(&text) {
            assert!(series.contains(name), "{file}: {name} does not exist");
        }
    }
}

#[test]
fn every_metric_in_the_dashboard_exists() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/finicity-proxy.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 10);
    let series = series();
    for query in queries {
        let names = queried(query);
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(series.contains(name), "{name} does not exist");
        }
    }
}

#[test]
fn every_rule_has_a_severity_and_a_runbook_link() {
    let rules = rules();
    assert!(rules.len() > 20);
    let runbook = read("docs/runbook.md");
    for (name, rule) in &rules {
        let severity = rule.split_once("severity: ").unwrap().1.split_whitespace().next();
        assert!(matches!(severity, Some("page" | "ticket")), "{name} has severity {severity:?}");
        for annotation in ["summary: ", "description: "] {
            assert!(rule.contains(annotation), "{name} has no {annotation}");
        }
        let link = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&link), "{name} lacks {link}");
        assert!(runbook.contains(&format!("\n## {name}\n")), "docs/runbook.md has no section {name}");
    }
}

#[test]
fn every_runbook_section_is_complete_and_has_a_rule() {
    let names: BTreeSet<String> = rules().into_iter().map(|(name, _)| name).collect();
    let runbook = read("docs/runbook.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), names);
    assert_eq!(sections.len(), names.len(), "duplicate section");
    let metrics = series();
    for section in runbook.split("\n## ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        assert!(text.contains("Check: "), "{name} does not say what to check");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let escalates = ["scalate", "vendor"].iter().any(|word| last.contains(word));
        assert!(escalates, "{name} does not end with when to escalate to the vendor: {last}");
        // The runbook omits the prefix of metrics, as docs/metrics.md does.
        let check = text.split_once("Check: ").unwrap().1.split("\n\n").next().unwrap();
        let words = check.split('`').skip(1).step_by(2).map(|code| code.split('{').next().unwrap());
        for word in words.filter(|word| word.ends_with("_total") || word.ends_with("_seconds")) {
            let (whole, sum) = (format!("finicity_proxy_{word}"), format!("finicity_proxy_{word}_sum"));
            let known = [word, &whole, &sum].iter().any(|name| metrics.contains(*name));
            assert!(known, "{name}: {word} does not exist");
        }
    }
    for link in runbook.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(names.iter().any(|name| name.to_lowercase() == target), "broken link: #{target}");
    }
}

#[test]
fn every_rule_fires_in_a_test() {
    let tests = read("deploy/prometheus/alerts.test.yml") + &read("deploy/prometheus/alerts.week.test.yml");
    for (name, _) in rules() {
        assert!(tests.contains(&format!(r#"{{alertname="{name}""#)), "{name} fires in no test");
    }
}

#[test]
fn prometheus_operator_rules_match_the_alert_rules() {
    let rules = read("deploy/prometheus/alerts.yml");
    let indented = |line: &str| if line.is_empty() { String::new() } else { format!("  {line}") };
    let rules: Vec<String> = rules.lines().skip_while(|line| *line != "groups:").map(indented).collect();
    let manifest = read("deploy/prometheus/prometheusrule.yaml");
    let spec: Vec<&str> = manifest.lines().skip_while(|line| *line != "spec:").skip(1).collect();
    assert!(!rules.is_empty());
    assert_eq!(spec, rules, "regenerate it as described in its first lines");
}
