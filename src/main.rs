//! The `finicity-proxy` program. See [`finicity_proxy::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    finicity_proxy::cli::main()
}
