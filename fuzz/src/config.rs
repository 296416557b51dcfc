//! Configurations: a file and the environment are loaded, or all problems are reported, without any secret.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use finicity_proxy::{
    app::{self, Loaded},
    config::{self, Inputs, Problems},
    token,
};
use http::header;
use tempfile::TempDir;
use toml::{Table, Value};

/// The value of all secrets. It must never be shown.
const SECRET: &str = "canary-secret";

/// Text in the value of a key, as if a user had put a secret there by mistake. No problem may quote it.
const MISPLACED: &str = "canary+value";

/// Separates the file from the variables that follow it, one per line.
const SEPARATOR: &str = "\n---\n";

/// The folder of the configuration file, used by this process only.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("the folder can be created"));

/// Checks the file and the variables in `input`.
pub fn config(input: &[u8]) {
    let Ok(input) = str::from_utf8(input) else { return };
    let (file, variables) = input.split_once(SEPARATOR).unwrap_or((input, ""));
    let variables: Vec<(&str, &str)> =
        variables.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.is_empty()).collect();
    let table = file.parse::<Table>();
    let keys = table.as_ref().map(leaves).unwrap_or_default();
    let paths: Vec<&str> = paths(&keys, &variables).collect();
    // Paths are opened, and reading a device may never end. The input must not contain the secrets.
    if paths.iter().any(|path| ["dev", "proc", "sys"].iter().any(|word| path.contains(word))) || input.contains(SECRET)
    {
        return;
    }
    let inputs = inputs(file, &variables);

    let loaded = load(&inputs);
    let effective = config::load_raw(&inputs);
    let reported = loaded.as_ref().err();
    for shown in [
        format!("{inputs:?} {loaded:?} {effective:?}"),
        reported.map(ToString::to_string).unwrap_or_default(),
        effective.as_ref().map(config::Raw::to_toml).unwrap_or_default(),
    ] {
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
    if let Some(problems) = reported {
        check_problems(problems);
        let names = keys.iter().map(|(key, _)| key.as_str()).chain(variables.iter().map(|(name, _)| *name));
        // Names and paths may be quoted.
        if !names.chain(paths).any(|name| name.to_lowercase().contains(MISPLACED)) {
            assert!(!problems.to_string().contains(MISPLACED), "a value is quoted: {problems}");
        }
    }
    let unknown = keys.iter().filter(|(key, _)| !KNOWN.contains(key)).count();
    let problems = effective.as_ref().err().map_or(0, |problems| problems.0.len());
    assert!(problems >= unknown, "{unknown} unknown keys, {problems} problems");
    if let Ok(loaded) = &loaded {
        credentials_have_their_headers(&loaded.config.token);
    }
    one_more_problem_hides_none(&inputs, reported);
    if let (Ok(_), Ok(raw)) = (&loaded, &effective) {
        redacted_output_can_be_loaded(&raw.to_toml());
    }
}

/// Loads the configuration with local credentials, which takes no waiting.
fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    match pin!(app::load(inputs)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(loaded) => loaded,
        Poll::Pending => panic!("a local source waits"),
    }
}

fn inputs(file: &str, variables: &[(&str, &str)]) -> Inputs {
    let path = FOLDER.path().join("config.toml");
    fs::write(&path, file).expect("the file can be written");
    let secrets = ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"].map(|name| (name, SECRET));
    Inputs {
        file: Some(path),
        environment: secrets.into_iter().chain(variables.iter().copied()).collect(),
        flags: Vec::new(),
    }
}

/// Every key of a file except sections, with its value.
fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            // A quoted name that contains a dot is a single name.
            let name = if name.contains('.') { format!("{name:?}") } else { name.clone() };
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(table) => open.push((key, table)),
                value => found.push((key, value.clone())),
            }
        }
    }
    found
}

/// Values that name files. A secret in one of these is shown as a path.
fn paths<'a>(keys: &'a [(String, Value)], variables: &[(&'a str, &'a str)]) -> impl Iterator<Item = &'a str> {
    let names = |key: &str| ["ca_file", "dir", "socket"].iter().any(|end| key.to_lowercase().ends_with(end));
    let of_keys = keys.iter().filter(move |(key, _)| names(key)).filter_map(|(_, value)| value.as_str());
    let of_variables =
        variables.iter().filter(move |(name, _)| names(name) || name.ends_with("_FILE") || *name == "FINICITY_CONFIG");
    of_keys.chain(of_variables.map(|(_, value)| *value).collect::<Vec<_>>())
}

fn check_problems(problems: &Problems) {
    assert!(!problems.0.is_empty(), "rejected without a problem");
    let shown = problems.to_string();
    assert_eq!(shown.lines().count(), problems.0.len(), "one line each: {shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "control characters: {shown:?}");
}

/// All known keys.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let defaults = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/default.toml"));
    let table = defaults.expect("the defaults can be read").parse::<Table>().expect("the defaults are TOML");
    leaves(&table).into_iter().map(|(key, _)| key).collect()
});

/// App Key and token have two different headers, used for nothing else.
fn credentials_have_their_headers(config: &token::Config) {
    let (key, token) = (&config.app_key_header, &config.token_header);
    assert!(key != token && key != header::AUTHORIZATION, "{key} is used for both the key and the token");
    for name in ["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"] {
        assert!(key != name && token != name, "{name} is HTTP's own");
    }
}

/// All problems of the configuration are reported together: a further problem is added to them and hides none. Checks that depend on this
/// machine run only once the configuration is valid.
fn one_more_problem_hides_none(inputs: &Inputs, reported: Option<&Problems>) {
    if reported.is_some() && config::load(inputs).is_ok() {
        return;
    }
    let mut inputs = inputs.clone();
    inputs.flags.push(("no.such.key".to_owned(), String::new()));
    let mut more = load(&inputs).expect_err("an unknown key is rejected").0;
    let added = more.iter().position(|problem| problem.to_string().starts_with("no.such.key (set by --set)"));
    more.remove(added.expect("the unknown key is reported"));
    assert_eq!(Some(&Problems(more)).filter(|problems| !problems.0.is_empty()), reported);
}

/// `config --redacted` shows a file with the same settings.
fn redacted_output_can_be_loaded(shown: &str) {
    let inputs = inputs(shown, &[]);
    let reloaded = match config::load_raw(&inputs) {
        Ok(raw) => raw.to_toml(),
        Err(problems) => panic!("the redacted output cannot be loaded: {problems}\n{shown}"),
    };
    let values = |text: &str| -> Table { text.parse().expect("the redacted output is TOML") };
    assert_eq!(values(&reloaded), values(shown));
}
