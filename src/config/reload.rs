//! Reloads the configuration at runtime. `log.level` takes effect; other changed keys are reported as needing a restart.

use super::{Inputs, Problems, Raw, resolve, sources};
use crate::telemetry::Levels;

/// The key that takes effect without a restart.
const LEVEL_KEY: &str = "log.level";

/// The sources of the configuration, without secrets, and the values at startup.
#[derive(Clone, Debug, Default)]
pub struct Reloader {
    inputs: Inputs,
    running: Raw,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The log levels.
    pub levels: Levels,
    /// Other keys that differ from their value at startup. They need a restart.
    pub need_restart: Vec<String>,
}

impl Reloader {
    /// `running` is the current content of `inputs`.
    pub(super) fn new(inputs: &Inputs, running: &Raw) -> Self {
        let inputs = Inputs { environment: inputs.environment.config_keys_only(), ..inputs.clone() };
        Self { inputs, running: running.clone() }
    }

    /// Reads all sources again. Only the file can have changed.
    ///
    /// # Errors
    ///
    /// All problems with the keys. Credentials are not checked.
    pub fn reload(&self) -> Result<Changes, Problems> {
        let mut problems = Vec::new();
        let raw = sources::merge(&self.inputs, &mut problems);
        match resolve::levels(&raw, &mut problems) {
            Some(levels) if problems.is_empty() => {
                Ok(Changes { levels, need_restart: self.running.changed_in(&raw, LEVEL_KEY) })
            }
            // Without values, because these problems are logged, and logs are stored and forwarded.
            _ => Err(Problems(problems.into_iter().map(|problem| problem.with_found(None)).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Environment, load};

    const CREDENTIALS: [(&str, &str); 3] = [
        ("FINICITY_CLIENT_ID", "the-client"),
        ("FINICITY_CLIENT_SECRET", "the-secret-of-it"),
        ("FINICITY_APP_KEY", "the-app-key-of-it"),
    ];

    #[test]
    fn reload_returns_the_levels_and_names_other_changed_keys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let write = |text: &str| fs::write(&file, text).unwrap();
        write("[limits]\nqueue = 7\n[log]\nlevel = \"warn\"\n");
        let keys = [("FINICITY__LIMITS__HEADERS", "40"), ("FINICITY_IMAGE__ADMIN__SOCKET", "/of/the/image")];
        let environment: Environment = CREDENTIALS.into_iter().chain(keys).collect();
        let inputs = Inputs { file: Some(file.clone()), environment, ..Inputs::default() };
        let reloader = load(&inputs).unwrap().reloader;
        assert!(!format!("{reloader:?}").contains("FINICITY_CLIENT_SECRET"), "it keeps no secret");
        let reload = || reloader.reload().map(|changes| (changes.levels.to_string(), changes.need_restart.join(" ")));
        assert_eq!(reload(), Ok(("warn".to_owned(), String::new())));

        // The environment overrides the file, so a change of the same key in the file has no effect.
        write("[limits]\nheaders = 50\nqueue = 8\nqueue_timeout = \"2s\"\n[log]\nlevel = \"debug\"\n");
        assert_eq!(reload(), Ok(("debug".to_owned(), "limits.queue limits.queue_timeout".to_owned())));

        write("[limits]\nqueue = -1\nqeue = 1\n[log]\nlevel = \"loud\"\n");
        assert_eq!(reload().unwrap_err().0.len(), 3);
        fs::remove_file(&file).unwrap();
        assert_eq!(reload().unwrap_err().0.len(), 1);
    }
}
