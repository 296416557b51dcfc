//! Credentials from environment variables, or from the files that `…_FILE` variables name.

use std::{collections::BTreeMap, fs, io};

use super::{AppKey, Credentials};
use crate::secret::Secret;

/// Larger than any credential; a file above this is not one.
const MAX_FILE_BYTES: u64 = 64 * 1024;

const CLIENT_ID: &str = "FINICITY_CLIENT_ID";
const CLIENT_SECRET: &str = "FINICITY_CLIENT_SECRET";
const APP_KEY: &str = "FINICITY_APP_KEY";

/// The variables that hold credentials. Each may be given as `NAME` (the value) or as `NAME_FILE` (a path).
pub const VARIABLES: [&str; 3] = [CLIENT_ID, CLIENT_SECRET, APP_KEY];

/// Why one credential cannot be used. Never holds the value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Neither the variable nor its `_FILE` form is set.
    #[error("{0} is not set: set it, or set {0}_FILE to a file that holds it")]
    Missing(&'static str),
    /// Both forms are set, so it is unclear which is meant.
    #[error("{0} and {0}_FILE are both set: unset one of them")]
    Twice(&'static str),
    /// The `_FILE` form holds something that is no path with a folder; the secret itself, perhaps, so it is not printed.
    #[error("{0}_FILE does not hold a path: it must name a file, with its folder, that holds the value")]
    NotAPath(&'static str),
    /// The value has nothing but white space.
    #[error("{0} is empty: put the value from the Finicity developer portal there")]
    Empty(String),
    /// The value is the kind of text that templates put where a value belongs.
    #[error("{0} holds a placeholder, not a credential: put the value from the Finicity developer portal there")]
    Placeholder(String),
    /// The value cannot be part of an HTTP header.
    #[error(
        "{0} has a space, a line break or a character outside ASCII: copy the App Key again, without anything around it"
    )]
    NotAHeaderValue(String),
    /// The value is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(String),
    /// The file cannot be read.
    #[error("{name}_FILE names {path}, which cannot be read: {source}")]
    Unreadable {
        /// The variable, without `_FILE`.
        name: &'static str,
        /// The path that it holds.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is far larger than a credential.
    #[error("{name}_FILE names {path}, which is larger than {MAX_FILE_BYTES} bytes: that is not a credential")]
    TooLarge {
        /// The variable, without `_FILE`.
        name: &'static str,
        /// The path that it holds.
        path: String,
    },
}

/// Reads the credentials from `env`, a snapshot of the environment.
///
/// A trailing line break is dropped, since editors and `echo` add one; nothing else of a value is changed.
///
/// # Errors
///
/// Every problem of every variable at once.
pub fn from_env(env: &BTreeMap<String, String>) -> Result<Credentials, Vec<Problem>> {
    let client_id = read(env, CLIENT_ID);
    let client_secret = read(env, CLIENT_SECRET);
    let app_key =
        read(env, APP_KEY).and_then(|(value, origin)| AppKey::new(value).ok_or(Problem::NotAHeaderValue(origin)));

    match (client_id, client_secret, app_key) {
        (Ok((client_id, _)), Ok((client_secret, _)), Ok(app_key)) => {
            Ok(Credentials { client_id, client_secret, app_key })
        }
        (client_id, client_secret, app_key) => {
            Err([client_id.err(), client_secret.err(), app_key.err()].into_iter().flatten().collect())
        }
    }
}

/// One value and the name of the variable that it came from.
fn read(env: &BTreeMap<String, String>, name: &'static str) -> Result<(Secret<String>, String), Problem> {
    let file_variable = format!("{name}_FILE");
    let (value, origin) = match (env.get(name), env.get(&file_variable)) {
        (Some(_), Some(_)) => return Err(Problem::Twice(name)),
        (None, None) => return Err(Problem::Missing(name)),
        (Some(value), None) => (Secret::new(value.clone()), name.to_owned()),
        (None, Some(path)) if !path.contains('/') => return Err(Problem::NotAPath(name)),
        (None, Some(path)) => (read_file(name, path)?, format!("{file_variable} ({path})")),
    };
    let value = Secret::from(value.expose().trim_end_matches(['\r', '\n']));
    if value.expose().trim().is_empty() {
        return Err(Problem::Empty(origin));
    }
    if is_placeholder(value.expose()) {
        return Err(Problem::Placeholder(origin));
    }
    Ok((value, origin))
}

fn read_file(name: &'static str, path: &str) -> Result<Secret<String>, Problem> {
    let unreadable = |source| Problem::Unreadable { name, path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Problem::TooLarge { name, path: path.to_owned() });
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| Problem::NotUtf8(format!("{name}_FILE ({path})")))
}

