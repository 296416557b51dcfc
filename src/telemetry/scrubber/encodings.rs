//! The forms that a secret may leave in, apart from those that differ by escapes only.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// Bytes that are overwritten when they are no longer used.
type Form = Zeroizing<Vec<u8>>;

/// A secret in all of its forms, which are overwritten with it.
pub(super) struct Watched(Vec<Form>);

impl Watched {
    /// `secret` in all of its forms.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(forms(secret))
    }

    /// The secret itself.
    pub(super) fn secret(&self) -> &[u8] {
        &self.0[0]
    }

    pub(super) fn forms(&self) -> &[Form] {
        &self.0
    }
}

/// What `secret` looks like as it is, in a form's spelling of spaces, in hexadecimal, as decimal numbers, and inside of base64.
fn forms(secret: &[u8]) -> Vec<Form> {
    let lower = hexadecimal(secret);
    let mut upper = lower.clone();
    upper.make_ascii_uppercase();
    let mut forms = vec![plain(secret), lower, upper];
    forms.push(decimal(secret));
    forms.extend(base64(secret));
    // RFC 6749, 2.3.1: what goes into `Authorization: Basic` is form-encoded first.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * secret.len()));
    encoded.extend(form_urlencoded::byte_serialize(secret));
    if encoded.as_bytes() != secret {
        forms.extend(base64(encoded.as_bytes()));
    }
    if secret.contains(&b' ') {
        forms.push(Zeroizing::new(secret.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect()));
    }
    forms
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
    for (place, byte) in secret.iter().enumerate() {
        if place > 0 {
            form.extend_from_slice(b", ");
        }
        let digits = [byte / 100, byte / 10 % 10, byte % 10];
        let zeros = digits.iter().take_while(|digit| **digit == 0).count().min(2);
        form.extend(digits[zeros..].iter().map(|digit| b'0' + digit));
    }
    form
}

/// The characters of base64 and base64url that depend on nothing but the secret, for each of the three places that it can have
/// in a group of three bytes.
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
