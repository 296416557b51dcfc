//! The tables of the vendor's error codes: the authentication fault that a code reports, and the sentences that are equivalent to a code.

/// A fault in the authentication of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFault {
    /// The App Key, or the credentials of a token request, are wrong.
    Credentials,
    /// The token is invalid or has expired; a new one fixes this.
    Token,
    /// The request lacks a token or an App Key.
    Missing,
}

/// The codes about authentication, with any response status: the vendor's, and those of OAuth (RFC 6749, 5.2).
const AUTH_FAULTS: [(&str, AuthFault); 14] = [
    // The account is locked, or the credentials are wrong.
    ("24302", AuthFault::Credentials),
    // A token request with wrong credentials, without authorization, or for an unknown partner.
    ("10001", AuthFault::Credentials),
    ("10021", AuthFault::Credentials),
    ("12401", AuthFault::Credentials),
    // No App Key, or a wrong one.
    ("10026", AuthFault::Credentials),
    ("10027", AuthFault::Credentials),
    ("invalid_client", AuthFault::Credentials),
    ("unauthorized_client", AuthFault::Credentials),
    ("invalid_grant", AuthFault::Credentials),
    ("10022", AuthFault::Token),
    ("10023", AuthFault::Token),
    // The deprecated API (OBWMS): an expired token.
    ("1503", AuthFault::Token),
    // No token; for the deprecated API, no App Key.
    ("10024", AuthFault::Missing),
    ("1504", AuthFault::Missing),
];

/// The other OAuth errors, listed so that logs may name them.
const OTHER_WORDS: [&str; 4] =
    ["invalid_request", "unsupported_grant_type", "invalid_scope", "temporarily_unavailable"];

/// The vendor's plain-text response to a wrong App Key.
pub const INVALID_APP_KEY: &str = "Invalid (Finicity-App-Key)";

/// The vendor's plain-text responses, each a complete body, and the equivalent codes.
const SENTENCES: [(&str, &str); 6] = [
    ("Invalid (Finicity-App-Token)", "10022"),
    ("Invalid (App-Token)", "10022"),
    ("Expired (Finicity-App-Token)", "10023"),
    ("Expired (App-Token)", "10023"),
    (INVALID_APP_KEY, "10027"),
    ("Invalid (App-Key)", "10027"),
];

impl AuthFault {
    /// The fault that `code` reports, if it is about authentication. Words must be in lower case, as [`super::read`] returns them.
    pub fn of(code: &str) -> Option<Self> {
        AUTH_FAULTS.iter().find(|(known, _)| *known == code).map(|(_, fault)| *fault)
    }
}

/// Whether `code` says that the App Key or the credentials of a token request are wrong.
pub fn rejects_credentials(code: &str) -> bool {
    AuthFault::of(code) == Some(AuthFault::Credentials)
}

/// The known code, such as an OAuth error, that equals `text` case-insensitively.
pub(super) fn known_word(text: &str) -> Option<&'static str> {
    let known = AUTH_FAULTS.iter().map(|(code, _)| *code).chain(OTHER_WORDS);
    known.into_iter().find(|word| word.eq_ignore_ascii_case(text))
}

/// The code that is equivalent to the plain-text body `sentence`.
pub(super) fn code_of_sentence(sentence: &str) -> Option<&'static str> {
    SENTENCES.iter().find(|(known, _)| *known == sentence).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_meaning() {
        for (at, (code, _)) in AUTH_FAULTS.iter().enumerate() {
            let others = AUTH_FAULTS[at + 1..].iter().map(|(code, _)| code).chain(&OTHER_WORDS);
            assert!(!others.into_iter().any(|other| other == code), "{code}");
        }
    }

    #[test]
    fn each_sentence_stands_for_a_code_about_authentication() {
        for (sentence, code) in SENTENCES {
            let expected = if sentence.contains("Token") { AuthFault::Token } else { AuthFault::Credentials };
            assert_eq!(AuthFault::of(code), Some(expected), "{sentence}");
        }
    }
}
