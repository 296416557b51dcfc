//! `config --redacted`: what is in effect, and why.

use super::say;
use crate::config::{self, Inputs};

/// Prints every key as TOML with the place that set it, and which credentials are set in their source.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let effective = config::effective(inputs)?;
    say(effective.to_toml());
    match config::credentials(inputs) {
        Ok(credentials) => {
            let source = credentials.source.open();
            say(format_args!("# credentials, from {}", source.description()));
            for line in source.outline() {
                say(format_args!("# {line}"));
            }
        }
        Err(problems) => {
            say("# credentials, from a source that is not known");
            for problem in problems.0 {
                say(format_args!("# {problem}"));
            }
        }
    }
    Ok(())
}
