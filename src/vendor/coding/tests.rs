use flate2::{Compression, GzBuilder};
use http::HeaderName;
use proptest::prelude::*;

use super::{
    encoded::{gzip, raw_deflate, zlib},
    *,
};

const LIMIT: usize = 4096;

fn fields(codings: &[&str]) -> HeaderMap {
    let name = || HeaderName::from_static("content-encoding");
    codings.iter().map(|coding| (name(), HeaderValue::from_str(coding).unwrap())).collect()
}

fn decoded(codings: &[&str], body: &[u8]) -> Result<(Vec<u8>, bool), CodingError> {
    decode(&fields(codings), body, LIMIT).map(|decoded| (decoded.bytes().to_vec(), decoded.is_intact()))
}

/// The interpretations that `find` tries, in order.
fn offered(codings: &[&str], body: &[u8]) -> (Vec<Vec<u8>>, Option<CodingError>) {
    let mut offered = Vec::new();
    let found = find(&fields(codings), body, LIMIT, |decoded| {
        offered.push(decoded.bytes().to_vec());
        None::<()>
    });
    (offered, found.err())
}

#[test]
fn supported_codings_are_decoded_in_reverse_order() {
    let plain = b"{\"a\":1}".as_slice();
    for (codings, body) in [
        (&[][..], plain.to_vec()),
        (&[""], plain.to_vec()),
        (&["identity"], plain.to_vec()),
        (&[" , Identity,,"], plain.to_vec()),
        (&["gzip"], gzip(plain)),
        (&["X-GZip"], gzip(plain)),
        (&["identity, gzip"], gzip(plain)),
        (&["gzip", "identity", ""], gzip(plain)),
        (&["DEFLATE"], zlib(plain)),
        (&["deflate"], raw_deflate(plain)),
        (&["gzip, gzip"], gzip(&gzip(plain))),
        (&["deflate", "gzip"], gzip(&zlib(plain))),
        (&["gzip,deflate"], raw_deflate(&gzip(plain))),
        (&["gzip, gzip, gzip, gzip"], gzip(&gzip(&gzip(&gzip(plain))))),
    ] {
        assert_eq!(decoded(codings, &body), Ok((plain.to_vec(), true)), "{codings:?}");
    }
    for codings in
        [&["br"][..], &["gzip, br"], &["gzip", "zstd"], &["g zip"], &["gzip;q=1"], &["gzip,gzip,gzip,gzip,gzip"]]
    {
        assert_eq!(decoded(codings, &gzip(plain)), Err(CodingError::NotDecodable), "{codings:?}");
    }
    assert_eq!(decoded(&["gzip"], plain), Err(CodingError::NotDecodable));
    assert_eq!(decoded(&["gzip"], b""), Err(CodingError::NotDecodable));
    assert_eq!(decoded(&["gzip, gzip"], &gzip(plain)), Err(CodingError::NotDecodable));
}

#[test]
fn gzip_is_read_with_all_header_fields_and_several_members() {
    let full = GzBuilder::new().filename("f").comment("c").extra([1, 2, 3]).mtime(5);
    let mut encoder = full.write(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, b"first ").unwrap();
    let member = encoder.finish().unwrap();
    assert_eq!(decoded(&["gzip"], &member), Ok((b"first ".to_vec(), true)));
    let two = [member.as_slice(), &gzip(b""), &gzip(b"second")].concat();
    assert_eq!(decoded(&["gzip"], &two), Ok((b"first second".to_vec(), true)));
    for garbage in [&b"\0\0\0\0"[..], b"\r\n", b"\x1f\x8b", b"garbage"] {
        let followed = [member.as_slice(), garbage].concat();
        assert_eq!(decoded(&["gzip"], &followed), Ok((b"first ".to_vec(), true)), "{garbage:?}");
    }
    let many = gzip(b"x").repeat(MAX_MEMBERS + 9);
    assert_eq!(decoded(&["gzip"], &many).unwrap().0.len(), MAX_MEMBERS);
}

