//! Keyed hashes: they identify credentials, and without the key they cannot be used to check guesses.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::state_error::StateError;
use crate::secret::Secret;

/// The length of key and hash: the output length of SHA-256, which RFC 2104 (section 3) recommends for the key as well.
const HASH_BYTES: usize = 32;

/// The inputs of a token request, as keyed hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Over all inputs.
    pub(super) credentials: Hash,
    /// Over scheme, host and id, which identify the account that the vendor locks.
    pub(super) account: Hash,
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fingerprint").field(&self.credentials).finish()
    }
}

/// The first digits of the credentials' hash. They distinguish sets of credentials within one state directory only.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.credentials)
    }
}

/// A keyed hash. `Debug` shows eight digits, enough to distinguish two hashes.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hash([u8; HASH_BYTES]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0[..4]))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        encode_hex(&hash.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        decode_hex(&text).map(|bytes| Self(*bytes)).ok_or("not a hash")
    }
}

/// The key of all hashes in one state directory. Without it, a hash that leaks, for example in a log, cannot be used to check guesses.
#[derive(Debug)]
pub(super) struct Key(Secret<[u8; HASH_BYTES]>);

impl Key {
    /// A new key.
    pub(super) fn generate() -> Result<Self, StateError> {
        let mut bytes = Zeroizing::new([0; HASH_BYTES]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| StateError::Randomness)?;
        Ok(Self(Secret::new(*bytes)))
    }

    /// Parses a key from hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text).map(|bytes| Self(Secret::new(*bytes)))
    }

    /// The key in hexadecimal digits, for the state file only.
    pub(super) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_hex(self.0.expose()))
    }

    /// Identifies the key without revealing it.
    pub(super) fn id(&self) -> Hash {
        self.hash(&[b"key"])
    }

    /// Whether hashes by `other` can be compared with hashes by this key.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }

    /// See [`super::Lockout::fingerprint`].
    pub(super) fn fingerprint(
        &self,
        scheme: &str,
        host: &str,
        id: &Secret<String>,
        secret: &Secret<String>,
        app_key: &[u8],
    ) -> Fingerprint {
        // Host names are case-insensitive: another spelling must not look like another account.
        let host = host.to_ascii_lowercase();
        let account = [scheme.as_bytes(), host.as_bytes(), id.expose().as_bytes()];
        let [scheme, host, id] = account;
        Fingerprint {
            credentials: self.hash(&[b"credentials", scheme, host, id, secret.expose().as_bytes(), app_key]),
            account: self.hash(&[b"account", scheme, host, id]),
        }
    }

    /// The hash of `parts`, each prefixed by its length, so that the boundaries between them are unambiguous.
    fn hash(&self, parts: &[&[u8]]) -> Hash {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.sign().as_ref());
        Hash(hash)
    }
}

/// The hexadecimal digits of `bytes`, in a buffer that is never reallocated, so that no copy of a key is left in memory.
fn encode_hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; base16ct::encoded_len(bytes)];
    base16ct::lower::encode(bytes, &mut digits).expect("there is room for all digits");
    String::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

/// The bytes in the hexadecimal `text`, if they have the length of a key or a hash.
fn decode_hex(text: &str) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
    let mut bytes = Zeroizing::new([0; HASH_BYTES]);
    let length = base16ct::mixed::decode(text, bytes.as_mut_slice()).ok()?.len();
    (length == HASH_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parsed_in_either_case_and_only_at_its_length() {
        let key = Key::generate().unwrap();
        let text = key.to_hex();
        assert_eq!((text.len(), text.to_ascii_lowercase()), (2 * HASH_BYTES, text.to_string()));
        assert!(Key::from_hex(&text).unwrap().is_same(&key));
        assert!(Key::from_hex(&text.to_ascii_uppercase()).unwrap().is_same(&key));
        let (short, long, odd) = (&text[2..], format!("{}00", *text), &text[1..]);
        let other = [
            text[1..].to_owned() + "g",
            text[1..].to_owned() + " ",
            text[1..].to_owned() + "/",
            "é".repeat(HASH_BYTES),
        ];
        for wrong in ["", short, &long, odd].into_iter().chain(other.iter().map(String::as_str)) {
            assert!(Key::from_hex(wrong).is_none(), "{wrong:?}");
        }
    }
}
