//! The id that ties a caller's request to its log line: the caller's own `X-Request-Id`, or a new one.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderName, HeaderValue};

/// The header that carries the id, in requests and in answers.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id taken from a caller; a UUID has 36 characters.
const MAX_LENGTH: usize = 64;

/// Tells the ids of this process from those of another.
static PREFIX: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The caller's id, when it consists of at most 64 letters, digits, dots, underscores and hyphens, or else a new one.
pub(super) fn choose(proposed: Option<&HeaderValue>) -> HeaderValue {
    match proposed {
        Some(id) if is_proper(id.as_bytes()) => id.clone(),
        _ => {
            let id = format!("{:016x}-{:x}", *PREFIX, COUNTER.fetch_add(1, Ordering::Relaxed));
            HeaderValue::from_maybe_shared(id.into_bytes()).expect("hexadecimal digits are legal in a header")
        }
    }
}

fn is_proper(id: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(proposed: &[u8]) -> HeaderValue {
        choose(Some(&HeaderValue::from_bytes(proposed).unwrap()))
    }

    #[test]
    fn d13_a_proper_id_is_kept_and_any_other_replaced() {
        for proper in ["a", "7b1f2c9e-0000-4000-8000-123456789abc", &"x".repeat(64)] {
            assert_eq!(chosen(proper.as_bytes()), proper);
        }
        for other in [&b""[..], b"a b", b"%0d%0aX: y", b"\"", b"\xff", &[b'x'; 300]] {
            assert!(is_proper(chosen(other).as_bytes()) && chosen(other) != HeaderValue::from_bytes(other).unwrap());
        }
    }

    #[test]
    fn new_ids_differ() {
        assert_ne!(choose(None), choose(None));
    }
}
