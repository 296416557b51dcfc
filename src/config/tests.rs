use std::{fs, path::Path};

use super::*;
use crate::credentials::SourceConfig;

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", "id-1"), ("FINICITY_CLIENT_SECRET", "canary-secret"), ("FINICITY_APP_KEY", "canary-key")];

fn inputs(variables: &[(&str, &str)]) -> Inputs {
    let variables = SECRETS.iter().chain(variables).copied();
    Inputs { environment: variables.collect(), ..Inputs::default() }
}

fn with_file(path: &Path, toml: &str) -> Inputs {
    fs::write(path, toml).unwrap();
    Inputs { file: Some(path.to_owned()), ..inputs(&[]) }
}

/// Asserts that loading fails with `count` problems, one per line, that they contain each of `parts`, and that they contain no value.
#[track_caller]
fn check_problems(inputs: &Inputs, count: usize, parts: &[&str]) {
    let message = load(inputs).expect_err("must be invalid").to_string();
    assert_eq!(message.lines().count(), count, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in\n{message}");
    }
    assert!(!message.contains("canary"), "{message}");
}

#[test]
fn three_variables_suffice_for_the_real_api() {
    let config = load(&inputs(&[])).unwrap();
    assert_eq!(config.proxy.upstream.url, "https://api.finicity.com");
    assert_eq!(config.token.token_path, None);
    assert_eq!(config.listen.proxy, ["127.0.0.1:3464".parse().unwrap(), "[::1]:3464".parse().unwrap()]);
    assert_eq!(config.shutdown, Shutdown { drain_delay: Duration::ZERO, drain_timeout: Duration::from_secs(25) });
    assert!(!format!("{config:?} {:?}", inputs(&[])).contains("canary"));
}

#[test]
fn p11_flags_override_the_environment_the_file_and_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let mut inputs = with_file(
        &dir.path().join("c.toml"),
        "[auth]\ntoken_wait = \"3s\"\nscope = \"file\"\ntoken_path = \"/file\"\n[limits]\nconnections = 7\n",
    );
    inputs.environment.set("FINICITY__AUTH__SCOPE", "environment");
    inputs.environment.set("FINICITY__AUTH__TOKEN_PATH", "/environment");
    inputs.environment.set("FINICITY__LISTEN__OPS", "127.0.0.1:1, [::1]:1");
    inputs.flags.push(("auth.token_path".to_owned(), "/flag".to_owned()));
    let config = load(&inputs).unwrap();
    assert_eq!(config.token.token_wait, Duration::from_secs(3));
    assert_eq!(config.server.connections, 7);
    assert_eq!(config.token.scope.as_deref(), Some("environment"));
    assert_eq!(config.token.token_path.as_deref(), Some("/flag"));
    assert_eq!(config.listen.ops.len(), 2);
    let shown = load_raw(&inputs).unwrap().to_toml();
    for line in [
        r#"token_path = "/flag" # --set"#,
        r#"scope = "environment" # FINICITY__AUTH__SCOPE"#,
        r#"default_lifetime = "2h" # the built-in default"#,
        "connections = 7 # ",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[test]
fn the_shown_configuration_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let special = "/a \"b\"\\u0041\u{b}\0\n\u{7f}\u{85}e\u{301}";
    let variables = [("FINICITY__AUTH__SCOPE", "a b"), ("FINICITY__AUTH__STATE_DIR", special)];
    let shown = load_raw(&inputs(&variables)).unwrap().to_toml();
    let config = load(&with_file(&dir.path().join("a\nb.toml"), &shown)).unwrap();
    assert_eq!(config.token.scope.as_deref(), Some("a b"));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new(special)));
    let reloaded = load_raw(&with_file(&dir.path().join("a\nb.toml"), &shown)).unwrap().to_toml();
    assert_eq!(reloaded.lines().count(), shown.lines().count(), "{reloaded}");
}

#[test]
fn p01_an_unknown_key_is_reported_with_origin_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let expected = format!("upstream.ulr (set by {}): unknown key; did you mean upstream.url?", path.display());
    check_problems(&with_file(&path, "[upstream]\nulr = \"canary\"\n"), 1, &[&expected]);
    check_problems(
        &inputs(&[("FINICITY__UPSTREAM__ULR", "canary")]),
        1,
        &["(set by FINICITY__UPSTREAM__ULR): unknown key"],
    );
    check_problems(&with_file(&path, "listen = 5\n"), 1, &["is a section, not a key"]);
    check_problems(
        &with_file(&path, "[credentials]\nclient_secret = \"canary\"\n"),
        1,
        &["set FINICITY_CLIENT_SECRET or"],
    );
}

