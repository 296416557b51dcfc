//! Hints in error messages: what was probably meant, and the invalid value unless it can be a secret.

use std::fs;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, program},
};

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];

fn run<V: AsRef<str>>(arguments: &[&str], variables: &[(&str, V)]) -> (Option<i32>, String) {
    let mut program = program();
    program.args(arguments).envs(variables.iter().map(|(name, value)| (name, value.as_ref())));
    let mut process = Process::start(program);
    (process.wait().code(), process.output())
}

/// Checks that `check` and `serve` reject `variables`, which override the credentials, with one line that contains `parts`.
#[track_caller]
fn assert_rejected(variables: &[(&str, &str)], parts: &[&str]) {
    for command in ["check", "serve"] {
        let (code, output) = run(&[command], &[&SECRETS, variables].concat());
        assert_eq!((code, output.lines().count()), (Some(78), 1), "{variables:?}: {output}");
        for part in parts {
            assert!(output.contains(part), "{part:?} is not in {output}");
        }
    }
}

#[test]
fn a_misspelt_variable_is_reported_with_a_suggestion() {
    for (name, meant) in [
        ("FINICITY_ADMIN_TOEKN", "FINICITY_ADMIN_TOKEN"),
        ("FINICITY_ADMINTOKEN", "FINICITY_ADMIN_TOKEN"),
        ("FINCITY_ADMIN_TOKEN", "FINICITY_ADMIN_TOKEN"),
        ("finicity_admin_token", "FINICITY_ADMIN_TOKEN"),
        ("FINICITY_ADMIN_TOKEN_FLIE", "FINICITY_ADMIN_TOKEN_FILE"),
        ("FINICITY_ADMIN_TOKENFILE", "FINICITY_ADMIN_TOKEN_FILE"),
        ("FINICITY_EGRESS_PROXY_USRNAME", "FINICITY_EGRESS_PROXY_USERNAME"),
        ("FINICITY_CONFG", "FINICITY_CONFIG"),
        ("FINICITY_LOG_LEVLE", "FINICITY__LOG__LEVEL"),
        ("FINCITY__LOG__LEVEL", "FINICITY__LOG__LEVEL"),
    ] {
        assert_rejected(
            &[(name, "some-private-value-0123")],
            &[name, &format!("unknown variable; did you mean {meant}?")],
        );
    }
    let mut variables = SECRETS.to_vec();
    variables[0].0 = "FINICITY_CLIENTID";
    let (code, output) = run(&["check"], &variables);
    assert_eq!(code, Some(78));
    assert!(output.contains("FINICITY_CLIENTID: unknown variable; did you mean FINICITY_CLIENT_ID?"), "{output}");
}

