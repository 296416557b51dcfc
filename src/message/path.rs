//! The canonical form of a path: one form for all spellings that some server or gateway interprets as the same path.
//!
//! Servers interpret paths differently: how often they decode, whether `\` is a separator, whether `;` starts a parameter, and whether
//! case, empty segments, an extension or a trailing dot matter. The form merges all these interpretations. It is used only to find paths
//! to *deny*, where merging too much is harmless. The proxy always forwards the path as received.
//!
//! Deliberately absent: Unicode tables. A character outside ASCII may stand for any one character, or for none; see
//! [`may_be_read_as`].

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The maximum number of percent-encoding layers. Honest clients may encode twice, when two of their layers do. More layers suggest an
/// attempt to bypass a filter, and decoding without a limit would be unlimited work.
const MAX_ROUNDS: usize = 3;

/// Characters that are trimmed from a segment: some servers decode `+` to a space, and some ignore spaces at both ends and dots at the
/// end.
const BLANKS: [char; 2] = [' ', '+'];
const IGNORED_AT_END: [char; 3] = ['.', ' ', '+'];

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// A `%` without two hexadecimal digits.
    Escape,
    /// More than three layers of escapes.
    Depth,
    /// An escaped control character.
    Control,
    /// Escapes that are not UTF-8: servers decode them differently.
    Encoding,
    /// A `.` or `..` segment.
    Dots,
    /// A separator in a parameter, `;a%2fb`: servers disagree on whether it separates segments.
    Parameter,
}

impl Ambiguous {
    /// The detail of the error response.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Escape => "The path has a % that is not followed by two hexadecimal digits; encode it as %25.",
            Self::Depth => "The path is percent-encoded more than three times.",
            Self::Control => "The path has a percent-encoded control character.",
            Self::Encoding => "The path has percent-encoded bytes that are not UTF-8.",
            Self::Dots => "The path has a . or .. segment, plain or encoded; send the resolved path.",
            Self::Parameter => "The path has an encoded slash or a backslash after a semicolon.",
        }
    }
}

/// The canonical form of `path`, without a trailing slash: empty for the root.
///
/// # Errors
///
/// When the path has no canonical form, because its interpretations contradict each other.
pub fn canonical(path: &str) -> Result<String, Ambiguous> {
    let mut form = String::with_capacity(path.len());
    let mut last_segment = 0;
    let mut path_ended = false;
    for segment in path.split('/') {
        let segment = decode(segment)?;
        let parameters = segment.split_once(';').map_or("", |(_, parameters)| parameters);
        if parameters.contains(['/', '\\']) {
            return Err(Ambiguous::Parameter);
        }
        for part in segment.split(['/', '\\']) {
            let name = part.split([';', '?', '#']).next().unwrap_or_default().trim_matches(BLANKS);
            if name == "." || name == ".." {
                return Err(Ambiguous::Dots);
            }
            let name = name.trim_end_matches(IGNORED_AT_END);
            if !path_ended && !name.is_empty() {
                form.push('/');
                last_segment = form.len();
                form.push_str(name);
            }
            // For a server that decodes the path before splitting it, a query or a fragment starts here.
            path_ended |= part.contains(['?', '#']);
        }
    }
    // Some frameworks route `/token.json` to `/token`.
    if let Some(extension) = form[last_segment..].find('.') {
        form.truncate(last_segment + extension);
    }
    form.truncate(form.trim_end_matches(BLANKS).trim_end_matches('/').len());
    form.make_ascii_lowercase();
    Ok(form)
}

/// Whether `path` is its own canonical form except for case, as nearly all paths are. Such a path needs no decoding.
pub fn is_already_canonical(path: &str) -> bool {
    // The loops never exit early, so that the compiler can vectorize them.
    let bytes = path.as_bytes();
    let is_unchanged = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'_' | b'/');
    let are_slashes = |pair: &[u8]| (pair[0] == b'/') & (pair[1] == b'/');
    bytes.iter().fold(true, |all, byte| all & is_unchanged(*byte))
        && !bytes.windows(2).fold(false, |any, pair| any | are_slashes(pair))
        && !path.ends_with('/')
}

/// Whether every server splits `path` into the same segments: no segment contains a separator after decoding.
pub fn has_unambiguous_segments(path: &str) -> bool {
    path.split('/').all(|segment| decode(segment).is_ok_and(|text| !text.contains(['/', '\\'])))
}

/// Whether a server may interpret a path with the canonical form `form` as one with the form `other`. This holds if they are equal, or if
/// each character of `form` outside ASCII can be replaced by one character or dropped to give `other`. A server may fold such a character
/// to a similar ASCII character, as case-insensitive servers do with the Kelvin sign, or drop it.
pub fn may_be_read_as(form: &str, other: &str) -> bool {
    if form.is_ascii() || form == other {
        return form == other;
    }
    let other: Vec<char> = other.chars().collect();
    // After each character of `form`: `matched[n]` says whether the characters so far can stand for the first `n` of `other`.
    let mut matched = vec![false; other.len() + 1];
    matched[0] = true;
    for character in form.chars() {
        for length in (0..matched.len()).rev() {
            let shorter = length > 0 && matched[length - 1];
            matched[length] = if character.is_ascii() {
                shorter && other[length - 1] == character
            } else {
                shorter || matched[length]
            };
        }
    }
    matched[other.len()]
}