#[test]
fn p01_a_quoted_name_is_a_single_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    for name in ["upstream[0]", "upstream[4611686018427387904]", "upstream[-9223372036854775808]", "upstream.url"] {
        let file = format!("[upstream]\nhttp2 = \"canary+1\"\n[auth]\nscope = \"\\u0007\"\n\n[\"{name}\"]\nx = 1\n");
        check_problems(&with_file(&path, &file), 3, &["upstream.http2", "auth.scope", name]);
    }
    check_problems(&with_file(&path, "\"listen.ops\" = \"canary\"\n"), 1, &["\"listen.ops\" (set by ", "unknown key"]);
    let escaped = r"a\nb\u{1b}[31m";
    check_problems(&with_file(&path, "\"a\\nb\\u001b[31m\" = 1\n"), 1, &[escaped]);
    check_problems(&inputs(&[("FINICITY__A\nB\u{1b}[31M", "1")]), 1, &[escaped]);
}

#[test]
fn p04_all_wrong_types_and_bounds_are_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = r#"
        listen = { allow_remote = "yes", proxy = [1] }
        limits = { connections = 0 }
        runtime = { worker_threads = 1000 }
        [upstream]
        connect_timeout = -1
        first_byte_timeout = "5x"
        idle_timeout = "0s"
        http2 = "canary+1"
        url = 7
        [auth]
        default_lifetime = "1000000000000s"
    "#;
    let parts = [
        "upstream.connect_timeout",
        "upstream.first_byte_timeout",
        "from 1s to 1h",
        "upstream.idle_timeout",
        r#"must be "off" or "auto""#,
        "upstream.url",
        "limits.connections",
        "must be true or false",
        "listen.proxy",
        "runtime.worker_threads",
        "auth.default_lifetime",
    ];
    check_problems(&with_file(&dir.path().join("c.toml"), file), 10, &parts);
}

#[test]
fn unfinished_heads_bytes_fits_one_head_of_maximum_size() {
    let with_limit = |bytes| inputs(&[("FINICITY__LIMITS__UNFINISHED_HEADS_BYTES", bytes)]);
    assert_eq!(load(&with_limit("40960")).unwrap().server.unfinished_heads_bytes, 40_960);
    check_problems(&with_limit("40959"), 1, &["limits.unfinished_heads_bytes", "from 40960 to"]);
    check_problems(&with_limit("1023"), 1, &["limits.unfinished_heads_bytes"]);
    assert_eq!(load(&inputs(&[])).unwrap().server.unfinished_heads_bytes, 8 * 1024 * 1024);
}

#[test]
fn loading_reads_no_credentials() {
    let missing = load(&Inputs::default()).unwrap();
    assert!(matches!(missing.credentials.source, SourceConfig::Environment(_)));
    let variables = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", "/nowhere/at/all")];
    let elsewhere = load(&inputs(&variables)).unwrap();
    assert!(matches!(elsewhere.credentials.source, SourceConfig::Directory(_)));
}

#[test]
fn a_variable_with_single_underscores_is_an_error() {
    check_problems(
        &inputs(&[("FINICITY_UPSTREAM_URL", "https://canary")]),
        1,
        &["two underscores: FINICITY__UPSTREAM__URL"],
    );
    check_problems(&inputs(&[("FINICITY_UPSTREAM__CA_FILE", "canary")]), 1, &["FINICITY__UPSTREAM__CA_FILE"]);
    load(&inputs(&[("FINICITY_PROXY_PORT", "tcp://10.0.0.1:3464"), ("FINICITY_PROXY_SERVICE_HOST", "10.0.0.1")]))
        .unwrap();
}

#[test]
fn an_invalid_file_is_reported_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let shown = path.display().to_string();
    check_problems(&with_file(&path, "[upstream]\nurl = canary\n"), 1, &[&shown, "is not valid TOML", "line 2"]);
    fs::write(&path, [0xff, 0xfe]).unwrap();
    check_problems(&Inputs { file: Some(path.clone()), ..inputs(&[]) }, 1, &["not UTF-8"]);
    fs::remove_file(&path).unwrap();
    check_problems(&Inputs { file: Some(path), ..inputs(&[]) }, 1, &["cannot read ", "(named by --config): "]);
    for path in ["/nonexistent", "canary/canary"] {
        check_problems(&inputs(&[("FINICITY_CONFIG", path)]), 1, &["cannot read ", "(named by FINICITY_CONFIG): "]);
    }
}

