//! Verifies webhooks: the vendor signs the raw body with HMAC-SHA256, keyed by the partner secret, and sends the signature as 64 lower-case
//! hexadecimal digits.
//!
//! Only the bytes as received can be verified. A body that was parsed and serialised again has different bytes, and a different signature.
//!
//! Deliberately absent: report and `TxPUSH` notifications. Reports are not signed, and the signature of `TxPUSH` is not documented.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use ring::hmac;
use tokio::time::Instant;

use crate::secret::Secret;

/// How long the previous secret is accepted: the vendor's grace period after a rotation.
pub const PREVIOUS_KEY_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// A signature as received. `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Signature([u8; Self::BYTES]);

impl Signature {
    const BYTES: usize = 32;

    /// Parses the signature in the field `name` of `headers`. `None` unless there is exactly one such field, with exactly 64 lower-case
    /// hexadecimal digits.
    pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let mut bytes = [0; Self::BYTES];
        let decoded = base16ct::lower::decode(value.as_bytes(), &mut bytes).ok()?;
        (decoded.len() == Self::BYTES).then_some(Self(bytes))
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature")
    }
}

/// The secrets that webhooks are signed with.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    current: Option<Secret<String>>,
    /// The secret before a rotation that this process has observed, and when it expires.
    previous: Option<(Secret<String>, Instant)>,
    /// The previous secret in the operator's configuration. It is accepted as long as it is configured.
    given_previous: Option<Secret<String>>,
}

impl SigningKeys {
    /// The `current` secret, and the previous one if the operator configured it.
    pub fn new(current: Option<Secret<String>>, given_previous: Option<Secret<String>>) -> Self {
        Self { current, previous: None, given_previous }
    }

    /// The keys after a rotation to `current` at `now`: the previous one is accepted for [`PREVIOUS_KEY_LIFETIME`]. If `current` has not
    /// changed, neither has the observed previous key or its expiry.
    #[must_use]
    pub fn rotated(
        &self,
        current: Option<Secret<String>>,
        given_previous: Option<Secret<String>>,
        now: Instant,
    ) -> Self {
        let is_same = self.is_current(current.as_ref());
        let replaced = self.current.clone().filter(|_| !is_same);
        let previous = replaced.map(|secret| (secret, now + PREVIOUS_KEY_LIFETIME)).or_else(|| self.previous.clone());
        Self { current, previous, given_previous }
    }

    /// Whether `current` is the secret that new webhooks are signed with.
    pub fn is_current(&self, current: Option<&Secret<String>>) -> bool {
        is_equal(self.current.as_ref(), current)
    }

    /// All secrets, for the scrubber: no output must show them.
    pub fn secrets(&self) -> Vec<Secret<Vec<u8>>> {
        let previous = self.previous.as_ref().map(|(secret, _)| secret);
        let all = [self.current.as_ref(), previous, self.given_previous.as_ref()];
        all.into_iter().flatten().map(|secret| Secret::new(secret.expose().as_bytes().to_vec())).collect()
    }

    /// Begins the verification of a body with the keys accepted at `now`. `None` if there is no key.
    pub fn verifier(&self, now: Instant) -> Option<Verifier> {
        let previous = self.previous.as_ref().filter(|(_, until)| now < *until).map(|(secret, _)| secret);
        let accepted = [self.current.as_ref(), previous, self.given_previous.as_ref()].into_iter().flatten();
        let contexts: Vec<_> = accepted
            .map(|secret| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
                (hmac::Context::with_key(&key), key)
            })
            .collect();
        (!contexts.is_empty()).then_some(Verifier(contexts))
    }
}

fn is_equal(one: Option<&Secret<String>>, other: Option<&Secret<String>>) -> bool {
    one.map(Secret::expose) == other.map(Secret::expose)
}

/// Verifies one body incrementally.
pub struct Verifier(Vec<(hmac::Context, hmac::Key)>);

