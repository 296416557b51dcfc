//! Configurations: whatever a file and the environment say, it is read or all that is wrong is told, and no secret with it.

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

/// The secrets that are set. None of them may come out anywhere.
const SECRET: &str = "canary-secret";

/// Text that stands in the value of a key, where somebody may have put a secret by mistake. No problem may quote it.
const MISPLACED: &str = "canary+value";

/// What separates the file from the variables, one a line, that follow it.
const SEPARATOR: &str = "\n---\n";

/// The file is read from a folder of this process's own.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder can be made"));

/// What must hold for the file and the variables in `input`.
pub fn config(input: &[u8]) {
    let Ok(input) = str::from_utf8(input) else { return };
    let (file, variables) = input.split_once(SEPARATOR).unwrap_or((input, ""));
    let variables: Vec<(&str, &str)> =
        variables.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.is_empty()).collect();
    let table = file.parse::<Table>();
    let keys = table.as_ref().map(leaves).unwrap_or_default();
    let paths: Vec<&str> = paths(&keys, &variables).collect();
    // A path may be opened, and reading a device may never end. The secrets are not the input's to say.
    if paths.iter().any(|path| ["dev", "proc", "sys"].iter().any(|word| path.contains(word))) || input.contains(SECRET)
    {
        return;
    }
    let inputs = inputs(file, &variables);

    let loaded = load(&inputs);
    let effective = config::load_raw(&inputs);
    let told = loaded.as_ref().err();
    for shown in [
        format!("{inputs:?} {loaded:?} {effective:?}"),
        told.map(ToString::to_string).unwrap_or_default(),
        effective.as_ref().map(config::Raw::to_toml).unwrap_or_default(),
    ] {
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
    if let Some(problems) = told {
        check_problems(problems);
        let names = keys.iter().map(|(key, _)| key.as_str()).chain(variables.iter().map(|(name, _)| *name));
        // Names and paths are told.
        if !names.chain(paths).any(|name| name.to_lowercase().contains(MISPLACED)) {
            assert!(!problems.to_string().contains(MISPLACED), "a value is told: {problems}");
        }
    }
    let unknown = keys.iter().filter(|(key, _)| !KNOWN.contains(key)).count();
    let problems = effective.as_ref().err().map_or(0, |problems| problems.0.len());
    assert!(problems >= unknown, "{unknown} unknown keys, {problems} problems");
    if let Ok(loaded) = &loaded {
        credentials_have_their_headers(&loaded.config.token);
    }
    one_more_problem_hides_none(&inputs, told);
    if let (Ok(_), Ok(raw)) = (&loaded, &effective) {
        what_is_shown_can_be_loaded(&raw.to_toml());
    }
}

/// The configuration with the credentials, which are on this machine: reading them waits for nothing.
fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    match pin!(app::load(inputs)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(loaded) => loaded,
        Poll::Pending => panic!("a source on this machine waits"),
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

/// Every key of a file that is no section, with its value.
fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            // A quoted name with a dot in it is one name.
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

/// Values that name files. Whoever puts a secret into one of these has it shown as the path that it is.
fn paths<'a>(keys: &'a [(String, Value)], variables: &[(&'a str, &'a str)]) -> impl Iterator<Item = &'a str> {
    let names = |key: &str| ["ca_file", "dir", "socket"].iter().any(|end| key.to_lowercase().ends_with(end));
    let of_keys = keys.iter().filter(move |(key, _)| names(key)).filter_map(|(_, value)| value.as_str());
    let of_variables =
        variables.iter().filter(move |(name, _)| names(name) || name.ends_with("_FILE") || *name == "FINICITY_CONFIG");
    of_keys.chain(of_variables.map(|(_, value)| *value).collect::<Vec<_>>())
}

fn check_problems(problems: &Problems) {
    assert!(!problems.0.is_empty(), "refused for nothing");
    let shown = problems.to_string();
    assert_eq!(shown.lines().count(), problems.0.len(), "one line each: {shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "what a terminal would obey: {shown:?}");
}

/// The keys that there are.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let defaults = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/default.toml"));
    let table = defaults.expect("the defaults are there").parse::<Table>().expect("the defaults are TOML");
    leaves(&table).into_iter().map(|(key, _)| key).collect()
});

/// App Key and token are told in two headers, which mean nothing else.
fn credentials_have_their_headers(config: &token::Config) {
    let (key, token) = (&config.app_key_header, &config.token_header);
    assert!(key != token && key != header::AUTHORIZATION, "{key} is for the key and the token");
    for name in ["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"] {
        assert!(key != name && token != name, "{name} is HTTP's own");
    }
}

/// All problems of the configuration are reported at once: another one is added to them and replaces none. What this machine lacks is
/// only looked for once the configuration is valid.
fn one_more_problem_hides_none(inputs: &Inputs, told: Option<&Problems>) {
    if told.is_some() && config::load(inputs).is_ok() {
        return;
    }
    let mut inputs = inputs.clone();
    inputs.flags.push(("no.such.key".to_owned(), String::new()));
    let mut more = load(&inputs).expect_err("an unknown key is refused").0;
    let added = more.iter().position(|problem| problem.to_string().starts_with("no.such.key (set by --set)"));
    more.remove(added.expect("the unknown key is told"));
    assert_eq!(Some(&Problems(more)).filter(|problems| !problems.0.is_empty()), told);
}

/// `config --redacted` shows a file that says the same.
fn what_is_shown_can_be_loaded(shown: &str) {
    let inputs = inputs(shown, &[]);
    let again = match config::load_raw(&inputs) {
        Ok(raw) => raw.to_toml(),
        Err(problems) => panic!("what is shown cannot be loaded: {problems}\n{shown}"),
    };
    let values = |text: &str| -> Table { text.parse().expect("what is shown is TOML") };
    assert_eq!(values(&again), values(shown));
}
