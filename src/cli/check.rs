//! `check`: is the configuration one that can run?

use super::say;
use crate::config::{self, Inputs};

/// Loads everything and says what it amounts to. Nothing is bound, and nobody is called.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let config = config::load(inputs)?;
    let list =
        |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    say("the configuration is valid");
    say(format_args!("  upstream   {}", config.proxy.upstream));
    say(format_args!("  token      {} with OAuth 2.0 client credentials", config.token.token_path));
    say(format_args!("  callers    {}", list(&config.listen.proxy)));
    say(format_args!("  operators  {}", list(&config.listen.ops)));
    say(format_args!("  admin      {}", list(&config.listen.admin)));
    Ok(())
}