#[test]
fn unrelated_variables_are_not_reported() {
    // Variables that Kubernetes sets for Services, a variable with a similar name, and variables of other programs.
    let others = [
        ("FINICITY_PROXY_PORT", "tcp://10.0.0.1:3464"),
        ("FINICITY_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("FINICITY_PROXY_PORT_3464_TCP_ADDR", "10.0.0.1"),
        ("FINICITY_ADMIN_PORT", "tcp://10.0.0.1:1"),
        ("FINICITY_LOG_PORT", "tcp://10.0.0.1:1"),
        ("FINICITY_LISTEN_PORT", "tcp://10.0.0.1:1"),
        ("FINICITY_CLIENT_PORT", "tcp://10.0.0.1:1"),
        ("FINICITY_APP_KEY_2", "old"),
        ("FINICITY_CLIENT_SECRETS", "x"),
        ("FINICITY_BASE_URL", "x"),
        ("ADMIN_TOKEN", "x"),
        ("CITY", "x"),
    ];
    let (code, output) = run(&["check"], &[&SECRETS[..], &others].concat());
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn missing_credentials_hint_at_partner_auth_and_demo() {
    let (_, output) = run::<&str>(&["check"], &[]);
    for part in ["FINICITY_PARTNER_ID", "FINICITY_PARTNER_SECRET", "partner authentication", "`finicity-proxy demo`"] {
        assert!(output.lines().next().unwrap().contains(part), "{part} is not in {output}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let variables = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", path.as_str())];
    let (_, output) = run(&["check"], &variables);
    assert!(output.contains(&format!("{path}/partner_id")) && output.contains("`finicity-proxy demo`"), "{output}");
    // Without the hint if one kind of credentials was chosen.
    for variables in [[("FINICITY__AUTH__SCHEME", "oauth2")], [("FINICITY_CLIENT_ID", CLIENT_ID)]] {
        let (code, output) = run(&["check"], &variables);
        assert!(code == Some(78) && !output.contains("PARTNER"), "{output}");
    }
}

#[test]
fn invalid_toml_is_reported_with_the_reason_and_no_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.yaml");
    let file = path.display().to_string();
    for (text, reason) in [
        ("upstream:\n  url: https://private.example\n", "line 1, column 10: key with no value, expected `=`"),
        ("---\nupstream: {url: private}\n", "is not valid TOML"),
        ("{\"upstream\": {\"url\": \"private\"}}\n", "is not valid TOML"),
        ("[upstream]\nurl = private-value\n", "line 2, column 7: "),
        ("[upstream]\nurl = \"a\"\nurl = \"private\"\n", "line 3, column 1: duplicate key"),
        ("[upstream\nurl = \"private\"\n", "line 1, column 10: unclosed table, expected `]`"),
        ("invalid private-value", "is not valid TOML"),
        ("a = \"\nmissing private", "is not valid TOML"),
    ] {
        fs::write(&path, text).unwrap();
        assert_rejected(&[("FINICITY_CONFIG", &file)], &[&file, "no other format is supported", reason]);
        let (_, output) = run(&["check"], &[("FINICITY_CONFIG", &file)]);
        assert!(!output.contains("private"), "{output}");
    }
}

#[test]
fn trailing_line_breaks_are_stripped_from_every_value() {
    for (key, value) in [
        ("LIMITS__CONNECTIONS", "100"),
        ("LIMITS__QUEUE_TIMEOUT", "1s"),
        ("LOG__FORMAT", "json"),
        ("LOG__LEVEL", "info"),
        ("LISTEN__ALLOW_REMOTE", "true"),
        ("LISTEN__PROXY", "127.0.0.1:0"),
        ("LISTEN__SOCKET_MODE", "0600"),
        ("UPSTREAM__URL", "https://api.finicity.com"),
        ("UPSTREAM__EGRESS_PROXY", "http://proxy.internal:3128"),
        ("AUTH__TOKEN_PATH", "/oauth/token"),
        ("AUTH__APP_KEY_HEADER", "App-Key"),
        ("AUTH__SCOPE", "a b"),
        ("GUARD__REQUIRED_HEADER", "X-A: 1"),
        ("POLICY__ALLOW", "GET /x"),
        ("RUNTIME__WORKER_THREADS", "auto"),
    ] {
        for line_break in ["\n", "\r\n", "\n\n"] {
            let (code, output) = run(
                &["check"],
                &[&SECRETS[..], &[(&*format!("FINICITY__{key}"), &*format!("{value}{line_break}"))]].concat(),
            );
            assert_eq!(code, Some(0), "{key}: {output}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app_key"), APP_KEY).unwrap();
    fs::write(dir.path().join("proxy.toml"), "[log]\nlevel = \"\"\"info\n\"\"\"\n").unwrap();
    let [key, file] = ["app_key", "proxy.toml"].map(|name| format!("{}\n", dir.path().join(name).display()));
    let variables = [("FINICITY_APP_KEY", ""), ("FINICITY_APP_KEY_FILE", &*key), ("FINICITY_CONFIG", &*file)];
    let (code, output) = run(&["check"], &[&SECRETS[..], &variables].concat());
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn an_invalid_value_is_shown_unless_it_may_be_a_secret() {
    for (key, value) in [
        ("LIMITS__CONNECTIONS", "many"),
        ("LIMITS__CONNECTIONS", "0"),
        ("LIMITS__QUEUE_TIMEOUT", "30sec 2"),
        ("LOG__FORMAT", "yaml"),
        ("LISTEN__ALLOW_REMOTE", "yes"),
        ("LISTEN__PROXY", "localhost:3464"),
        ("LISTEN__PROXY", "0.0.0.0:3464"),
        ("UPSTREAM__URL", "http://api.finicity.com"),
        ("UPSTREAM__URL", "api.finicity.com"),
        ("LISTEN__SOCKET_MODE", "0999"),
        ("GUARD__HOSTS", "https://proxy.internal"),
    ] {
        assert_rejected(&[(&format!("FINICITY__{key}"), value)], &[&format!("(found: \"{value}\")")]);
    }
    for secret in [CLIENT_SECRET, "hunter2", "private+value/of-this/key+9b=e!", "0123456789abcdef0123456789abcdef"] {
        for key in ["LIMITS__CONNECTIONS", "LOG__FORMAT", "UPSTREAM__URL", "LISTEN__PROXY", "LIMITS__QUEUE_TIMEOUT"] {
            let name = format!("FINICITY__{key}");
            let variables =
                [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", "another-value"), (&*name, secret)];
            let (code, output) = run(&["check"], &variables);
            assert!(code == Some(78) && !output.contains(secret) && !output.contains("(found"), "{output}");
        }
    }
}

#[test]
fn an_upstream_url_without_a_scheme_is_reported() {
    for url in ["api.finicity.com", "api.finicity.com:443", "localhost:8443", "//api.finicity.com"] {
        assert_rejected(
            &[("FINICITY__UPSTREAM__URL", url)],
            &["upstream.url", "the scheme is missing; begin it with https://"],
        );
    }
    assert_rejected(&[("FINICITY__UPSTREAM__EGRESS_PROXY", "proxy.internal:3128")], &["begin it with http://"]);
}

#[test]
fn an_unknown_key_refers_to_the_config_command() {
    let unknown = ("FINICITY__UPSTREAM__SOMETHING_ELSE", "x");
    assert_rejected(&[unknown], &["upstream.something_else", "unknown key; `finicity-proxy config` lists all keys"]);
    // `config` lists the keys even with this variable.
    let (code, output) = run(&["config"], &[unknown]);
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("connect_timeout = \"3s\"") && output.contains("unknown key"), "{output}");
}
