//! Recognises plain lines of a head: an ASCII-only subset of the lines that hyper reads. Nearly all requests have only plain lines, and
//! recognising them costs less than parsing them a second time.

/// The end of a plain request line.
const VERSION: &[u8] = b" HTTP/1.1";

/// A byte of a method or of a field name (RFC 9110, 5.6.2).
const TOKEN: u8 = 1;

/// A byte that hyper reads in any part of a target. `#` is excluded, because hyper drops fragments.
const TARGET: u8 = 2;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        let is_token = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        let is_target = !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
        classes[byte as usize] = if is_token { TOKEN } else { 0 } | if is_target { TARGET } else { 0 };
        byte += 1;
    }
    classes
}

/// Whether all `bytes` are of `class`.
fn are_all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |common, byte| common & CLASSES[usize::from(*byte)]) == class
}

/// The length of the target in a request line, given without its line end. `None` unless the line is plain: a method, a path with an
/// optional query, and `HTTP/1.1`.
pub(super) fn plain_target_len(line: &[u8]) -> Option<usize> {
    let rest = line.strip_suffix(VERSION)?;
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let (method, target) = (&rest[..space], &rest[space + 1..]);
    let is_plain =
        !method.is_empty() && target.first() == Some(&b'/') && are_all(method, TOKEN) && are_all(target, TARGET);
    is_plain.then_some(target.len())
}

/// Whether a field line, given without its line end, is plain: a name, a colon, and a value of printable ASCII characters and spaces.
pub(super) fn is_plain_field(line: &[u8]) -> bool {
    let name_end = line.iter().position(|byte| CLASSES[usize::from(*byte)] & TOKEN == 0);
    name_end.is_some_and(|end| end > 0 && line[end] == b':' && are_printable(&line[end + 1..]))
}

/// Whether all `bytes` are printable ASCII characters or spaces.
fn are_printable(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    // Sets the highest bit of each byte that is not printable. Sums of printable bytes do not carry into the next byte.
    let find = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word | !word.wrapping_add(0x60 * ONES) | word.wrapping_add(ONES)
    };
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    };
    let (words, _) = bytes.as_chunks();
    words.iter().fold(find(last), |found, word| found | find(word)) & (0x80 * ONES) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_bytes_are_found_wherever_they_are() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    assert_eq!(are_printable(&bytes), matches!(byte, b' '..=b'~'), "{byte} at {at} of {length}");
                    // The neighbours of a byte do not affect its result.
                    let neighbours = [b'~', byte, b' ', byte, 0x7e, b'~', b'~', b'~'];
                    assert_eq!(are_printable(&neighbours), matches!(byte, b' '..=b'~'));
                }
            }
        }
    }

    #[test]
    fn ordinary_lines_are_plain() {
        for (line, target_len) in [
            ("GET / HTTP/1.1", Some(1)),
            ("M-SEARCH /a/b;c?d=e&f=%20{|}^[]'()* HTTP/1.1", Some(26)),
            ("GET /a\"b HTTP/1.1", None),
            ("GET /a#b HTTP/1.1", None),
            ("GET /\u{e9} HTTP/1.1", None),
            ("GET /a b HTTP/1.1", None),
            ("GET  HTTP/1.1", None),
            ("GET * HTTP/1.1", None),
            (" / HTTP/1.1", None),
            ("GET / HTTP/1.0", None),
            ("GET / HTTP/1.1 ", None),
        ] {
            assert_eq!(plain_target_len(line.as_bytes()), target_len, "{line}");
        }
        for (line, is_plain) in [
            ("Host: localhost:80", true),
            ("X_a:", true),
            ("X-A:   ", true),
            ("X-A : b", false),
            ("X-A", false),
            (": b", false),
            (" X-A: b", false),
            ("X-A: b\tc", false),
            ("X-A: b\rc", false),
            ("X-A: \u{e9}", false),
        ] {
            assert_eq!(is_plain_field(line.as_bytes()), is_plain, "{line}");
        }
    }
}
