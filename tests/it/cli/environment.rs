//! Empty, malformed and meaningless values in the environment. Every command reports them without a panic.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use crate::support::{
    ADMIN_TOKEN, APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream},
};

const SECRET_VARIABLES: [&str; 8] = [
    "FINICITY_CLIENT_ID",
    "FINICITY_CLIENT_SECRET",
    "FINICITY_PARTNER_ID",
    "FINICITY_PARTNER_SECRET",
    "FINICITY_APP_KEY",
    "FINICITY_ADMIN_TOKEN",
    "FINICITY_EGRESS_PROXY_USERNAME",
    "FINICITY_EGRESS_PROXY_PASSWORD",
];

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];

/// Every command that exits by itself, and those that start only with valid variables.
const COMMANDS: [&[&str]; 13] = [
    &["--help"],
    &["--version"],
    &["serve", "--help"],
    &["swerve"],
    &["serve"],
    &["check"],
    &["config", "--redacted"],
    &["routes"],
    &["credentials", "test", "--set", "upstream.url=https://127.0.0.1:9"],
    &["health", "--url", "http://127.0.0.1:9"],
    &["wait", "--url", "http://127.0.0.1:9", "--timeout", "1ms"],
    &["shutdown", "--set", "listen.admin=127.0.0.1:9"],
    &["sandbox", "--help"],
];

fn run<N: AsRef<OsStr>, V: AsRef<OsStr>>(arguments: &[&str], variables: &[(N, V)]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start(command);
    (process.wait().code(), process.output())
}

/// Checks that no command panics with `variables`.
#[track_caller]
fn check_no_panic<N: AsRef<OsStr>, V: AsRef<OsStr>>(what: &str, variables: &[(N, V)]) {
    for arguments in COMMANDS {
        let (code, output) = run(arguments, variables);
        assert!(matches!(code, Some(0 | 1 | 2 | 78)), "{what} {arguments:?}: {code:?} {output}");
        assert!(!output.contains("panic"), "{what} {arguments:?}: {output}");
    }
}

#[test]
fn no_command_panics_on_an_empty_secret_variable() {
    for name in SECRET_VARIABLES {
        check_no_panic(name, &[(name, "")]);
    }
    check_no_panic("all", &SECRET_VARIABLES.map(|name| (name, "")));
    check_no_panic("files", &SECRET_VARIABLES.map(|name| (format!("{name}_FILE"), "")));
}

#[test]
fn no_command_panics_on_any_environment() {
    let bytes = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let huge = "x".repeat(100_000);
    let values = [
        ("a byte", bytes(b"a")),
        ("a line break", bytes(b"\n")),
        ("no UTF-8", bytes(b"\xff\xfe\xfd")),
        ("half a character", bytes("\u{1f511}".as_bytes().split_at(2).0)),
        ("huge", OsString::from(&huge)),
        ("brackets", bytes(b"{{[(\"'%{}${}%s\\")),
    ];
    for (what, value) in &values {
        let mut variables: Vec<(OsString, OsString)> = Vec::new();
        for name in SECRET_VARIABLES {
            variables.push((name.into(), value.clone()));
        }
        check_no_panic(what, &variables);
        for name in [
            "FINICITY_CONFIG",
            "FINICITY__LOG__LEVEL",
            "FINICITY__LISTEN__PROXY",
            "FINICITY__POLICY__ALLOW",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "NO_COLOR",
            "TMPDIR",
            "HOME",
        ] {
            variables = vec![(name.into(), value.clone())];
            let (code, output) = run(&["check"], &variables);
            assert!(matches!(code, Some(0 | 1 | 2 | 78)) && !output.contains("panic"), "{what} {name} {output}");
        }
    }
    for (what, name) in [
        ("an equals sign", bytes(b"=x")),
        ("no UTF-8", bytes(b"FINICITY_\xff")),
        ("no UTF-8 at all", bytes(b"\xff\xff")),
        ("a bare prefix", bytes(b"FINICITY_")),
        ("a bare prefix of keys", bytes(b"FINICITY__")),
        ("underscores", bytes(b"FINICITY________")),
        ("a character", bytes("FINICITY__\u{1f511}".as_bytes())),
        ("huge", OsString::from(format!("FINICITY__{huge}"))),
        ("a dot", bytes(b"FINICITY__LISTEN.PROXY")),
    ] {
        check_no_panic(what, &[(name, OsString::from("x"))]);
    }
}

#[test]
fn a_file_is_used_if_its_variable_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let files = SECRETS.map(|(name, value)| {
        let path = dir.path().join(name);
        fs::write(&path, format!("{value}\n")).unwrap();
        (format!("{name}_FILE"), path.display().to_string())
    });
    let empty = SECRET_VARIABLES.map(|name| (name.to_owned(), String::new()));
    let variables = [&empty[..], &files].concat();
    let (code, output) = run(&["check"], &variables);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("scheme oauth2"), "{output}");

    let (code, output) = run(&["check"], &empty);
    assert_eq!((code, output.lines().count()), (Some(78), 3), "{output}");
    assert!(output.lines().all(|line| line.contains(" is not set: ")), "{output}");
}

