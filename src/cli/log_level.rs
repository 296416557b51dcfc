//! `log-level`: shows or changes the log levels of the running proxy.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::Method;

use super::{
    admin::{Access, admin_target},
    local_client::{self, LocalRequest},
    output::print,
};
use crate::{
    admin::{LevelStatus, SetLevel},
    config::Inputs,
    telemetry::{Levels, level::ParseLevelsError},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Level to set, such as debug, or levels by target, such as info,finicity_proxy::token=debug; omit to show the current one
    #[arg(value_parser = levels)]
    level: Option<String>,
    /// Revert to the configured level after this time, such as 10m; at most one day
    #[arg(long = "for", value_name = "TIME", value_parser = local_client::time, requires = "level")]
    duration: Option<Duration>,
}

/// Changes the level if one is given, then prints the levels in effect.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { level, duration } = arguments;
    let path = "/api/log-level";
    let response = match level {
        None => admin_target(inputs, Access::Read)?.send(Method::GET, path).await?,
        Some(level) => {
            let duration = duration.map(|duration| humantime::format_duration(duration).to_string());
            let body = serde_json::to_vec(&SetLevel { level, duration })?.into();
            let request = LocalRequest { body, ..LocalRequest::new(Method::POST, path) };
            admin_target(inputs, Access::Act)?.send_request(&request).await?
        }
    };
    let shown: LevelStatus =
        serde_json::from_str(&response.text).with_context(|| format!("malformed response from {}", response.target))?;
    print(described(&shown));
    Ok(())
}

fn levels(text: &str) -> Result<String, ParseLevelsError> {
    Ok(text.parse::<Levels>()?.to_string())
}

/// `debug; reverts to info in 10m`.
fn described(shown: &LevelStatus) -> String {
    let LevelStatus { level, configured, reverts_in_s } = shown;
    match reverts_in_s {
        Some(seconds) => {
            let time = humantime::format_duration(Duration::from_secs(*seconds));
            format!("{level}; reverts to {configured} in {time}")
        }
        None if level == configured => format!("{level}, as configured"),
        None => format!("{level}; the configured level is {configured}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_shown_with_the_one_that_it_reverts_to() {
        let shown = |level: &str, reverts_in_s| {
            described(&LevelStatus { level: level.to_owned(), configured: "info".to_owned(), reverts_in_s })
        };
        assert_eq!(shown("debug", Some(599)), "debug; reverts to info in 9m 59s");
        assert_eq!(shown("info", None), "info, as configured");
        assert_eq!(shown("debug", None), "debug; the configured level is info");
    }
}
