//! `[log]`: log format and levels.

use super::super::reader::Reader;
use crate::telemetry::{Levels, level::ParseLevelsError, logging};

pub(super) fn log(read: &mut Reader<'_>) -> logging::Config {
    logging::Config {
        format: read.choice(
            "log.format",
            &[("auto", None), ("json", Some(logging::Format::Json)), ("human", Some(logging::Format::Human))],
        ),
        level: level(read).unwrap_or_default(),
    }
}

pub(super) fn level(read: &mut Reader<'_>) -> Option<Levels> {
    read.parsed("log.level", |text| text.parse().map_err(|error: ParseLevelsError| error.to_string()))
}