impl Verifier {
    /// Adds the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|(context, _)| context.update(bytes));
    }

    /// Whether `signature` matches the complete body and one of the keys, in constant time.
    pub fn is_genuine(self, signature: &Signature) -> bool {
        let matches = self.0.into_iter().map(|(context, key)| {
            // Signs both values once more, because `ring` compares only in `verify`, and does so in constant time.
            let expected = context.sign();
            hmac::verify(&key, expected.as_ref(), hmac::sign(&key, &signature.0).as_ref()).is_ok()
        });
        matches.fold(false, |any, matches| any | matches)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// The sample secret in the vendor's API description.
    const KEY: &str = "aqJ5Ic4SEVx2IgDQ6oR4";
    const NAME: HeaderName = HeaderName::from_static("x-finicity-signature");

    const PING: (&[u8], &str) =
        (br#"{"eventType":"ping","payload":{}}"#, "04e3c12fafc2e888688d4ea0481553998fa7104872005b74e5d760862272019a");

    fn keys(current: &str) -> SigningKeys {
        SigningKeys::new(Some(current.into()), None)
    }

    fn is_genuine(keys: &SigningKeys, body: &[u8], signatures: &[&str], now: Instant) -> bool {
        let mut headers = HeaderMap::new();
        for signature in signatures {
            headers.append(NAME, HeaderValue::from_str(signature).unwrap());
        }
        let Some(signature) = Signature::parse(&headers, &NAME) else { return false };
        let Some(mut verifier) = keys.verifier(now) else { return false };
        body.chunks(5).for_each(|chunk| verifier.update(chunk));
        verifier.is_genuine(&signature)
    }

    #[test]
    fn the_test_vectors_are_genuine() {
        for (body, signature) in [
            PING,
            (b"", "7e8a5fcd92186874859dfea6b578b39454fb230529ee577421381f504a0c4171"),
            (
                br#"{"customerId":"12345678","consumerId":"ed81281fcec7ec557aa7d292a3188b75","eventType":"started","eventId":"1495468585434-0e73d1719173766fe4dfe1a8","payload":{},"webhookData":{}}"#,
                "3acd6af862a5bc752123042adc9bf21c284148849e34c6d2dac833392fab3d73",
            ),
            (
                br#"{"customerId":"6030781868","eventType":"adding","eventId":"1688829066253-d10dac58486e33bf419919dc","payload":{"institutionId":"102176","oauth":true}}"#,
                "511893bfe27be18740672a9c73d99cf9984498f6910dbef352e5fa0702b9501a",
            ),
        ] {
            let now = Instant::now();
            assert!(is_genuine(&keys(KEY), body, &[signature], now), "{signature}");
            assert!(!is_genuine(&keys("another-Secret-1!"), body, &[signature], now), "{signature}");
        }
    }

    #[test]
    fn a_signature_is_one_field_of_64_lower_case_digits() {
        let (body, signature) = PING;
        let upper = signature.to_uppercase();
        let spaced = format!(" {signature}");
        let prefixed = format!("sha256={signature}");
        let doubled = signature.repeat(2);
        let listed = format!("{signature},{signature}");
        for signatures in [
            vec![],
            vec![""],
            vec![&upper],
            vec![&signature[..62]],
            vec![&signature[1..]],
            vec![&spaced],
            vec![&prefixed],
            vec![&doubled],
            vec![&listed],
            vec![signature, signature],
            vec![signature, "x"],
        ] {
            assert!(!is_genuine(&keys(KEY), body, &signatures, Instant::now()), "{signatures:?}");
        }
    }

    #[test]
    fn a_reserialised_body_is_not_genuine() {
        let (body, signature) = PING;
        let value: serde_json::Value = serde_json::from_slice(body).unwrap();
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let with_line_break = [body, b"\n"].concat();
        for body in [pretty, with_line_break, br#"{"payload":{},"eventType":"ping"}"#.to_vec()] {
            assert!(!is_genuine(&keys(KEY), &body, &[signature], Instant::now()));
        }
    }

    #[test]
    fn a_flipped_bit_in_body_or_signature_is_not_genuine() {
        let (body, signature) = PING;
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_genuine(&keys(KEY), &flipped, &[signature], Instant::now()), "{bit}");
        }
        let mut bytes = [0; 32];
        base16ct::lower::decode(signature, &mut bytes).unwrap();
        for bit in 0..256 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = format!("{:x}", base16ct::HexDisplay(&flipped));
            assert!(!is_genuine(&keys(KEY), body, &[&flipped], Instant::now()), "{bit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_secret_before_a_rotation_is_accepted_for_thirty_days() {
        let (body, signature) = PING;
        let start = Instant::now();
        let rotated = keys(KEY).rotated(Some("another-Secret-1!".into()), None, start);
        let day = Duration::from_secs(24 * 3600);
        assert!(is_genuine(&rotated, body, &[signature], start + 29 * day));
        assert!(!is_genuine(&rotated, body, &[signature], start + 30 * day));
        assert!(is_genuine(&rotated, body, &[&sign("another-Secret-1!", body)], start + 40 * day));
        // The same secret is not a rotation, and does not extend the time.
        let same = rotated.rotated(Some("another-Secret-1!".into()), None, start + 20 * day);
        assert!(is_genuine(&same, body, &[signature], start + 29 * day));
        assert!(!is_genuine(&same, body, &[signature], start + 30 * day));
        // Only one is remembered.
        let twice = rotated.rotated(Some("a-third-Secret-1!".into()), None, start);
        assert!(!is_genuine(&twice, body, &[signature], start));
        assert!(is_genuine(&twice, body, &[&sign("another-Secret-1!", body)], start));
    }

    #[test]
    fn a_configured_previous_secret_does_not_expire() {
        let (body, signature) = PING;
        let now = Instant::now();
        let given = SigningKeys::new(Some("another-Secret-1!".into()), Some(KEY.into()));
        assert!(is_genuine(&given, body, &[signature], now + 365 * Duration::from_secs(24 * 3600)));
        let rotated = given.rotated(Some("a-third-Secret-1!".into()), None, now);
        assert!(!is_genuine(&rotated, body, &[signature], now));
        assert_eq!((given.secrets().len(), rotated.secrets().len()), (2, 2));
    }

    #[test]
    fn without_a_key_nothing_is_verified() {
        assert!(SigningKeys::default().verifier(Instant::now()).is_none());
    }

    fn sign(key: &str, body: &[u8]) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body);
        format!("{:x}", base16ct::HexDisplay(tag.as_ref()))
    }

    proptest! {
        #[test]
        fn a_signed_body_is_genuine_in_any_pieces(body: Vec<u8>, key in ".{1,100}") {
            prop_assert!(is_genuine(&keys(&key), &body, &[&sign(&key, &body)], Instant::now()));
            prop_assert!(!is_genuine(&keys(&(key.clone() + "x")), &body, &[&sign(&key, &body)], Instant::now()));
        }
    }
}
