use std::{collections::BTreeMap, fs};

use futures_util::FutureExt as _;

use super::*;
use crate::error_chain;

const CLIENT_ID: &str = "FINICITY_CLIENT_ID";
const CLIENT_SECRET: &str = "FINICITY_CLIENT_SECRET";
const APP_KEY: &str = "FINICITY_APP_KEY";

const GOOD: [(&str, &str); 3] = [(CLIENT_ID, "id-1"), (CLIENT_SECRET, "s3cret!@#$%&*_-+"), (APP_KEY, "0123abcd")];

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn check_problem(name: &str, value: &str, expected: &str) {
    let mut env = env(&GOOD);
    env.insert(name.to_owned(), value.to_owned());
    let problems = from_env(&env).expect_err("the value must be an error");
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(messages.len() == 1 && messages[0].contains(expected), "{messages:?} should say {expected:?}");
    assert!(value.trim().len() < 4 || !messages[0].contains(value.trim()), "the value is in {messages:?}");
}

#[test]
fn good_values_are_kept_unchanged() {
    let credentials = from_env(&env(&GOOD)).unwrap();
    assert_eq!(credentials.id.expose(), "id-1");
    assert_eq!(credentials.secret.expose(), "s3cret!@#$%&*_-+");
    assert_eq!(credentials.app_key.header().as_bytes(), b"0123abcd");
    assert!(credentials.app_key.header().is_sensitive());
    assert!(!format!("{credentials:?}").contains("s3cret"));
}

#[test]
fn all_missing_variables_are_reported() {
    let messages: Vec<String> = from_env(&env(&[])).unwrap_err().iter().map(ToString::to_string).collect();
    for (line, name) in messages.iter().zip([CLIENT_ID, CLIENT_SECRET, APP_KEY]) {
        assert!(line.contains(name) && line.contains("_FILE"), "{line}");
    }
    assert_eq!(messages.len(), 3);
}

#[test]
fn p02_empty_and_placeholder_values_fail_unprinted() {
    for empty in [" ", "\n", " \r\n", "\u{feff}"] {
        check_problem(CLIENT_SECRET, empty, "is empty");
    }
    for placeholder in [
        "changeme",
        "CHANGE_ME",
        "<client secret>",
        "${SECRET}",
        "{{ .secret }}",
        "your-client-secret",
        "YOUR_APP_KEY_HERE",
        "xxxx",
        "****",
    ] {
        check_problem(CLIENT_SECRET, placeholder, "placeholder");
    }
}

#[test]
fn an_error_names_the_variable_of_a_malformed_value() {
    for (bad, expected) in [
        ("\"abcdef\"", "FINICITY_APP_KEY is in quotation marks"),
        (" abcdef", "FINICITY_APP_KEY begins or ends with white space"),
        ("\u{feff}abcdef", "FINICITY_APP_KEY begins or ends with an invisible character"),
        ("abc\r\nX: y", "FINICITY_APP_KEY has a line break"),
        ("sch\u{fc}ssel", "FINICITY_APP_KEY has a character outside printable ASCII"),
    ] {
        check_problem(APP_KEY, bad, expected);
    }
    check_problem(CLIENT_ID, "ab\u{a0}cd", "FINICITY_CLIENT_ID has a character outside printable ASCII");
    check_problem(CLIENT_SECRET, "'abcdef'", "FINICITY_CLIENT_SECRET is in quotation marks");
}

#[test]
fn inner_spaces_and_quotes_of_an_app_key_are_sent() {
    let mut env = env(&GOOD);
    env.insert(APP_KEY.to_owned(), "my \"app\" key\n".to_owned());
    assert_eq!(from_env(&env).unwrap().app_key.header(), "my \"app\" key");
    for illegal in ["", " a", "a ", "a\u{e9}", "a\r\nb", "\ta"] {
        assert!(AppKey::new(illegal.into()).is_none(), "{illegal:?}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "from-file").unwrap();
    let file = path.display().to_string();
    let empty = [(CLIENT_SECRET, ""), ("FINICITY_CLIENT_SECRET_FILE", &*file), ("FINICITY_PARTNER_ID", "")];
    let env = env(&[&[GOOD[0], GOOD[2]], &empty[..]].concat());
    let credentials = from_env(&env).unwrap();
    assert_eq!((credentials.secret.expose().as_str(), credentials.scheme), ("from-file", Scheme::OAuth2));
    check_problem(CLIENT_SECRET, "", "FINICITY_CLIENT_SECRET is not set");
    assert_eq!(egress(&[(EGRESS_USERNAME, ""), (EGRESS_PASSWORD, "")]), Ok(None));
    let token = BTreeMap::from([("FINICITY_ADMIN_TOKEN".to_owned(), Secret::from(""))]);
    assert!(admin_token(&token).unwrap().is_none());
}

#[test]
fn p03_a_secret_keeps_its_special_characters() {
    for secret in ["\"quoted\\\" \u{e9}", "in ner", "\u{5bc6}\u{7801}"] {
        let mut env = env(&GOOD);
        env.insert(CLIENT_SECRET.to_owned(), secret.to_owned());
        assert_eq!(from_env(&env).unwrap().secret.expose(), secret);
    }
}

#[test]
fn a_file_is_read_without_its_trailing_line_break() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "from-file\r\n").unwrap();
    let mut env = env(&[GOOD[0], GOOD[2]]);
    env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), path.display().to_string());
    assert_eq!(from_env(&env).unwrap().secret.expose(), "from-file");

    env.insert(CLIENT_SECRET.to_owned(), "twice".to_owned());
    assert!(from_env(&env).unwrap_err()[0].to_string().contains("both set"));
}