#[test]
fn d07_app_key_and_token_have_different_headers() {
    let variable = "FINICITY__AUTH__APP_KEY_HEADER";
    for name in ["finicity-APP-token", "Authorization"] {
        check_problems(
            &inputs(&[(variable, name)]),
            1,
            &["auth.app_key_header", "must differ from the token's header"],
        );
    }
    check_problems(&inputs(&[(variable, "Content-Length")]), 1, &["auth.app_key_header", "HTTP does not use itself"]);
    load(&inputs(&[(variable, "App-Key"), ("FINICITY__AUTH__TOKEN_HEADER", "App-Token")])).unwrap();
}

#[test]
fn an_injected_or_framing_header_cannot_be_forwarded() {
    let forward = |names: &str| inputs(&[("FINICITY__HEADERS__FORWARD", names)]);
    let config = load(&forward("traceparent, X-Api-Key")).unwrap();
    assert_eq!(config.proxy.forwarded_headers, ["traceparent", "x-api-key"]);
    assert!(load(&inputs(&[])).unwrap().proxy.forwarded_headers.is_empty());
    for (names, expected) in [
        ("traceparent, Finicity_App_Key", "name 2 is one that the proxy adds itself"),
        ("Authorization", "name 1 is one that the proxy adds itself"),
        ("Content-Length", "name 1 belongs to the caller's connection or frames a message"),
        ("X-HTTP-Method", "name 1 can change the method"),
        ("canary canary", "name 1 must be the full name of a header field"),
        ("canary+*:", "name 1 must be the full name of a header field"),
    ] {
        check_problems(&forward(names), 1, &["headers.forward (set by FINICITY__HEADERS__FORWARD): ", expected]);
    }
    check_problems(&forward("X-Forwarded-For, canary:, Host, TE"), 3, &["name 2", "name 3", "name 4"]);
    let own = [("FINICITY__AUTH__APP_KEY_HEADER", "X-Api-Key"), ("FINICITY__HEADERS__FORWARD", "x_api_key")];
    check_problems(&inputs(&own), 1, &["is one that the proxy adds itself"]);
}

#[test]
fn k05_remote_clients_need_allow_remote_and_admin_is_local() {
    check_problems(&inputs(&[("FINICITY__LISTEN__PROXY", "0.0.0.0:3464")]), 1, &["listen.allow_remote"]);
    load(&inputs(&[("FINICITY__LISTEN__PROXY", "0.0.0.0:3464"), ("FINICITY__LISTEN__ALLOW_REMOTE", "true")])).unwrap();
    load(&inputs(&[("FINICITY__LISTEN__OPS", "[::]:3465")])).unwrap();
    check_problems(&inputs(&[("FINICITY__LISTEN__ADMIN", "[::]:3466")]), 1, &["listen.admin", "loopback"]);
    check_problems(&inputs(&[("FINICITY__LISTEN__PROXY", "3464")]), 1, &["an IP address with a port"]);
}

#[test]
fn k07_client_sockets_have_a_mode_and_uids() {
    let variables = [
        ("FINICITY__LISTEN__PROXY", "unix:/run/p.sock, 127.0.0.1:0"),
        ("FINICITY__LISTEN__SOCKET_MODE", "0666"),
        ("FINICITY__LISTEN__SOCKET_UIDS", "7, 8"),
    ];
    let listen = load(&inputs(&variables)).unwrap().listen;
    assert_eq!(listen.proxy, ["unix:/run/p.sock".parse().unwrap(), "127.0.0.1:0".parse().unwrap()]);
    assert_eq!(listen.access, SocketAccess { mode: 0o666, uids: vec![7, 8] });
    let access = load(&inputs(&[])).unwrap().listen.access;
    assert_eq!(access, SocketAccess { mode: 0o660, uids: Vec::new() });

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    for (written, read) in [("7", vec![7]), ("[7, 8]", vec![7, 8]), ("\"7\"", vec![7])] {
        let config = load(&with_file(&path, &format!("[listen]\nsocket_uids = {written}\n"))).unwrap();
        assert_eq!(config.listen.access.uids, read);
    }
    check_problems(&with_file(&path, "[listen]\nsocket_uids = [\"root\"]\n"), 1, &["must be UIDs"]);
    check_problems(&inputs(&[("FINICITY__LISTEN__OPS", "unix:/run/p.sock")]), 1, &["listen.ops", "an IP address"]);
    check_problems(&inputs(&[("FINICITY__LISTEN__PROXY", "unix:p.sock")]), 1, &["listen.proxy", "unix:/run"]);
    check_problems(&inputs(&[("FINICITY__LISTEN__SOCKET_MODE", "rw")]), 1, &["listen.socket_mode", "octal"]);
}

