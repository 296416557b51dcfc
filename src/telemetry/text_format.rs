//! The text format of the log. Control and bidirectional formatting characters are escaped in all values.

use std::{
    fmt::{self, Debug, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{
        format::{self, FormatFields, Writer},
        time::FormatTime,
    },
};

/// Formats the time of an event as the time of day in UTC.
#[derive(Debug)]
pub(super) struct TimeOfDay;

impl FormatTime for TimeOfDay {
    #[expect(clippy::disallowed_methods, reason = "the timestamp of a log line")]
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write_time_of_day(seconds, writer)
    }
}

/// Writes the UTC time of day at `seconds` since the Unix epoch.
pub(super) fn write_time_of_day(seconds: u64, writer: &mut impl Write) -> fmt::Result {
    write!(writer, "{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Formats the fields of an event: the message as is, the others as `name=value`.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        if field.name() == "message" {
            write!(EscapeControl(writer), "{value:?}")
        } else {
            write!(writer, "{}=", field.name())?;
            write!(EscapeControl(writer), "{value:?}")
        }
    })
    .delimited(" ")
}

/// Escapes characters that a terminal or a line-based reader would interpret.
#[derive(Debug)]
pub(super) struct EscapeControl<W>(pub(super) W);

impl<W: Write> Write for EscapeControl<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| needs_escape(*character)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "\\u{{{:x}}}", u32::from(character))?;
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Whether `character` is a control character, a Unicode line break, or changes the direction of text (CVE-2021-42574).
pub(super) fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
