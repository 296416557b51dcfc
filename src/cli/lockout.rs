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
    /// Allow the present credentials one more attempt. Each rejection counts: five lock the vendor account
    Reset {
        /// Even though so many credentials of this id were rejected, or have an unknown outcome, that none is tried any more
        #[arg(long)]
        override_budget: bool,
    },
}

/// Resets, and says what the state is afterwards and what happens next.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Action::Reset { override_budget } = arguments.action;
    let target = admin_target(inputs, Access::Act)?;
    let (_, before) = target.status().await?;
    let candidate = before.lock_out.new_credentials.as_deref();
    let is_refused = before.lock_out.reason.is_some() || matches!(candidate, Some("rejected" | "held"));
    let path = if override_budget { "/api/latch/reset?override_budget=true" } else { "/api/latch/reset" };
    let response = target.send(Method::POST, path).await?;
    print(if is_refused { &response.text } else { "nothing was locked out; nothing was changed" });
    let (_, after) = target.status().await?;
    print(format_args!("{:<20}{}", "next token request", status::next_request(&after)));
    print(status::lock_out(&after.lock_out).trim_end());
    if is_refused {
        print(
            "`finicity-proxy status` shows the outcome; after another rejection no request is made until the next reset",
        );
    }
    Ok(())
}
