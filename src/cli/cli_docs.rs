//! `completions` and `man`, generated from the definitions that parse the command line.

use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use super::output::print;

const NAME: &str = "finicity-proxy";

/// Prints a script that completes `command` in `shell`.
pub(super) fn completions(shell: Shell, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    let mut script = String::from_utf8(script)?;
    if shell == Shell::Bash {
        // clap_complete 4.6.11 escapes the dash of the program's name in two ways, so bash finds the options of no subcommand.
        script = script.replace("finicity__subcmd__proxy", "finicity__proxy");
    }
    print(script.trim_end());
    Ok(())
}

/// Prints the man page of `command`, or writes it and those of its subcommands to `directory`.
pub(super) fn man(directory: Option<&Path>, command: Command) -> anyhow::Result<()> {
    if let Some(directory) = directory {
        let shown = directory.display();
        return clap_mangen::generate_to(command, directory).with_context(|| format!("cannot write to {shown}"));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print(String::from_utf8(page)?.trim_end());
    Ok(())
}
