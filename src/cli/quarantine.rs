//! `quarantine on|off`: stops or resumes the use of the credentials by the running proxy.

use clap::{Args, ValueEnum};
use http::Method;

use super::{
    admin::{Access, admin_target},
    output::print,
};
use crate::config::Inputs;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// State to set
    #[arg(value_enum, value_name = "on|off")]
    state: Quarantine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Quarantine {
    /// Drop the token and obtain no new one: requests get 503 `quarantined`
    On,
    /// Obtain a token again
    Off,
}

/// Sets the state. Idempotent.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let path = match arguments.state {
        Quarantine::On => "/api/quarantine",
        Quarantine::Off => "/api/quarantine/lift",
    };
    let response = admin_target(inputs, Access::Act)?.send(Method::POST, path).await?;
    print(&response.text);
    Ok(())
}