/// Whether `value` is what a template or a tutorial leaves where the real value belongs.
///
/// A real value that looks like this would be refused, so only shapes that no issued credential has are listed.
fn is_placeholder(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    let wrapped = [("<", ">"), ("${", "}"), ("$(", ")"), ("{{", "}}"), ("[", "]")]
        .iter()
        .any(|(open, close)| value.starts_with(open) && value.ends_with(close));
    let letters: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    let told = ["changeme", "replaceme", "placeholder", "todo", "tbd", "fixme", "none", "null", "undefined"]
        .contains(&letters.as_str());
    let addressed = letters.starts_with("your")
        && ["id", "secret", "key"].iter().any(|end| letters.ends_with(end) || letters.ends_with(&format!("{end}here")));
    let crossed_out =
        !letters.is_empty() && letters.bytes().all(|b| b == b'x') || value.chars().all(|c| "*.-_".contains(c));
    wrapped || told || addressed || crossed_out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 3] = [(CLIENT_ID, "id-1"), (CLIENT_SECRET, "s3cret!@#$%&*_-+"), (APP_KEY, "0123abcd")];

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check_problem(name: &str, value: &str, expected: &str) {
        let mut env = env(&GOOD);
        env.insert(name.to_owned(), value.to_owned());
        let problems = from_env(&env).expect_err("the value must be refused");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains(expected), "{told:?} should say {expected:?}");
        assert!(value.trim().len() < 4 || !told[0].contains(value.trim()), "the value is in {told:?}");
    }

    #[test]
    fn good_values_are_taken_as_they_are() {
        let credentials = from_env(&env(&GOOD)).unwrap();
        assert_eq!(credentials.client_id.expose(), "id-1");
        assert_eq!(credentials.client_secret.expose(), "s3cret!@#$%&*_-+");
        assert_eq!(credentials.app_key.header().as_bytes(), b"0123abcd");
        assert!(credentials.app_key.header().is_sensitive());
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }

    #[test]
    fn every_missing_variable_is_told_at_once() {
        let told: Vec<String> = from_env(&env(&[])).unwrap_err().iter().map(ToString::to_string).collect();
        for (line, name) in told.iter().zip(VARIABLES) {
            assert!(line.contains(name) && line.contains("_FILE"), "{line}");
        }
        assert_eq!(told.len(), VARIABLES.len());
    }

    #[test]
    fn p02_empty_and_placeholder_values_are_refused_without_being_printed() {
        for empty in ["", " ", "\n", " \r\n"] {
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
    fn an_app_key_that_is_no_header_value_is_refused() {
        for bad in ["abc def", " abcdef", "abc\r\nX: y", "sch\u{fc}ssel"] {
            check_problem(APP_KEY, bad, "App Key");
        }
    }

    #[test]
    fn p03_a_secret_keeps_its_special_characters() {
        for secret in ["\"quoted\\\" \u{e9}", " leading and trailing ", "a\nb"] {
            let mut env = env(&GOOD);
            env.insert(CLIENT_SECRET.to_owned(), secret.to_owned());
            assert_eq!(from_env(&env).unwrap().client_secret.expose(), secret);
        }
    }

    #[test]
    fn a_file_is_read_and_its_line_break_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "from-file\r\n").unwrap();
        let mut env = env(&[GOOD[0], GOOD[2]]);
        env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), path.display().to_string());
        assert_eq!(from_env(&env).unwrap().client_secret.expose(), "from-file");

        env.insert(CLIENT_SECRET.to_owned(), "twice".to_owned());
        assert!(from_env(&env).unwrap_err()[0].to_string().contains("both set"));
    }

    #[test]
    fn a_secret_in_place_of_a_path_is_not_printed() {
        let mut env = env(&[GOOD[0], GOOD[2]]);
        env.insert("FINICITY_CLIENT_SECRET_FILE".to_owned(), "canary-secret".to_owned());
        let told = from_env(&env).unwrap_err()[0].to_string();
        assert!(told.contains("does not hold a path") && !told.contains("canary"), "{told}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_by_its_path() {
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
            let told = from_env(&env).unwrap_err()[0].to_string();
            assert!(told.contains(expected) && told.contains(&path.display().to_string()), "{told}");
        }
    }
}
