//! `check`: is the configuration one that can run?

use super::say;
use crate::{
    app::joined,
    config::{self, Inputs},
};

/// Loads everything and says what it amounts to. Nothing is bound, and nobody is called.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let config = config::load(inputs)?;
    say("the configuration is valid");
    say(format_args!("  upstream   {}", config.proxy.upstream));
    say(format_args!("  token      {} with OAuth 2.0 client credentials", config.token.token_path));
    say(format_args!("  callers    {}", joined(&config.listen.proxy)));
    say(format_args!("  operators  {}", joined(&config.listen.ops)));
    say(format_args!("  admin      {}", joined(&config.listen.admin)));
    Ok(())
}
