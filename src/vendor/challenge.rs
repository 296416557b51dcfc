//! Parses `WWW-Authenticate` (RFC 9110, 11.6.1) for the `error` parameter of `Bearer` challenges (RFC 6750, 3).
//!
//! Commas separate both challenges and the parameters of one challenge, so a field is parsed element by element: an element that begins
//! with a scheme starts a challenge; an element that is a parameter belongs to the preceding challenge.

use http::{HeaderMap, HeaderValue, header};

/// The error in the `Bearer` challenges of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChallengeError {
    /// None of them names an error.
    Absent,
    /// Only `invalid_token`.
    InvalidToken,
    /// Another error, possibly in addition to `invalid_token`.
    Other,
}

/// The error in the `Bearer` challenges of `headers`.
pub(super) fn bearer_error(headers: &HeaderMap) -> ChallengeError {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
    match values.flat_map(bearer_errors).map(is_invalid_token).reduce(|all, one| all && one) {
        None => ChallengeError::Absent,
        Some(true) => ChallengeError::InvalidToken,
        Some(false) => ChallengeError::Other,
    }
}

/// The values of `error` in the `Bearer` challenges of one field. A challenge does not continue in the next field.
fn bearer_errors(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut bearer = false;
    elements(value).filter_map(move |element| {
        let (scheme, parameter) = parse(element);
        if let Some(scheme) = scheme {
            bearer = scheme.eq_ignore_ascii_case(b"bearer");
        }
        let (name, value) = parameter?;
        (bearer && name.eq_ignore_ascii_case(b"error")).then_some(value)
    })
}

/// Whether `value` is `invalid_token`, as a token or a quoted string. RFC 6750 allows no escapes in it.
fn is_invalid_token(value: &[u8]) -> bool {
    value == b"invalid_token" || value == b"\"invalid_token\""
}

/// The non-empty elements of a list, separated by commas outside quoted strings.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let elements = value.split(move |&byte| {
        let separates = byte == b',' && !quoted;
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && quoted && !escaped;
        separates
    });
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// A parameter: its name and its raw value.
type Parameter<'a> = (&'a [u8], &'a [u8]);

/// The scheme of `element`, if it starts a challenge, and its parameter, if it has one.
fn parse(element: &[u8]) -> (Option<&[u8]>, Option<Parameter<'_>>) {
    if let Some(parameter) = parameter(element) {
        return (None, Some(parameter));
    }
    let (scheme, rest) = word(element);
    (Some(scheme), parameter(rest.trim_ascii_start()))
}

fn parameter(text: &[u8]) -> Option<Parameter<'_>> {
    let (name, rest) = word(text);
    Some((name, rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii()))
}

/// The `token` (RFC 9110, 5.6.2) at the start of `text`, which may be empty, and the rest.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    text.split_at(text.iter().position(|byte| !is_tchar(byte)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::WWW_AUTHENTICATE, value.parse().unwrap())).collect()
    }

    #[track_caller]
    fn check(values: &[&str], expected: ChallengeError) {
        assert_eq!(bearer_error(&fields(values)), expected, "{values:?}");
    }

    #[test]
    fn an_invalid_token_is_found_in_every_form_of_a_challenge() {
        for value in [
            r#"Bearer error="invalid_token""#,
            "Bearer error=invalid_token",
            r#"bEARER ERROR="invalid_token""#,
            r#"Bearer   error = "invalid_token" "#,
            r#"Bearer realm="a, b", error="invalid_token", error_description="The token expired""#,
            r#"Bearer realm="a\", Basic \\", error="invalid_token""#,
            r#"Bearer realm=example ,, error=invalid_token"#,
            "Bearer realm=\"x\",\terror=\"invalid_token\"",
            r#"Basic realm="b", Bearer error="invalid_token""#,
            r#"Bearer error="invalid_token", Basic realm="b", error="other""#,
            r#"Negotiate, Bearer realm="x", error="invalid_token""#,
            r#"NTLM YWJj==, Bearer error="invalid_token""#,
            r#"Bearer, error="invalid_token""#,
        ] {
            check(&[value], ChallengeError::InvalidToken);
            check(&[r#"Basic realm="b""#, value], ChallengeError::InvalidToken);
            check(&[value, value, "Digest nonce=x"], ChallengeError::InvalidToken);
        }
    }

    #[test]
    fn another_error_is_distinguished() {
        for value in [
            r#"Bearer error="insufficient_scope""#,
            r#"Bearer error="invalid_request", error_description="error=invalid_token""#,
            r#"Bearer error="INVALID_TOKEN""#,
            r#"Bearer error="invalid_token "#,
            r#"Bearer error="invalid_token" realm="x""#,
            r#"Bearer error="invalid\_token""#,
            "Bearer error=",
            r#"Bearer error="invalid_token", error="invalid_request""#,
            r#"Bearer error="invalid_token", Bearer error="invalid_request""#,
        ] {
            check(&[value], ChallengeError::Other);
            check(&[r#"Bearer error="invalid_token""#, value], ChallengeError::Other);
        }
    }

    #[test]
    fn lookalikes_are_not_bearer_errors() {
        for value in [
            "",
            ",",
            "=",
            "\"",
            "Bearer",
            r#"Bearer realm="x""#,
            r#"Bearer realm="error=\"invalid_token\"""#,
            r#"Bearer realm="x\", error="invalid_token""#,
            r#"Bearer error_description="invalid_token""#,
            r#"error="invalid_token""#,
            r#"Basic realm="x", error="invalid_token""#,
            r#"DPoP error="invalid_token""#,
            r#"BearerX error="invalid_token""#,
            r#"Basic realm="Bearer error=invalid_token""#,
            r#"Basic realm="\", Bearer error=\"invalid_token\"""#,
            r#"Bearer, Basic error="invalid_token""#,
        ] {
            check(&[value], ChallengeError::Absent);
        }
        check(&["Bearer", r#"error="invalid_token""#], ChallengeError::Absent);
        check(&[], ChallengeError::Absent);
    }

    proptest! {
        #[test]
        fn arbitrary_fields_do_not_panic(value in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                bearer_error(&HeaderMap::from_iter([(header::WWW_AUTHENTICATE, value)]));
            }
        }

        #[test]
        fn quoted_text_never_counts(text in "[ -~]{0,40}") {
            let quoted = text.replace('\\', r"\\").replace('"', "\\\"");
            check(&[&format!(r#"Basic realm="{quoted}""#)], ChallengeError::Absent);
            check(&[&format!(r#"Bearer realm="{quoted}", error="invalid_token""#)], ChallengeError::InvalidToken);
        }
    }
}
