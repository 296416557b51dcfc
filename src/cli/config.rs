//! `config --redacted`: what is in effect, and why.

use super::output::print;
use crate::config::{self, Inputs};

/// Prints every key as TOML with the place that set it, and which credentials are set in their source.
///
/// # Errors
///
/// What is wrong with the sources, after all that could be read of them.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let (effective, problems) = config::all_keys(inputs);
    print(effective.to_toml());
    match config::credentials(inputs) {
        Ok(credentials) => {
            let source = credentials.source.open();
            print(format_args!("# credentials, from {}", source.description()));
            for line in source.outline() {
                print(format_args!("# {line}"));
            }
        }
        Err(problems) => {
            print("# credentials, from a source that is not known");
            for problem in problems.0 {
                print(format_args!("# {problem}"));
            }
        }
    }
    if problems.0.is_empty() { Ok(()) } else { Err(problems.into()) }
}
