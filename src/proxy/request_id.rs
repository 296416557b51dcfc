//! The request id, which correlates a request with its log line: the caller's `X-Request-Id`, or a generated one.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderName, HeaderValue};

/// The header field of the request id, in requests and responses.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a caller's id; a UUID has 36 characters.
const MAX_LENGTH: usize = 64;

/// Distinguishes the ids of this process from those of other processes.
static PREFIX: LazyLock<[u8; 17]> =
    LazyLock::new(|| format!("{:016x}-", fastrand::u64(..)).into_bytes().try_into().expect("17 digits and hyphens"));
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The caller's id if it has 1 to 64 characters, all letters, digits, dots, underscores or hyphens; or else a generated one.
pub(super) fn choose(proposed: Option<&HeaderValue>) -> HeaderValue {
    match proposed {
        Some(id) if is_valid(id.as_bytes()) => id.clone(),
        _ => format_id(COUNTER.fetch_add(1, Ordering::Relaxed)),
    }
}

/// The id with this number. Written by hand, because `format!` on every request would cost as much as a layer.
fn format_id(number: u64) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let length = number.checked_ilog(16).map_or(1, |log| log as usize + 1);
    let mut id = [0; 17 + 16];
    id[..17].copy_from_slice(&*PREFIX);
    for (index, digit) in id[17..17 + length].iter_mut().rev().enumerate() {
        *digit = DIGITS[(number >> (4 * index)) as usize % 16];
    }
    HeaderValue::from_bytes(&id[..17 + length]).expect("hexadecimal digits are legal in a header")
}

fn is_valid(id: &[u8]) -> bool {
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
    fn d13_a_valid_request_id_is_kept_and_any_other_replaced() {
        for valid in ["a", "7b1f2c9e-0000-4000-8000-123456789abc", &"x".repeat(64)] {
            assert_eq!(chosen(valid.as_bytes()), valid);
        }
        for other in [&b""[..], b"a b", b"%0d%0aX: y", b"\"", b"\xff", &[b'x'; 300]] {
            assert!(is_valid(chosen(other).as_bytes()) && chosen(other) != HeaderValue::from_bytes(other).unwrap());
        }
    }

    #[test]
    fn generated_ids_are_numbered_and_unique() {
        assert_ne!(choose(None), choose(None));
        let prefix = str::from_utf8(&*PREFIX).unwrap();
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(format_id(number), format!("{prefix}{number:x}"));
        }
    }
}