#[test]
fn truncated_data_is_intact_and_corrupt_data_is_not() {
    let plain: Vec<u8> = (0..600_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (coding, body) in [("gzip", gzip(&plain)), ("deflate", zlib(&plain)), ("deflate", raw_deflate(&plain))] {
        for end in (20..body.len()).step_by(97) {
            let (bytes, intact) = decoded(&[coding], &body[..end]).unwrap();
            assert!(intact && plain.starts_with(&bytes), "{coding} {end}");
        }
    }
    for (coding, body, from_end) in [("gzip", gzip(&plain), 1), ("gzip", gzip(&plain), 5), ("deflate", zlib(&plain), 1)]
    {
        let mut damaged = body;
        let at = damaged.len() - from_end;
        damaged[at] ^= 0x40;
        assert_eq!(decoded(&[coding], &damaged), Ok((plain.clone(), false)), "{coding} {from_end}");
    }
    // An intact outer coding does not make corrupt inner data intact.
    let mut damaged = gzip(&plain[..100]);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(decoded(&["gzip, deflate"], &zlib(&damaged)), Ok((plain[..100].to_vec(), false)));
}

#[test]
fn the_limit_holds_before_and_after_inflating() {
    for length in [LIMIT - 1, LIMIT, LIMIT + 1, 50 * LIMIT] {
        let plain = vec![b' '; length];
        let expected = if length <= LIMIT { Ok((plain.clone(), true)) } else { Err(CodingError::TooLarge) };
        for (codings, body) in [
            ("identity", plain.clone()),
            ("gzip", gzip(&plain)),
            ("deflate", zlib(&plain)),
            ("deflate", raw_deflate(&plain)),
            ("gzip, gzip", gzip(&gzip(&plain))),
            ("gzip", [gzip(&plain[1..]), gzip(b" ")].concat()),
        ] {
            assert_eq!(decoded(&[codings], &body), expected, "{codings} {length}");
        }
    }
    let bomb = gzip(&vec![0; 50 * LIMIT]);
    for (codings, body) in [(&[][..], bomb.clone()), (&["br"], bomb.clone()), (&["gzip"], gzip(&bomb))] {
        assert_eq!(offered(codings, &body).1, Some(CodingError::TooLarge), "{codings:?}");
    }
    assert_eq!(offered(&["gzip"], &vec![b' '; LIMIT + 1]), (Vec::new(), Some(CodingError::TooLarge)));
}

#[test]
fn find_reads_a_body_despite_a_wrong_content_encoding() {
    let plain = b"{\"a\":1}".as_slice();
    for codings in
        [&[][..], &["identity"], &["gzip"], &["deflate"], &["br"], &["utf-8"], &["gzip, gzip"], &["gzip", "br"]]
    {
        for body in [plain.to_vec(), gzip(plain), zlib(plain), gzip(&gzip(plain)), zlib(&gzip(plain))] {
            let (offered, _) = offered(codings, &body);
            assert!(offered.iter().any(|reading| reading == plain), "{codings:?} {body:?}");
        }
    }
    // Each interpretation is tried once, starting with the declared one.
    assert_eq!(offered(&[], plain), (vec![plain.to_vec()], None));
    assert_eq!(offered(&["gzip"], &gzip(plain)).0[0], plain);
}

#[test]
fn debug_does_not_show_the_body() {
    let body = gzip(b"canary");
    let headers = fields(&["gzip"]);
    assert_eq!(format!("{:?}", decode(&headers, &body, LIMIT).unwrap()), "Decoded { bytes: 6, intact: true }");
}

#[test]
fn l11_inflated_data_is_never_moved() {
    // Growing the buffer would have left copies in memory.
    let body = gzip(&vec![b'a'; LIMIT]);
    let inflated = Coding::Gzip.inflate(&body, LIMIT).unwrap();
    assert_eq!((inflated.bytes.len(), inflated.bytes.capacity()), (LIMIT, LIMIT + 1));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_within_the_limit(
        codings in prop::collection::vec("(gzip|deflate|identity|br|, ?){0,4}", 0..3),
        start in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"\x78\x9c"]),
        rest in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let codings: Vec<&str> = codings.iter().map(String::as_str).collect();
        for reading in offered(&codings, &[start, &rest].concat()).0 {
            prop_assert!(reading.len() <= LIMIT);
        }
    }
}
