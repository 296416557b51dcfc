//! `token invalidate`: replaces the token of the running proxy.

use clap::{Args, Subcommand};
use http::Method;

use super::{
    admin::{Access, admin_target},
    output::print,
};
use crate::config::Inputs;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Drop the token, revoke it if auth.revocation_path is set, and obtain a new one
    Invalidate,
}

/// Invalidates the token.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Action::Invalidate = arguments.action;
    let response = admin_target(inputs, Access::Act)?.send(Method::POST, "/api/token/invalidate").await?;
    print(&response.text);
    Ok(())
}
