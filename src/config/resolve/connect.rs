//! `[connect]`: how the bodies of Connect calls are edited.

use super::super::reader::Reader;
use crate::{proxy::ConnectConfig, secret::Secret};

/// Maximum of `connect.body_bytes`. Bodies up to that size are buffered.
const MAX_BODY_BYTES: usize = 1024 * 1024;

pub(super) fn connect(read: &mut Reader<'_>) -> ConnectConfig {
    ConnectConfig {
        fill_partner_id: read.flag("connect.fill_partner_id"),
        partner_id: read.optional("connect.partner_id", partner_id),
        body_bytes: read.number("connect.body_bytes", 2..=MAX_BODY_BYTES),
    }
}

/// Accepts the same values as the Partner ID of credentials: printable ASCII without a space at either end.
fn partner_id(text: &str) -> Result<Secret<String>, String> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text {
        Ok(text.into())
    } else {
        Err("must be the Partner ID from the vendor's portal: printable ASCII without a space at either end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_id_is_plain_text() {
        for (text, is_valid) in
            [("2445583946651", true), ("a b", true), (" 1", false), ("1\n", false), ("\u{e9}", false)]
        {
            assert_eq!(partner_id(text).is_ok(), is_valid, "{text:?}");
        }
    }
}
