//! Counts the cost of a request in figures that are almost independent of the speed and load of the machine, and fails if one exceeds its
//! ceiling.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/budget/Cargo.toml -- PROGRAM PROGRAM_WITHOUT_SANDBOX
//! ```
//!
//! The program and the sandbox run as processes, the program under valgrind or strace. `ceilings.tsv` has the ceilings and explains
//! the figures. Exit codes: 0: all within their ceilings; 1: one exceeds its ceiling; 2: something could not be measured.

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

/// A result with any error; errors are only printed.
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

/// Measures all figures. Returns whether all are within their ceilings.
fn run() -> Result<bool> {
    let argument = |index| -> Result<PathBuf> {
        let path = env::args_os().nth(index).ok_or(
            "usage: finicity-proxy-budget PROGRAM PROGRAM_WITHOUT_SANDBOX (for example target/release/finicity-proxy)",
        )?;
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
        let (used, verdict) = (value / ceiling * 100.0, if over { "  EXCEEDED" } else { "" });
        println!("{name:<44}  {measured:>11}  {ceiling:>11}  {used:>5.0}%{verdict}");
    })?;
    ceilings.all_taken()?;
    if !within {
        println!(
            "a figure exceeds its ceiling: fix it, or raise the ceiling in benches/budget/ceilings.tsv and give the reason"
        );
    }
    Ok(within)
}
