//! The encodings in which a secret is looked for, apart from escapes.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// An encoded secret, which is overwritten when it is dropped.
type Form = Zeroizing<Vec<u8>>;

/// A secret in all of its encodings, which are overwritten when it is dropped.
pub(super) struct SecretForms(Vec<Form>);

impl SecretForms {
    /// `secret` in all of its encodings.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(encodings(secret))
    }

    /// The secret as it is.
    pub(super) fn secret(&self) -> &[u8] {
        &self.0[0]
    }

    pub(super) fn encodings(&self) -> &[Form] {
        &self.0
    }
}

/// `secret` as it is, with the spaces of a form (`+`), in hexadecimal, as decimal numbers, and inside base64.
fn encodings(secret: &[u8]) -> Vec<Form> {
    let lower = hexadecimal(secret);
    let mut upper = lower.clone();
    upper.make_ascii_uppercase();
    let mut encodings = vec![plain(secret), lower, upper];
    encodings.push(decimal(secret));
    encodings.extend(base64(secret));
    // RFC 6749, 2.3.1: what goes into `Authorization: Basic` is form-encoded first.
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

/// As `{:?}` shows bytes.
fn decimal(secret: &[u8]) -> Form {
    // Never moved while it grows, which would leave copies behind: `255, ` is the longest.
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

/// The characters of base64 and base64url that depend only on the secret, for each of its three offsets in a group of three bytes.
fn base64(secret: &[u8]) -> Vec<Form> {
    let mut forms = Vec::with_capacity(6);
    for offset in 0..3 {
        let mut shifted = Zeroizing::new(Vec::with_capacity(offset + secret.len()));
        shifted.resize(offset, 0);
        shifted.extend_from_slice(secret);
        let mut encoded = Zeroizing::new(String::with_capacity(4 * shifted.len().div_ceil(3)));
        BASE64_STANDARD_NO_PAD.encode_string(&*shifted, &mut encoded);
        // At its start a character has bits of what stands before: one of two characters, or two of three. At its end one has
        // bits of what follows, but where the group is full.
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
