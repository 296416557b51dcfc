//! Validates values, so that a malformed one is never sent.
//!
//! A malformed credential (quotes from an env file, a byte order mark, a copied space) causes a failed authentication, and five of
//! these lock the vendor account. It is therefore an error before it is sent; the error names its origin, never the value.
//!
//! | kind | must not have |
//! |---|---|
//! | id, App Key, admin token | the same quote at both ends, a space at either end, any character outside 0x20 to 0x7E |
//! | client or partner secret | the same quote at both ends, white space or an invisible character at either end, control characters, line breaks |
//! | egress user and password | line breaks and NUL |
//!
//! One trailing line break, LF or CRLF, is not part of a value, because editors and `echo` add one.

use zeroize::Zeroizing;

use super::{
    field::{Field, Sourced},
    problem::{MIN_ADMIN_TOKEN_BYTES, Problem, ValueDefect},
};
use crate::secret::Secret;

/// The kind of a value, which selects its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// A client or partner id.
    Id,
    /// A client or partner secret.
    Secret,
    /// An App Key.
    AppKey,
    /// The administrator's token.
    AdminToken,
    /// A user name or a password for the egress proxy.
    Egress,
}

impl Field {
    /// The kind of this field's value.
    pub(super) fn kind(self) -> ValueKind {
        match self {
            Self::ClientId | Self::PartnerId => ValueKind::Id,
            Self::ClientSecret | Self::PartnerSecret => ValueKind::Secret,
            Self::AppKey => ValueKind::AppKey,
        }
    }
}

/// Returns the value without one trailing line break, or the reason why it cannot be used.
pub(super) fn check(kind: ValueKind, Sourced { value, origin }: Sourced) -> Result<Sourced, Problem> {
    let value = Secret::from(without_line_break(value.expose()));
    let text = value.expose().as_str();
    if is_empty(kind, text) {
        return Err(Problem::Empty(origin));
    }
    if let Some(defect) = find_defect(kind, text) {
        return Err(Problem::Malformed(origin, defect));
    }
    if kind != ValueKind::Egress && is_placeholder(text) {
        return Err(Problem::Placeholder(origin));
    }
    if kind == ValueKind::AdminToken && text.len() < MIN_ADMIN_TOKEN_BYTES {
        return Err(Problem::ShortAdminToken(origin));
    }
    Ok(Sourced { value, origin })
}

/// `text` without one trailing LF or CRLF.
fn without_line_break(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.len() < text.len() { line.strip_suffix('\r').unwrap_or(line) } else { line }
}

/// Whether the value has no visible character. An egress password may consist of spaces.
fn is_empty(kind: ValueKind, text: &str) -> bool {
    text.is_empty() || kind != ValueKind::Egress && text.chars().all(|c| c.is_whitespace() || is_invisible(c))
}

fn find_defect(kind: ValueKind, text: &str) -> Option<ValueDefect> {
    match kind {
        ValueKind::Egress => forbidden_character(text, |c| matches!(c, '\n' | '\r' | '\0')),
        ValueKind::Secret => {
            defect_at_ends(text).or_else(|| forbidden_character(text, |c| c.is_control() || is_line_break(c)))
        }
        ValueKind::Id | ValueKind::AppKey | ValueKind::AdminToken => {
            let others = || text.chars().any(|c| !matches!(c, ' '..='~')).then_some(ValueDefect::NotAscii);
            defect_at_ends(text)
                .or_else(|| forbidden_character(text, |c| c.is_control() || is_line_break(c)))
                .or_else(others)
        }
    }
}

/// The defect of the first or last character of `text`.
fn defect_at_ends(text: &str) -> Option<ValueDefect> {
    let (first, last) = (text.chars().next()?, text.chars().next_back()?);
    let is_pair = text.chars().nth(1).is_some() && closing_quote(first) == Some(last);
    let ends = [first, last];
    if is_pair {
        Some(ValueDefect::Quoted)
    } else if ends.into_iter().any(is_line_break) {
        Some(ValueDefect::LineBreak)
    } else if ends.into_iter().any(is_invisible) {
        Some(ValueDefect::Invisible)
    } else if ends.into_iter().any(char::is_whitespace) {
        Some(ValueDefect::Space)
    } else {
        None
    }
}

/// The defect of the first `forbidden` character in `text`.
fn forbidden_character(text: &str, forbidden: impl Fn(char) -> bool) -> Option<ValueDefect> {
    let found = text.chars().find(|c| forbidden(*c))?;
    Some(if is_line_break(found) { ValueDefect::LineBreak } else { ValueDefect::Control })
}

/// The quotation mark that closes `opening`. Word processors use different marks for the two ends.
fn closing_quote(opening: char) -> Option<char> {
    match opening {
        '"' | '\'' | '`' | '\u{b4}' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{201e}' => {}
        _ => return None,
    }
    Some(match opening {
        '\u{2018}' => '\u{2019}',
        '\u{201c}' => '\u{201d}',
        '\u{201e}' => '\u{201c}',
        '\u{ab}' => '\u{bb}',
        same => same,
    })
}

fn is_line_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether `character` is invisible or looks like a space but is not U+0020. Copying from web pages and documents adds such characters.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{202a}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
        | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `value` is a placeholder from a template or a tutorial.
///
/// A real value of such a form would be an error, so the list has only forms that no issued credential has.
fn is_placeholder(value: &str) -> bool {
    let value = Zeroizing::new(value.trim().to_ascii_lowercase());
    let wrapped = [("<", ">"), ("${", "}"), ("$(", ")"), ("{{", "}}"), ("[", "]")]
        .iter()
        .any(|(open, close)| value.starts_with(open) && value.ends_with(close));
    // Full capacity, because a reallocation would leave a copy in memory.
    let mut letters = Zeroizing::new(String::with_capacity(value.len()));
    letters.extend(value.chars().filter(char::is_ascii_alphanumeric));
    let listed = ["changeme", "replaceme", "placeholder", "todo", "tbd", "fixme", "none", "null", "undefined"]
        .contains(&letters.as_str());
    let addressed = letters.starts_with("your")
        && ["id", "secret", "key"].iter().any(|end| letters.ends_with(end) || letters.ends_with(&format!("{end}here")));
    let crossed_out =
        !letters.is_empty() && letters.bytes().all(|b| b == b'x') || value.chars().all(|c| "*.-_".contains(c));
    wrapped || listed || addressed || crossed_out
}

#[cfg(test)]
mod tests;
