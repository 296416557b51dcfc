//! `[log]`: what is logged, and how.

use tracing_subscriber::filter::Targets;

use super::super::reader::Reader;
use crate::telemetry::logging;

/// The form and the levels.
pub(super) fn log(read: &mut Reader<'_>) -> logging::Config {
    logging::Config {
        format: read.choice("log.format", &[("json", logging::Format::Json), ("human", logging::Format::Human)]),
        level: read.parsed("log.level", level).unwrap_or_default(),
    }
}

/// Levels by target. A bare word must be a level: `Targets` alone would take a misspelt one for the name of a module.
fn level(text: &str) -> Result<Targets, String> {
    let expected = "must be error, warn, info, debug or trace, or a list such as \"info,finicity_proxy::token=debug\"";
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let valid = text.split(',').map(str::trim).all(|directive| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    });
    if !valid {
        return Err(expected.to_owned());
    }
    text.replace(' ', "").parse().map_err(|_| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_module() {
        for good in ["info", "trace", "info,finicity_proxy=debug", "warn, hyper=trace", "off"] {
            assert!(level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "info,x=verbose", "=info", "INFO;"] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }
}