#[test]
fn a_store_not_compiled_in_is_one_error_line_and_78() {
    let stores = [
        ("aws", cfg!(feature = "aws"), "AWS__SECRET=finicity"),
        ("azure", cfg!(feature = "azure"), "AZURE__VAULT_URL=https://finicity.vault.azure.net AZURE__SECRET=finicity"),
        ("gcp", cfg!(feature = "gcp"), "GCP__SECRET=projects/my-project/secrets/finicity"),
        ("vault", cfg!(feature = "vault"), "VAULT__ADDRESS=https://localhost VAULT__PATH=finicity VAULT__ROLE=proxy"),
    ];
    for (store, _, keys) in stores.into_iter().filter(|(_, is_compiled_in, _)| !is_compiled_in) {
        let keys = format!("SOURCE={store} {keys}");
        let keys = keys.split(' ').map(|key| key.split_once('=').unwrap());
        let variables: Vec<(String, String)> =
            keys.map(|(key, value)| (format!("FINICITY__CREDENTIALS__{key}"), value.to_owned())).collect();
        for command in ["check", "serve"] {
            let (code, output) = run(&[command], &variables);
            assert_eq!((code, output.lines().count()), (Some(78), 1), "{output}");
            let expected = format!(
                "this build does not include {store:?}: use the release image, or build with `--features {store}`"
            );
            assert!(output.contains("credentials.source") && output.contains(&expected), "{output}");
        }
    }
}

/// Malformed values, each with the expected error.
const MALFORMED: [(&str, &str); 9] = [
    ("\"canary-value-0123\"", "in quotation marks"),
    ("'canary-value-0123'\n", "in quotation marks"),
    (" canary-value-0123", "begins or ends with white space"),
    ("canary-value-0123 \n", "begins or ends with white space"),
    ("\u{feff}canary-value-0123", "begins or ends with an invisible character"),
    ("canary-value-0123\u{200b}", "begins or ends with an invisible character"),
    ("canary-value-0123\u{a0}", "begins or ends with an invisible character"),
    ("canary-value\n0123", "has a line break in it"),
    ("canary-value-0123\r\n\r\n", "has a line break in it"),
];

#[test]
fn a_malformed_credential_fails_before_anything_is_sent() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("malformed");
    let file = path.display().to_string();
    for (name, _) in SECRETS {
        for (value, reason) in MALFORMED {
            fs::write(&path, value).unwrap();
            for in_file in [false, true] {
                let mut command = serve_command(&upstream, &[]);
                if in_file {
                    command.env_remove(name).env(format!("{name}_FILE"), &file);
                } else {
                    command.env(name, value);
                }
                let mut process = Process::start(command);
                let (code, output) = (process.wait().code(), process.output());
                let place = if in_file { format!("{name}_FILE ({file})") } else { name.to_owned() };
                assert_eq!(code, Some(78), "{output}");
                assert!(
                    output.starts_with(&format!("finicity-proxy: {place} ")) && output.contains(reason),
                    "{output}"
                );
                assert!(output.lines().count() == 1 && !output.contains("canary-value"), "{output}");
            }
        }
    }
    assert_eq!(upstream.received().len(), 0, "nothing was sent");
}

#[test]
fn check_reports_every_malformed_value_and_exits_78() {
    let malformed = SECRETS.map(|(name, _)| (name, "\"canary-value-0123\""));
    let (code, output) = run(&["check"], &[&malformed[..], &[("FINICITY_ADMIN_TOKEN", "short")]].concat());
    assert_eq!((code, output.lines().count()), (Some(78), 4), "{output}");
    for (name, _) in SECRETS {
        assert!(output.contains(&format!("finicity-proxy: {name} is in quotation marks")), "{output}");
    }
    assert!(output.contains("FINICITY_ADMIN_TOKEN has fewer than 16 characters"), "{output}");
    assert!(!output.contains("canary"), "{output}");
}

fn write_files(dir: &Path, files: &[(&str, &str)]) {
    for (name, value) in files {
        fs::write(dir.join(name), value).unwrap();
    }
}

#[test]
fn a_malformed_new_credential_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), &[("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("app_key", APP_KEY)]);
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut command = serve_command(&upstream, &[]);
    for (name, _) in SECRETS {
        command.env_remove(name);
    }
    command.env("FINICITY__CREDENTIALS__SOURCE", "dir").env("FINICITY__CREDENTIALS__DIR", dir.path());
    let proxy = Proxy::run(command);
    proxy.process.wait_for_log("token obtained");
    let mut failures = 0;
    for (value, reason) in [MALFORMED[0], MALFORMED[4], MALFORMED[7]] {
        failures += 1;
        write_files(dir.path(), &[("client_secret", value)]);
        let line = proxy.process.wait_for_line(|line| {
            line.contains("cannot load the credentials; keeping the current ones") && line.contains(reason)
        });
        assert!(line.contains("client_secret") && !line.contains("canary-value"), "{line}");
        proxy.wait_for_metric(r#"reloads_total{outcome="failure",subject="credentials"}"#, failures);
    }
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert_eq!(upstream.token_requests(), 1, "no new credential was sent");
}

#[test]
fn a_malformed_admin_token_fails_every_command() {
    for (commands, variables) in [(&["serve", "check"][..], &SECRETS[..]), (&["shutdown"], &[])] {
        for command in commands {
            for token in ["a", "fifteen-bytes-0", "\"canary-value-0123\"", "canary-value \u{e9} 0123"] {
                let variables = [variables, &[("FINICITY_ADMIN_TOKEN", token)]].concat();
                let (code, output) = run(&[command], &variables);
                assert_eq!(code, Some(78), "{output}");
                assert!(
                    output.starts_with("finicity-proxy: FINICITY_ADMIN_TOKEN ")
                        && (token == "a" || !output.contains(token)),
                    "{output}"
                );
                if token.len() < 16 {
                    assert!(output.contains("16 characters") && output.contains("openssl rand -hex 32"), "{output}");
                }
            }
        }
    }
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY_ADMIN_TOKEN", &format!("{ADMIN_TOKEN}\r\n"))]);
    let arguments = ["shutdown".to_owned(), format!("--set=listen.admin={}", proxy.admin)];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, output) = run(&arguments, &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)]);
    assert_eq!(code, Some(0), "{output}");
    assert!(proxy.process.wait().success());
}
