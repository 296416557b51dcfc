//! Decides which configuration values a message can repeat.
//!
//! An operator may have put a secret where another value belongs. Issued credentials are longer than a word, or mix letters, digits and
//! symbols. Only values that do neither are shown.

/// The maximum length of a word or number. The vendor's ids, secrets and keys have at least 20 characters, admin tokens at least 16.
const MAX_SHORT_BYTES: usize = 11;

/// The maximum length of an address that is shown.
const MAX_ADDRESS_BYTES: usize = 100;

/// Whether `text` cannot be a credential, so that a message can repeat it: a word, a number with or without a unit, or a host address, in
/// printable ASCII.
pub fn is_plain(text: &str) -> bool {
    let has_plain_characters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .,:/_-[]*".contains(&byte));
    let is_address = text.len() <= MAX_ADDRESS_BYTES
        && text.contains(['.', ':'])
        && !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b' ');
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    has_plain_characters && (text.len() <= MAX_SHORT_BYTES || is_address) && words.all(is_word_or_number)
}

/// Whether `text` is a word of limited length, or a small number with an optional unit.
fn is_word_or_number(text: &str) -> bool {
    let letters = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.len() - letters.len();
    let max_letters = if digits == 0 { 20 } else { 3 };
    digits <= MAX_SHORT_BYTES && letters.len() <= max_letters && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_addresses_are_plain_credentials_not() {
        for text in [
            "many",
            "TRUE",
            "-1",
            "30",
            "30sec",
            "1.5h",
            "5 minutes",
            "warn ing",
            "localhost:3464",
            "0.0.0.0:80",
            "[::1]:3464",
            "api.finicity.com",
            "http://api.finicity.com",
            "https://api.finicity.com/aggregation",
            "unix:run/p.sock",
            "state",
        ] {
            assert!(is_plain(text), "{text}");
        }
        for text in [
            "hunter2",
            "p4ss-word",
            "canary-client-4f1d",
            "canary-Secret+9b/2=e!",
            "private+value/of-this/key+9b=e!",
            "a-private-value-of-the-state-file",
            "correct horse battery",
            "aA3gh5kl.b8sd.9xk2",
            "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
            "https://user:password@host",
            "0123456789abcdef0123",
            "12345678901234567890",
            "abcdefghijklmnopqrstuvwxyz.example",
            "a\nb",
            "\u{e9}t\u{e9}",
        ] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
