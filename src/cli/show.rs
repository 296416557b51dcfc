//! `config --redacted`: what is in effect, and why.

use super::say;
use crate::{
    config::{self, Inputs},
    credentials::Field,
};

/// Prints every key as TOML with the place that set it, and which credentials are set.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let effective = config::effective(inputs)?;
    say(effective.to_toml());
    say("# credentials, from the environment");
    for name in Field::ALL.map(Field::variable) {
        let variables = inputs.environment.variables();
        let file = format!("{name}_FILE");
        let state = match (variables.get(name), variables.get(&file)) {
            (Some(_), _) => "[redacted]".to_owned(),
            (None, Some(path)) if path.expose().contains('/') => format!("[redacted], from {}", path.expose()),
            (None, Some(_)) => "[redacted], from a file".to_owned(),
            (None, None) => "not set".to_owned(),
        };
        say(format_args!("# {name}: {state}"));
    }
    Ok(())
}
