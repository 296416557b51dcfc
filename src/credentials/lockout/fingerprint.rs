//! Keyed hashes: enough to know credentials again, and nothing to guess them by without the key.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::state_error::StateError;
use crate::secret::Secret;

/// The length of key and hash: the output of SHA-256, which is also what RFC 2104 (section 3) recommends for the key.
const HASH_BYTES: usize = 32;

/// What one token call would be made with, as keyed hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of everything.
    pub(super) credentials: Hash,
    /// Of scheme, host and id: of that which the vendor locks.
    pub(super) account: Hash,
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fingerprint").field(&self.credentials).finish()
    }
}

/// The first digits of the credentials' hash: they tell two sets of credentials apart within one state directory, and nowhere else.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.credentials)
    }
}

/// A keyed hash. `Debug` shows as much of it as tells two of them apart.
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

/// The key of all hashes in one state directory. Without it, who finds a hash elsewhere, say in a log, can check no guess.
#[derive(Debug)]
pub(super) struct Key(Secret<[u8; HASH_BYTES]>);

impl Key {
    /// A new key.
    pub(super) fn generate() -> Result<Self, StateError> {
        let mut bytes = Zeroizing::new([0; HASH_BYTES]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| StateError::Randomness)?;
        Ok(Self(Secret::new(*bytes)))
    }

    /// The key that `text` spells.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        decode_hex(text).map(|bytes| Self(Secret::new(*bytes)))
    }

    /// The key's spelling, for the state file and for nothing else.
    pub(super) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_hex(self.0.expose()))
    }

    /// Identifies the key without giving anything of it away.
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
        // Host names know no case: another spelling of one must not look like another account.
        let host = host.to_ascii_lowercase();
        let account = [scheme.as_bytes(), host.as_bytes(), id.expose().as_bytes()];
        let [scheme, host, id] = account;
        Fingerprint {
            credentials: self.hash(&[b"credentials", scheme, host, id, secret.expose().as_bytes(), app_key]),
            account: self.hash(&[b"account", scheme, host, id]),
        }
    }

    /// The hash of `parts`, each after its length, so that what ends one part cannot begin the next.
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

/// The hexadecimal digits of `bytes`, in a buffer that is never moved, so that it leaves no part of a key behind.
fn encode_hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; base16ct::encoded_len(bytes)];
    base16ct::lower::encode(bytes, &mut digits).expect("there is room for all digits");
    String::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

/// The bytes that `text` spells, where they have the length of a key or a hash.
fn decode_hex(text: &str) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
    let mut bytes = Zeroizing::new([0; HASH_BYTES]);
    let length = base16ct::mixed::decode(text, bytes.as_mut_slice()).ok()?.len();
    (length == HASH_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_either_case_and_at_its_length_only() {
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
