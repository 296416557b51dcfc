//! `[log]`: what is logged, and how.

use super::super::reader::Reader;
use crate::telemetry::{Levels, level::ParseLevelsError, logging};

/// The form and the levels.
pub(super) fn log(read: &mut Reader<'_>) -> logging::Config {
    logging::Config {
        format: read.choice(
            "log.format",
            &[("auto", None), ("json", Some(logging::Format::Json)), ("human", Some(logging::Format::Human))],
        ),
        level: level(read).unwrap_or_default(),
    }
}

/// The levels alone.
pub(super) fn level(read: &mut Reader<'_>) -> Option<Levels> {
    read.parsed("log.level", |text| text.parse().map_err(|error: ParseLevelsError| error.to_string()))
}