/// The text of one segment, decoded until no escapes remain.
fn decode(segment: &str) -> Result<String, Ambiguous> {
    let is_complete = |escape: &str| {
        escape.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !segment.split('%').skip(1).all(is_complete) {
        return Err(Ambiguous::Escape);
    }
    let mut bytes = segment.as_bytes().to_vec();
    let mut rounds = 0;
    while let Some(decoded) = decode_once(&bytes) {
        rounds += 1;
        if rounds > MAX_ROUNDS {
            return Err(Ambiguous::Depth);
        }
        bytes = decoded;
    }
    let text = str::from_utf8(&bytes).map_err(|_| Ambiguous::Encoding)?;
    if text.contains(char::is_control) {
        return Err(Ambiguous::Control);
    }
    Ok(text.chars().map(fold_fullwidth).collect())
}

/// `bytes` without one layer of escapes; `None` if they have none. A `%` outside an escape remains: it was itself encoded.
fn decode_once(bytes: &[u8]) -> Option<Vec<u8>> {
    match Cow::from(percent_decode(bytes)) {
        Cow::Owned(decoded) => Some(decoded),
        Cow::Borrowed(_) => None,
    }
}

/// The ASCII character for a full-width form such as `／`. Other characters are unchanged.
fn fold_fullwidth(character: char) -> char {
    match character {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character),
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, form: Result<&str, Ambiguous>) {
        assert_eq!(canonical(path).as_deref(), form.as_ref().copied(), "{path}");
    }

    #[test]
    fn spellings_of_one_path_have_one_form() {
        for path in [
            "/a/b",
            "/A/b",
            "/a/b/",
            "//a///b//",
            "/a/b;x=1",
            "/a;x/b;y/;z",
            "/%61/b",
            "/%2561/b",
            "/%252561/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%252Fb",
            "/a%5Cb",
            "/a\\b",
            "/a/b%20",
            "/%20a/b+",
            "/a./b.",
            "/a/b. .",
            "/a/b.json",
            "/a/b.tar.gz",
            "/a/b/.json",
            "/a/b%20.json",
            "/a/b%3fx/y",
            "/a/b%23x/y",
            "/a/b%3Bx",
            "/ａ／ｂ",
            "/%EF%BD%81/b",
        ] {
            check(path, Ok("/a/b"));
        }
        for path in ["/", "//", "/;x", "/.json", "/?", "/%2f", "/%20/", "/..."] {
            check(path, Ok(""));
        }
        check("/v1.2/a", Ok("/v1.2/a"));
        check("/caf%C3%A9/100%25/a%2bb", Ok("/café/100%/a+b"));
        check("/a%25zz", Ok("/a%zz"));
    }

    #[test]
    fn c09_dot_segments_have_no_form_in_any_spelling() {
        for path in [
            "/a/../b",
            "/./a",
            "/a/.",
            "/a/..",
            "/..",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a/%252e%252E/b",
            "/a/%25252e./b",
            "/a/..;x/b",
            "/a/..;/b",
            "/a/.%3bx/b",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..",
            "/a/..%20/b",
            "/a/.+/b",
            "/a/..%3f/b",
            "/a/..%23",
            "/a%3f/../b",
            "/a/．．/b",
            "/a/%EF%BC%8E/b",
        ] {
            check(path, Err(Ambiguous::Dots));
        }
        for path in ["/a/...", "/a/..b", "/a/b..", "/.well-known/x", "/a%252e%252eb"] {
            assert!(canonical(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn c13_paths_that_servers_read_differently_have_no_form() {
        for path in ["/a%zz", "/%", "/a%2", "/a%2/b", "/%u002e", "/a%é0"] {
            check(path, Err(Ambiguous::Escape));
        }
        for path in ["/a%00b", "/a%0d%0aX:y", "/%09", "/%7F", "/%2500", "/%C2%85"] {
            check(path, Err(Ambiguous::Control));
        }
        for path in ["/%ff", "/%c0%af", "/%C3", "/%25ff", "/%C3/%A9"] {
            check(path, Err(Ambiguous::Encoding));
        }
        for path in ["/%25252541", "/a/%2525252525"] {
            check(path, Err(Ambiguous::Depth));
        }
        for path in ["/a;x%2fb", "/a;x\\b", "/a%3bx%2fb", "/a;x%252fb", "/a;／b"] {
            check(path, Err(Ambiguous::Parameter));
        }
    }

    #[test]
    fn a_character_outside_ascii_stands_for_one_or_none() {
        for (form, reads) in [
            ("/token", true),
            ("/to\u{212a}en", true),
            ("/tok\u{200b}en", true),
            ("/töken\u{feff}", true),
            ("/öö", false),
            ("/tök", false),
            ("/tokené/x", false),
            ("/toke", false),
            ("/tokens", false),
            ("éééééé", true),
        ] {
            assert_eq!(may_be_read_as(form, "/token"), reads, "{form}");
        }
        assert!(may_be_read_as("/é", "/é") && !may_be_read_as("/e", "/é"));
    }

    proptest! {
        #[test]
        fn a_plain_path_is_its_own_form(path in "(/[a-zA-Z0-9_-]{0,3}|/|[.;%]){0,5}") {
            if is_already_canonical(&path) {
                prop_assert_eq!(canonical(&path), Ok(path.to_ascii_lowercase()));
            }
        }
    }
}
