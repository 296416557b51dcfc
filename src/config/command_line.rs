//! Inputs of the commands that ignore the operator's configuration: `demo` and `sandbox`.
//!
//! They read neither the environment nor a file. So they can never use real credentials, a state directory or an egress proxy, and a
//! value that is invalid for `serve` cannot prevent them from running.

use super::{Environment, Inputs, Problem, Problems};

/// Inputs that consist of `flags` only. Their keys must be in one of `sections`. Error messages name `command`.
///
/// # Errors
///
/// One problem for each key in another section.
pub fn command_line_only(command: &str, flags: Vec<(String, String)>, sections: &[&str]) -> Result<Inputs, Problems> {
    let accepted = |key: &str| key.split_once('.').is_some_and(|(section, _)| sections.contains(&section));
    let expected = match sections {
        [] => format!("`{command}` accepts no configuration key; see `finicity-proxy {command} --help`"),
        _ => format!("`{command}` does not accept this key, only those of [{}]", sections.join("], [")),
    };
    let rejected = flags.iter().filter(|(key, _)| !accepted(key));
    let problems: Vec<Problem> = rejected.map(|(key, _)| Problem::for_key(key, "--set", expected.as_str())).collect();
    if problems.is_empty() {
        Ok(Inputs { file: None, environment: Environment::default(), flags })
    } else {
        Err(Problems(problems))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(keys: &[&str]) -> Vec<(String, String)> {
        keys.iter().map(|key| ((*key).to_owned(), "value".to_owned())).collect()
    }

    #[test]
    fn only_keys_of_the_given_sections_are_accepted() {
        let inputs = command_line_only("demo", flags(&["log.level", "listen.proxy"]), &["listen", "log"]).unwrap();
        assert_eq!((inputs.flags.len(), inputs.file), (2, None));
        assert_eq!(inputs.environment.variables().len(), 0);
        let rejected =
            ["auth.state_dir", "log", "loga.level", "log_level", "", "LOG.level", " log.level", "credentials.dir"];
        let all: Vec<&str> = rejected.into_iter().chain(["log.level"]).collect();
        let Problems(problems) = command_line_only("demo", flags(&all), &["listen", "log"]).unwrap_err();
        assert_eq!(problems.len(), rejected.len());
        assert_eq!(
            problems[0].to_string(),
            "auth.state_dir (set by --set): `demo` does not accept this key, only those of [listen], [log]"
        );
        assert!(command_line_only("sandbox", flags(&["log.level"]), &[]).is_err());
        assert!(command_line_only("sandbox", Vec::new(), &[]).is_ok());
    }
}
