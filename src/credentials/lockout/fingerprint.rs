//! Keyed hashes: enough to know credentials again, and nothing to guess them by without the key.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::secret::Secret;

/// The length of key and hash: the output of SHA-256, which is also what RFC 2104 (section 3) recommends for the key.
const LEN: usize = 32;

/// What one token call would be made with, as keyed hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of everything.
    pub(super) whole: Hash,
    /// Of scheme, host and id: of that which the vendor locks.
    pub(super) id: Hash,
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fingerprint").field(&self.whole).finish()
    }
}

/// A keyed hash. `Debug` shows as much of it as tells two of them apart.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hash([u8; LEN]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hex(&hash.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unhex(&text).map(Self).ok_or("not a hash")
    }
}

/// The key of all hashes in one state directory. Without it, who finds a hash elsewhere, say in a log, can check no guess.
#[derive(Debug)]
pub(super) struct Key(Secret<[u8; LEN]>);

impl Key {
    /// A new key.
    pub(super) fn generate() -> Result<Self, Failure> {
        let mut bytes = Zeroizing::new([0; LEN]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| Failure::Randomness)?;
        Ok(Self(Secret::new(*bytes)))
    }

    /// The key that `text` spells.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(|bytes| Self(Secret::new(bytes)))
    }

    /// The key's spelling, for the state file and for nothing else.
    pub(super) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(self.0.expose()))
    }

    /// Identifies the key without giving anything of it away.
    pub(super) fn id(&self) -> Hash {
        self.hash(&[b"key"])
    }

    /// Whether hashes by `other` can be compared with hashes by this key.
    pub(super) fn is(&self, other: &Self) -> bool {
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
            whole: self.hash(&[b"credentials", scheme, host, id, secret.expose().as_bytes(), app_key]),
            id: self.hash(&[b"account", scheme, host, id]),
        }
    }

    /// The hash of `parts`, each after its length, so that what ends one part cannot begin the next.
    fn hash(&self, parts: &[&[u8]]) -> Hash {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; LEN];
        hash.copy_from_slice(context.sign().as_ref());
        Hash(hash)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Room for all of it, so that no part of a key stays behind in a buffer that was outgrown.
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(
        bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])),
    );
    text
}

fn unhex(text: &str) -> Option<[u8; LEN]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; LEN];
    if text.len() != 2 * LEN {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
