//! The alert rules, their runbook, their copy for the operator and the dashboard agree with each other and with the metrics that
//! there are.
//! `.ci/alerts` has promtool say whether they fire when they should.

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

/// The rules, each with the lines of its own.
fn rules() -> Vec<(String, String)> {
    let text = read("deploy/prometheus/alerts.yml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, rest) = rule.split_once('\n').unwrap();
        (name.to_owned(), rest.to_owned())
    });
    rules.collect()
}

/// Every name that a series of this program can have.
fn series() -> BTreeSet<String> {
    let metrics = Metrics::new();
    let mut names = BTreeSet::new();
    for family in metrics.families() {
        let parts: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        names.extend(parts.iter().map(|part| format!("{}{part}", family.name)));
    }
    names
}

/// The names of metrics in a query or a text.
fn queried(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("finicity_proxy_") || word.starts_with("process_")).collect()
}

#[test]
fn every_metric_that_a_rule_or_its_test_asks_for_is_there() {
    let series = series();
    for file in ["alerts.yml", "alerts.test.yml", "alerts.week.test.yml"] {
        let text = read(&format!("deploy/prometheus/{file}"));
        for name in queried(&text) {
            assert!(series.contains(name), "{file}: there is no {name}");
        }
    }
}

#[test]
fn every_metric_that_the_dashboard_asks_for_is_there() {
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
            assert!(series.contains(name), "there is no {name}");
        }
    }
}

#[test]
fn every_rule_says_how_bad_it_is_and_where_to_read_on() {
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
fn every_section_of_the_runbook_has_its_rule_and_says_what_it_has_to() {
    let names: BTreeSet<String> = rules().into_iter().map(|(name, _)| name).collect();
    let runbook = read("docs/runbook.md");
    let names_there: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(names_there.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), names);
    assert_eq!(names_there.len(), names.len(), "a section is there twice");
    let metrics = series();
    for section in runbook.split("\n## ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        assert!(text.contains("See it: "), "{name} does not say how to see it");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let escalates = ["scalate", "vendor"].iter().any(|word| last.contains(word));
        assert!(escalates, "{name} does not end with when to tell the vendor: {last}");
        // Metrics stand there without their prefix, as in docs/metrics.md.
        let see = text.split_once("See it: ").unwrap().1.split("\n\n").next().unwrap();
        let words = see.split('`').skip(1).step_by(2).map(|code| code.split('{').next().unwrap());
        for word in words.filter(|word| word.ends_with("_total") || word.ends_with("_seconds")) {
            let (whole, sum) = (format!("finicity_proxy_{word}"), format!("finicity_proxy_{word}_sum"));
            let known = [word, &whole, &sum].iter().any(|name| metrics.contains(*name));
            assert!(known, "{name}: there is no {word}");
        }
    }
    for link in runbook.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(names.iter().any(|name| name.to_lowercase() == target), "a link to nowhere: #{target}");
    }
}

#[test]
fn every_rule_has_a_test_in_which_it_fires() {
    let tests = read("deploy/prometheus/alerts.test.yml") + &read("deploy/prometheus/alerts.week.test.yml");
    for (name, _) in rules() {
        assert!(tests.contains(&format!(r#"{{alertname="{name}""#)), "no test has {name} fire");
    }
}

#[test]
fn the_operator_gets_the_same_rules() {
    let rules = read("deploy/prometheus/alerts.yml");
    let indented = |line: &str| if line.is_empty() { String::new() } else { format!("  {line}") };
    let rules: Vec<String> = rules.lines().skip_while(|line| *line != "groups:").map(indented).collect();
    let manifest = read("deploy/prometheus/prometheusrule.yaml");
    let spec: Vec<&str> = manifest.lines().skip_while(|line| *line != "spec:").skip(1).collect();
    assert!(!rules.is_empty());
    assert_eq!(spec, rules, "make it anew as its first lines say");
}
