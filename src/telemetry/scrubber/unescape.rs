//! Decodes escapes, and tracks the original position of each byte.

use std::ops::Range;

use zeroize::Zeroizing;

/// A decoded text. For each byte, and for the end, it holds the position in the original text.
pub(super) struct Unescaped {
    text: Zeroizing<Vec<u8>>,
    origins: Vec<usize>,
}

impl Unescaped {
    /// `text` without decoding.
    pub(super) fn verbatim(text: &[u8]) -> Self {
        Self { text: Zeroizing::new(text.to_vec()), origins: (0..=text.len()).collect() }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The range of the original text from which `range` was decoded.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        self.origins[range.start]..self.origins[range.end]
    }

    /// Decodes every percent-encoded byte. `None` if there is none.
    pub(super) fn percent_decoded(&self) -> Option<Self> {
        self.decode(b'%', |rest, plain| {
            let byte = hexadecimal(rest.get(1..3)?)?;
            plain.push(u8::try_from(byte).ok()?);
            Some(3)
        })
    }

    /// Decodes every escape of JSON (RFC 8259, 7) and of Rust's `{:?}`. `None` if there is none.
    pub(super) fn backslash_decoded(&self) -> Option<Self> {
        self.decode(b'\\', |rest, plain| {
            let simple = match rest.get(1)? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'f' => 12,
                b'0' => 0,
                quoted @ (b'"' | b'\'' | b'\\' | b'/') => *quoted,
                b'x' => {
                    plain.push(u8::try_from(hexadecimal(rest.get(2..4)?)?).ok()?);
                    return Some(4);
                }
                b'u' => {
                    let (character, length) = unicode(rest)?;
                    plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    return Some(length);
                }
                _ => return None,
            };
            plain.push(simple);
            Some(2)
        })
    }

    /// Decodes the escapes that begin with `mark`. `decode_one` receives the text from a mark on, appends the decoded bytes to its second
    /// argument, and returns the length of the escape, or `None` if it is not an escape.
    fn decode(&self, mark: u8, decode_one: impl Fn(&[u8], &mut Vec<u8>) -> Option<usize>) -> Option<Self> {
        let mut at = memchr::memchr(mark, &self.text)?;
        // Decoding never makes the text longer, so the buffer is never reallocated, which would leave a copy of a secret in memory.
        let mut text = Zeroizing::new(Vec::with_capacity(self.text.len()));
        let mut origins = Vec::with_capacity(self.origins.len());
        text.extend_from_slice(&self.text[..at]);
        origins.extend_from_slice(&self.origins[..at]);
        while at < self.text.len() {
            let length = if self.text[at] == mark { decode_one(&self.text[at..], &mut text) } else { None };
            if length.is_none() {
                text.push(self.text[at]);
            }
            origins.resize(text.len(), self.origins[at]);
            at += length.unwrap_or(1);
        }
        origins.push(self.origins[at]);
        (text.len() < self.text.len()).then_some(Self { text, origins })
    }
}

/// Decodes `\u0041`, a surrogate pair of these, or `\u{41}`. Returns the character and the length of the escape.
fn unicode(escape: &[u8]) -> Option<(char, usize)> {
    if escape.get(2) == Some(&b'{') {
        let digits = escape[3..].iter().take(7).position(|byte| *byte == b'}').filter(|digits| *digits > 0)?;
        return Some((char::from_u32(hexadecimal(&escape[3..3 + digits])?)?, digits + 4));
    }
    let high = hexadecimal(escape.get(2..6)?)?;
    if !(0xD800..0xDC00).contains(&high) {
        return Some((char::from_u32(high)?, 6));
    }
    let low = hexadecimal(escape.get(6..12)?.strip_prefix(b"\\u")?)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)?, 12))
}

/// Parses hexadecimal `digits`. `None` if one of them is invalid.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}
