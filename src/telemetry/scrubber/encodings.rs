//! The encodings of a secret to search for, except escapes.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// An encoded secret. Overwritten when dropped.
type Form = Zeroizing<Vec<u8>>;

/// A secret in all its encodings. Overwritten when dropped.
pub(super) struct SecretForms(Vec<Form>);

impl SecretForms {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(encodings(secret))
    }

    /// The secret without encoding.
    pub(super) fn secret(&self) -> &[u8] {
        &self.0[0]
    }

    pub(super) fn encodings(&self) -> &[Form] {
        &self.0
    }
}

/// `secret` as is, with spaces encoded as `+`, in hexadecimal, as decimal numbers, and within base64.
fn encodings(secret: &[u8]) -> Vec<Form> {
    let lower = hexadecimal(secret);
    let mut upper = lower.clone();
    upper.make_ascii_uppercase();
    let mut encodings = vec![plain(secret), lower, upper];
    encodings.push(decimal(secret));
    encodings.extend(base64(secret));
    // RFC 6749, 2.3.1: credentials in `Authorization: Basic` are form-encoded before base64.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * secret.len()));
    encoded.extend(form_urlencoded::byte_serialize(secret));
    if encoded.as_bytes() != secret {
        encodings.extend(base64(encoded.as_bytes()));
    }
    if secret.contains(&b' ') {
        encodings.push(Zeroizing::new(secret.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect()));
    }
    encodings
}

fn plain(secret: &[u8]) -> Form {
    Zeroizing::new(secret.to_vec())
}

fn hexadecimal(secret: &[u8]) -> Form {
    let mut form = Zeroizing::new(vec![0; base16ct::encoded_len(secret)]);
    base16ct::lower::encode(secret, &mut form).expect("there is room for all digits");
    form
}

/// The format of bytes in `{:?}`.
fn decimal(secret: &[u8]) -> Form {
    // Enough capacity (`255, ` is the longest item) to avoid a reallocation, which would leave copies in memory.
    let mut form = Zeroizing::new(Vec::with_capacity(5 * secret.len()));
    for (index, byte) in secret.iter().enumerate() {
        if index > 0 {
            form.extend_from_slice(b", ");
        }
        let digits = [byte / 100, byte / 10 % 10, byte % 10];
        let zeros = digits.iter().take_while(|digit| **digit == 0).count().min(2);
        form.extend(digits[zeros..].iter().map(|digit| b'0' + digit));
    }
    form
}

/// For each of the three offsets in a group of three bytes, the characters of base64 and base64url that depend only on the secret.
fn base64(secret: &[u8]) -> Vec<Form> {
    let mut forms = Vec::with_capacity(6);
    for offset in 0..3 {
        let mut shifted = Zeroizing::new(Vec::with_capacity(offset + secret.len()));
        shifted.resize(offset, 0);
        shifted.extend_from_slice(secret);
        let mut encoded = Zeroizing::new(String::with_capacity(4 * shifted.len().div_ceil(3)));
        BASE64_STANDARD_NO_PAD.encode_string(&*shifted, &mut encoded);
        // Drop the first characters if they contain bits of the preceding bytes (2 characters for an offset of 1, 3 for 2), and the last one
        // if it contains bits of the following byte (unless the group is full).
        let first = [0, 2, 3][offset];
        let last = encoded.len() - usize::from(shifted.len() % 3 != 0);
        let standard = Zeroizing::new(encoded.as_bytes()[first..last].to_vec());
        if standard.iter().any(|byte| b"+/".contains(byte)) {
            let url = |byte: &u8| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            };
            forms.push(Zeroizing::new(standard.iter().map(url).collect()));
        }
        forms.push(standard);
    }
    forms
}
