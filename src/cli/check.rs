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
    say(format_args!("  upstream   {}", config.proxy.upstream.url));
    let token_path = crate::token::scheme::token_call(&config.credentials, &config.token).path;
    say(format_args!("  token      {token_path} by scheme {}", config.credentials.scheme.as_str()));
    say(format_args!("  callers    {}", joined(&config.listen.proxy)));
    say(format_args!("  operators  {}", joined(&config.listen.ops)));
    say(format_args!("  admin      {}", joined(&config.listen.admin)));
    Ok(())
}