#[test]
fn k04_the_required_header_is_a_name_or_name_and_value() {
    let required = |text| {
        let config = load(&inputs(&[("FINICITY__GUARD__REQUIRED_HEADER", text)])).unwrap();
        config.proxy.required_header.map(|header| (header.name.to_string(), header.value))
    };
    assert_eq!(required(""), None);
    assert_eq!(required("X-Caller"), Some(("x-caller".to_owned(), None)));
    assert_eq!(required("X-Caller: a b "), Some(("x-caller".to_owned(), Some("a b".parse().unwrap()))));
    for bad in ["a b", ": x", "Host", "Content-Length: 1", "X-Caller: \u{7}"] {
        check_problems(&inputs(&[("FINICITY__GUARD__REQUIRED_HEADER", bad)]), 1, &["guard.required_header"]);
    }
}

#[test]
fn an_unusable_ca_file_is_reported_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing.pem").display().to_string();
    check_problems(&inputs(&[("FINICITY__UPSTREAM__CA_FILE", &path)]), 1, &["upstream.ca_file", &path]);
    let key = "-----BEGIN PRIVATE KEY-----\ncanary/canary\n-----END PRIVATE KEY-----\n";
    for text in [key, "canary/canary+=", "/canary"] {
        check_problems(&inputs(&[("FINICITY__UPSTREAM__CA_FILE", text)]), 1, &["upstream.ca_file", "not shown"]);
    }
}

#[test]
fn missing_roots_and_malformed_pins_are_reported_with_keys() {
    check_problems(
        &inputs(&[("FINICITY__UPSTREAM__PUBLIC_ROOTS", "false")]),
        1,
        &["upstream.public_roots", "set upstream.ca_file"],
    );
    let pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let pins = |value: &str| inputs(&[("FINICITY__UPSTREAM__PINNED_KEYS", value)]);
    assert_eq!(load(&pins(&format!("{pin}, {pin}"))).unwrap().tls.pinned_keys.len(), 2);
    assert_eq!(load(&pins("")).unwrap().tls.pinned_keys.len(), 0);
    for wrong in ["canary+1", "sha256/AAAA", &format!("{pin},canary+1"), &pin.replace("sha256", "sha512")] {
        check_problems(&pins(wrong), 1, &["upstream.pinned_keys", "docs/tls.md"]);
    }
}

#[test]
fn a_secret_in_an_invalid_file_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    for text in [
        "canary",
        "canary = canary",
        "[auth]\nscope = \"canary",
        "[auth]\nscope = \"canary\"\nscope = \"canary\"\n",
        "FINICITY_CLIENT_SECRET=canary+/=",
        "{\"client_secret\": \"canary\"}",
        "client_secret: canary",
        "[auth]\nscope = \"\\canary\"",
        "[canary",
        "a = 99999999999999999999canary",
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
        "\u{feff}canary",
    ] {
        check_problems(&with_file(&path, text), 1, &["is not valid TOML, line ", ", column "]);
    }
}

#[test]
fn the_shown_configuration_redacts_misplaced_secrets() {
    let variables = [
        ("FINICITY__UPSTREAM__CA_FILE", "-----BEGIN PRIVATE KEY-----\ncanary"),
        ("FINICITY__UPSTREAM__EGRESS_PROXY", "http://user:canary@proxy.internal:3128"),
    ];
    let shown = load_raw(&inputs(&variables)).unwrap().to_toml();
    assert!(shown.matches("\"[redacted]\"").count() == 2 && !shown.contains("canary"), "{shown}");
}

#[test]
fn j03_no_key_turns_verification_off() {
    let keys = load_raw(&inputs(&[])).unwrap().to_toml();
    for word in ["insecure", "skip", "verify", "danger"] {
        assert!(!keys.lines().any(|line| line.split(" = ").next().unwrap_or_default().contains(word)), "{word}");
    }
}
