//! `lockout reset`: allows rejected credentials one more attempt.

use clap::{Args, Subcommand};
use http::Method;

use super::{
    admin::{Access, admin_target},
    output::print,
    status,
};
use crate::config::Inputs;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Allow the current credentials one more attempt; five rejections lock the vendor account
    Reset {
        /// Also allow it when the budget of this client or partner ID is spent, or its attempts are held
        #[arg(long)]
        override_budget: bool,
    },
}

/// Resets the guard, then prints its state and the next token request.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Action::Reset { override_budget } = arguments.action;
    let target = admin_target(inputs, Access::Act)?;
    let (_, before) = target.status().await?;
    let candidate = before.lock_out.new_credentials.as_deref();
    let is_locked_out = before.lock_out.reason.is_some() || matches!(candidate, Some("rejected" | "held"));
    let path = if override_budget { "/api/latch/reset?override_budget=true" } else { "/api/latch/reset" };
    let response = target.send(Method::POST, path).await?;
    print(if is_locked_out { &response.text } else { "nothing was locked out; nothing changed" });
    let (_, after) = target.status().await?;
    print(format_args!("{:<20}{}", "next token request", status::next_request(&after)));
    print(status::lock_out(&after.lock_out).trim_end());
    if is_locked_out {
        print(
            "run `finicity-proxy status` to see the outcome; after another rejection, no token request is made until the next reset",
        );
    }
    Ok(())
}