#[test]
fn a_secret_in_place_of_a_path_is_not_printed() {
    let mut env = env(&[GOOD[0], GOOD[2]]);
    env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), "canary-secret".to_owned());
    let message = error_chain::one_line(&from_env(&env).unwrap_err()[0]);
    assert!(message.contains("_FILE must be a path") && !message.contains("canary"), "{message}");
    // Base64 has slashes.
    for secret in ["canary/secret+9b=", "/canary-secret", "./canary-secret"] {
        env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), secret.to_owned());
        let problems = from_env(&env).unwrap_err();
        let text = format!("{} {problems:?}", error_chain::one_line(&problems[0]));
        assert!(
            text.contains("FINICITY_CLIENT_SECRET_FILE names a path (not shown") && !text.contains("canary"),
            "{text}"
        );
    }
}

#[test]
fn an_error_names_the_path_of_an_unusable_file() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    fs::write(&large, vec![b'a'; 70_000]).unwrap();
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    for (path, expected) in [
        (dir.path().join("gone"), "cannot be read"),
        (dir.path().to_owned(), "cannot be read"),
        (large, "larger"),
        (binary, "UTF-8"),
    ] {
        let mut env = env(&[GOOD[0], GOOD[2]]);
        env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), path.display().to_string());
        let message = error_chain::one_line(&from_env(&env).unwrap_err()[0]);
        assert!(message.contains(expected) && message.contains(&path.display().to_string()), "{message}");
    }
}

fn from_env(variables: &BTreeMap<String, String>) -> Result<Credentials, Vec<Problem>> {
    load_now(&source(variables), None)
}

fn source(variables: &BTreeMap<String, String>) -> SourceConfig {
    let secrets = variables.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone())));
    SourceConfig::environment(&secrets.collect())
}

/// Loads from a source that completes immediately.
fn load_now(source: &SourceConfig, scheme: Option<Scheme>) -> Result<Credentials, Vec<Problem>> {
    load(source.open().as_mut(), scheme).now_or_never().expect("the source completes immediately")
}

#[test]
fn the_scheme_is_the_one_that_has_values() {
    let partner = env(&[("FINICITY_PARTNER_ID", "p"), ("FINICITY_PARTNER_SECRET", "s"), GOOD[2]]);
    assert_eq!(from_env(&env(&GOOD)).unwrap().scheme, Scheme::OAuth2);
    assert_eq!(from_env(&partner).unwrap().scheme, Scheme::Partner);
    let half = env(&[("FINICITY_PARTNER_ID", "p"), GOOD[2]]);
    assert!(from_env(&half).unwrap_err()[0].to_string().starts_with("FINICITY_PARTNER_SECRET is not set"));

    let both: BTreeMap<_, _> = partner.into_iter().chain(env(&GOOD)).collect();
    assert!(from_env(&both).unwrap_err()[0].to_string().contains("set auth.scheme"));
    for scheme in [Scheme::OAuth2, Scheme::Partner] {
        assert_eq!(load_now(&source(&both), Some(scheme)).unwrap().scheme, scheme);
    }
}

#[test]
fn a_directory_is_read_again_for_each_load() {
    let dir = tempfile::tempdir().unwrap();
    let source = SourceConfig::Directory(dir.path().to_owned());
    let messages: Vec<String> = load_now(&source, None).unwrap_err().iter().map(ToString::to_string).collect();
    assert!(messages.len() == 3 && messages[0].contains("client_id is not set: add this file"), "{messages:?}");
    for (name, value) in [("partner_id", "p\n"), ("partner_secret", "s\n"), ("app_key", "k\n")] {
        fs::write(dir.path().join(name), value).unwrap();
    }
    assert_eq!(load_now(&source, None).unwrap().secret.expose(), "s");
    fs::write(dir.path().join("partner_secret"), "s2").unwrap();
    assert_eq!(load_now(&source, None).unwrap().secret.expose(), "s2");
    let gone = SourceConfig::Directory(dir.path().join("gone"));
    let message = error_chain::one_line(&load_now(&gone, None).unwrap_err()[0]);
    assert!(
        message.starts_with("credentials.dir: ") && message.matches("mount the Secret there").count() == 1,
        "{message}"
    );
}

fn egress(variables: &[(&str, &str)]) -> Result<Option<HeaderValue>, String> {
    let variables = env(variables).into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
    egress_authorization(&variables).map_err(|problem| problem.to_string())
}

#[test]
fn egress_credentials_are_set_together() {
    assert_eq!(egress(&[]), Ok(None));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    fs::write(&path, "open:sesame\n").unwrap();
    let file = path.display().to_string();
    let username = (EGRESS_USERNAME, "Aladdin");
    let value = egress(&[username, ("FINICITY_EGRESS_PROXY_PASSWORD_FILE", &file)]).unwrap().unwrap();
    assert!(value.is_sensitive());
    assert_eq!(value, "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==");
    for (variables, expected) in [
        (&[username][..], EGRESS_PASSWORD),
        (&[(EGRESS_PASSWORD, "canary")], EGRESS_USERNAME),
        (&[(EGRESS_USERNAME, "a:canary"), (EGRESS_PASSWORD, "canary")], "colon"),
        (&[username, (EGRESS_PASSWORD, "canary\ncanary")], "FINICITY_EGRESS_PROXY_PASSWORD has a line break"),
    ] {
        let problem = egress(variables).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("canary"), "{problem}");
    }
}
