//! The first line of a chunk (RFC 9112, 7.1), in requests and responses.

/// The maximum number of digits of a size: 16 hexadecimal digits fill 64 bits. Longer sizes are malformed even with leading zeros.
const MAX_SIZE_DIGITS: usize = 16;

/// The parsed first line of a chunk.
///
/// The reader limits `padding` and `extensions`: for requests, it counts both together with trailers ([`super::MessageFramer`]); for
/// responses, it counts only extensions, because old servers pad each size to a fixed width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLine {
    /// The size of the chunk in bytes; 0 for the last one.
    pub size: u64,
    /// The number of spaces and tabs after the size.
    pub padding: usize,
    /// The bytes of extensions, from the first `;` to the line end.
    pub extensions: usize,
}

impl ChunkLine {
    /// Parses `line`, which includes its CRLF. `None` if it breaks one of these rules:
    ///
    /// - The size has 1 to 16 hexadecimal digits, without a sign or a prefix.
    /// - Spaces and tabs may follow it. The grammar allows them only before an extension (`BWS`), but hyper accepts them, too.
    /// - Anything else after it begins with `;`. Extensions are not parsed, because nothing here uses them.
    /// - CR and LF occur only at the end, and together. Elsewhere, one parser may see an extension where another one sees the next line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r\n")?;
        let (mut size, mut digits) = (0, 0);
        while let Some(digit) = line.get(digits).and_then(|byte| char::from(*byte).to_digit(16)) {
            if digits == MAX_SIZE_DIGITS {
                return None;
            }
            size = size << 4 | u64::from(digit);
            digits += 1;
        }
        let rest = &line[digits..];
        if digits == 0 || memchr::memchr2(b'\r', b'\n', rest).is_some() {
            return None;
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let extensions = &rest[padding..];
        matches!(extensions, [] | [b';', ..]).then_some(Self { size, padding, extensions: extensions.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_a_size_padding_and_extensions() {
        for (line, size, padding, extensions) in [
            ("0\r\n", 0, 0, 0),
            ("00A\r\n", 10, 0, 0),
            ("fFfFfFfFfFfFfFfF\r\n", u64::MAX, 0, 0),
            ("0000000000000003 \t\r\n", 3, 2, 0),
            ("3;a=b\r\n", 3, 0, 4),
            ("3 ; a = \"b;c\" ;d\r\n", 3, 1, 14),
        ] {
            assert_eq!(ChunkLine::parse(line.as_bytes()), Some(ChunkLine { size, padding, extensions }), "{line:?}");
        }
    }

    #[test]
    fn a_malformed_line_is_rejected() {
        for line in [
            "",
            "\r\n",
            "3",
            "3\n",
            "3\r",
            "3\r\n\r\n",
            "3\r\r\n",
            "3\n\r\n",
            ";x\r\n",
            " 3\r\n",
            "\t3\r\n",
            "-3\r\n",
            "+3\r\n",
            "0x3\r\n",
            "3 3\r\n",
            "3x\r\n",
            "3_\r\n",
            "3\0\r\n",
            "3\u{b}\r\n",
            "3\u{c}\r\n",
            "3\u{c};x\r\n",
            "3\u{a0}\r\n",
            "3,x\r\n",
            "3;a\rb\r\n",
            "3;a\nb\r\n",
            "00000000000000003\r\n",
            "10000000000000000\r\n",
            "٣\r\n",
        ] {
            assert_eq!(ChunkLine::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn every_size_is_read_as_it_is_written(size: u64, zeros in 0..16usize) {
            let line = format!("{:0>width$x}\r\n", size, width = zeros + 1);
            prop_assert_eq!(ChunkLine::parse(line.as_bytes()), Some(ChunkLine { size, padding: 0, extensions: 0 }));
        }

        #[test]
        fn no_bytes_before_the_line_end_are_lost(line in "[0-9a-f]{1,16}[ \t]{0,3}(;[^\r\n]{0,9})?\r\n") {
            let digits = line.bytes().take_while(u8::is_ascii_hexdigit).count();
            let read = ChunkLine::parse(line.as_bytes()).expect("the line is well-formed");
            prop_assert_eq!(digits + read.padding + read.extensions + 2, line.len());
        }
    }
}
