//! Counts what a request costs the program in figures that hardly depend on how fast or how busy the machine is, and fails when
//! one is above its ceiling.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/budget/Cargo.toml -- PROGRAM PROGRAM_WITHOUT_SANDBOX
//! ```
//!
//! The program runs as a process, with the sandbox as a second one behind it, under valgrind or strace. `ceilings.tsv` has the
//! ceilings and says what is counted. Exit code 0: all within; 1: one is above; 2: something could not be measured.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of threads without a runtime, with the environment that it was started in"
)]

mod calls;
mod ceilings;
mod figures;
mod program;
mod tool;

use std::{env, path::PathBuf, process::ExitCode};

use self::{ceilings::Ceilings, figures::Figure};

/// What goes wrong, told as it is: nobody acts on one kind or another.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures all figures. Says whether each is within its ceiling.
fn run() -> Result<bool> {
    let argument = |index| -> Result<PathBuf> {
        let path =
            env::args_os().nth(index).ok_or("name the program to measure, and one built with --no-default-features")?;
        Ok(PathBuf::from(path).canonicalize()?)
    };
    let (program, without_sandbox) = (argument(1)?, argument(2)?);
    let mut ceilings = Ceilings::read(include_str!("../ceilings.tsv"))?;
    println!("{:<44}  {:>11}  {:>11}  {:>6}", "figure", "measured", "ceiling", "used");
    let mut within = true;
    figures::measure(&program, &without_sandbox, |Figure { name, value, decimals }| {
        let measured = format!("{value:.decimals$}");
        let Some(ceiling) = ceilings.take(name) else {
            println!("{name:<44}  {measured:>11}  {:>11}  {:>6}", "-", "-");
            return;
        };
        let over = value > ceiling;
        within &= !over;
        let (used, verdict) = (value / ceiling * 100.0, if over { "  TOO MUCH" } else { "" });
        println!("{name:<44}  {measured:>11}  {ceiling:>11}  {used:>5.0}%{verdict}");
    })?;
    ceilings.all_taken()?;
    if !within {
        println!(
            "a figure is above its ceiling: mend it, or raise the ceiling in benches/budget/ceilings.tsv and say why"
        );
    }
    Ok(within)
}
