//! `config`: shows the effective configuration and its sources, writes a template, and explains keys.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::output::print;
use crate::config::{self, Definition, Explanation, Inputs};

/// The width of an explanation's text, in columns.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// No effect: secrets are never shown
    #[arg(long)]
    redacted: bool,
    /// Show only keys that differ from their defaults
    #[arg(long)]
    changed: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration template: every key with its comment, none set
    Init {
        /// File to write, or - for standard output
        #[arg(default_value = "finicity-proxy.toml")]
        file: PathBuf,
        /// Overwrite an existing file
        #[arg(long)]
        force: bool,
    },
    /// Show the purpose, bounds, default, value and source of a key
    Explain {
        /// Key such as limits.queue, its environment variable, or a section
        #[arg(value_name = "KEY", value_parser = Keys::find)]
        keys: Keys,
    },
}

/// The keys that an argument names.
#[derive(Clone, Debug)]
struct Keys(Vec<Definition>);

impl Keys {
    fn find(name: &str) -> Result<Self, String> {
        config::find(name).map(Self)
    }
}

/// Runs the subcommand, or shows the keys.
///
/// # Errors
///
/// Problems of the sources, after printing everything that could be read; or a file that cannot be written.
pub(super) fn run(inputs: &Inputs, arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        None => show(inputs, arguments.changed),
        Some(Command::Init { file, force }) => init(&file, force),
        Some(Command::Explain { keys }) => explain(inputs, keys),
    }
}

/// Prints every key as TOML with the source that set it, then which credentials their source has. With `changed`, prints only the keys
/// that differ from their defaults.
fn show(inputs: &Inputs, changed: bool) -> anyhow::Result<()> {
    let (keys, problems) = config::all_keys(inputs);
    if changed {
        let keys = keys.changed();
        print(if keys.is_empty() { "# every key has its default".to_owned() } else { keys.to_toml() });
    } else {
        print(keys.to_toml());
        show_credentials(inputs);
    }
    if problems.0.is_empty() { Ok(()) } else { Err(problems.into()) }
}

fn show_credentials(inputs: &Inputs) {
    match config::credentials(inputs) {
        Ok(credentials) => {
            let source = credentials.source.open();
            print(format_args!("# credentials, from {}", source.description()));
            for line in source.outline() {
                print(format_args!("# {line}"));
            }
        }
        Err(problems) => {
            print("# credentials, from an unknown source");
            for problem in problems.0 {
                print(format_args!("# {problem}"));
            }
        }
    }
}

/// Writes the template to `file`. Without `force`, the file must not exist.
fn init(file: &PathBuf, force: bool) -> anyhow::Result<()> {
    let text = config::template();
    if file.as_os_str() == "-" {
        print(text.trim_end());
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!force);
    let shown = file.display();
    let hint = if force { "" } else { "; use --force to overwrite an existing file" };
    let mut opened = options.open(file).with_context(|| format!("cannot create {shown}{hint}"))?;
    opened.write_all(text.as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    print(format_args!("wrote {shown}, in which no key is set; use it with --config {shown}"));
    Ok(())
}

fn explain(inputs: &Inputs, Keys(keys): Keys) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let mut text = String::new();
    for definition in keys {
        let explanation = config::explain(inputs, definition);
        text += &explained(&explanation);
        for problem in explanation.problems.0 {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    print(text.trim_end());
    if problems.is_empty() { Ok(()) } else { Err(config::Problems(problems).into()) }
}

/// An explanation as a paragraph and a table.
fn explained(Explanation { definition, value, origin, .. }: &Explanation) -> String {
    let Definition { key, doc, kind, default, example } = definition;
    let example = example.as_ref().unwrap_or(default);
    let variable = definition.variable();
    format!(
        "{key}\n{}\n  type         {kind}\n  default      {default}\n  value        {value}, set by {origin}\n  variable     {variable}\n  \
         example      {key} = {example}\n\n",
        wrapped(doc)
    )
}

/// `text` wrapped to [`WIDTH`] and indented.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = WIDTH;
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        if width + length > WIDTH {
            lines += if lines.is_empty() { "  " } else { "\n  " };
            width = 2 + length;
        } else {
            lines.push(' ');
            width += length;
        }
        lines += word;
    }
    lines
}
