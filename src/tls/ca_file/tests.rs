//! CA files as they occur in practice, and broken ones.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

fn block(label: &str, content: &str) -> String {
    format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
}

fn add(content: &str) -> Result<usize, Error> {
    add_cas(content.as_bytes(), Path::new("ca.pem"), &mut RootCertStore::empty())
}

#[test]
fn each_defect_has_its_own_error_with_the_line() {
    let key = block("PRIVATE KEY", "Y2FuYXJ5");
    assert!(matches!(add(""), Err(Error::Empty { .. })));
    assert!(matches!(add("no certificate here\n"), Err(Error::Empty { .. })));
    for (content, expected_line, expected) in [
        (block("CERTIFICATE", "!"), 1, Malformed::Base64),
        (format!("{key}# text\r\n{}", block("CERTIFICATE", "canary!")), 5, Malformed::Base64),
        ("\n-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), 2, Malformed::End),
        (format!("{key}-----BEGIN canary canary--\n"), 4, Malformed::Begin),
    ] {
        let error = add(&content).unwrap_err();
        assert!(
            matches!(error, Error::NotPem { block, malformed, .. } if block.line == expected_line && malformed == expected),
            "{error}"
        );
        assert!(
            error.to_string().contains(&format!("line {expected_line} ")) && !format!("{error:?}").contains("canary"),
            "{error}"
        );
    }
    assert!(matches!(add(&block("CERTIFICATE", "AAAA")), Err(Error::Unusable { number: 1, line: 1, .. })));
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        let error = add(&format!("\n{}", block(label, "Y2FuYXJ5"))).unwrap_err();
        assert!(matches!(error, Error::PrivateKey { line: 2, .. }), "{error}");
    }
}

/// Certificates of different CAs.
fn cas<const N: usize>() -> [String; N] {
    std::array::from_fn(|number| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("CA {number}"));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  \t{line} \n")).collect()
}

#[test]
fn every_common_form_of_certificates_is_read() {
    let [a, b] = cas();
    let key = block("PRIVATE KEY", "Y2FuYXJ5");
    for (content, count) in [
        (format!("{a}{b}"), 2),
        (format!("\u{feff}{a}{b}"), 2),
        (format!("{a}\u{feff}{b}"), 2),
        (format!("  \u{feff}  {a}"), 1),
        (indented(&format!("{a}{b}")), 2),
        (format!("{a}{}", indented(&b)), 2),
        (format!("{a}{b}").replace('\n', "\r\n"), 2),
        (format!("{a}{b}").replace('\n', "\r"), 2),
        (format!("{a}{b}").trim_end().to_owned(), 2),
        (format!("{a}{b}").replace('\n', "\n\n"), 2),
        (a.replace("CERTIFICATE", "X509 CERTIFICATE") + &b, 2),
        (format!("# the old one:\n# -----BEGIN CERTIFICATE-----\n# AAAA\n{a}subject=/CN=x -- y\n{b}"), 2),
        (format!("{key}{a}{}", block("X509 CRL", "AAAA")), 1),
    ] {
        assert_eq!(add(&content).map_err(|error| error.to_string()), Ok(count), "{content}");
    }
}

#[test]
fn no_malformed_certificate_is_skipped_silently() {
    let [a, b, c] = cas();
    let line = a.lines().count() + 1;
    for broken in [
        b.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        b.replace("CERTIFICATE", "PKCS7"),
        b.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
        b.replace("CERTIFICATE", "Certificate"),
        b.replacen("-----BEGIN", "----BEGIN", 1),
        b.replacen("-----BEGIN", "\u{2014}-BEGIN", 1),
        b.replacen("-----BEGIN", "> -----BEGIN", 1),
        b.replacen("-----BEGIN", "x -----BEGIN", 1),
        b.replacen("-----BEGIN CERTIFICATE-----", "-----begin certificate-----", 1),
        b.replacen("CERTIFICATE-----\n", "CERTIFICATE-----", 1),
        b.replace('\n', ""),
        b.replace("-----END CERTIFICATE-----\n", ""),
        b.replace("-----END CERTIFICATE", "-----END TRUSTED CERTIFICATE"),
        b.replacen('\n', "\n!", 1),
        block("CERTIFICATE", "AAAA"),
    ] {
        for content in [format!("{a}{broken}{c}"), indented(&format!("{a}{broken}{c}"))] {
            let error = add(&content).unwrap_err().to_string();
            assert!(error.contains(&format!(" line {line} ")) || error.ends_with(&format!(" line {line}")), "{error}");
        }
    }
    let without_begin = b.lines().skip(1).collect::<Vec<_>>().join("\n");
    let error = add(&format!("{a}{without_begin}\n{c}")).unwrap_err().to_string();
    let end_line = 2 * a.lines().count() - 1;
    assert!(error.ends_with(&format!("the block in line {end_line} is an END line without a BEGIN line")), "{error}");
}

#[test]
fn a_broken_certificate_is_named_by_number_and_line() {
    let [a, b] = cas();
    let line = a.lines().count() + b.lines().count() + 2;
    for (broken, expected) in [
        (block("CERTIFICATE", "AAAA"), format!("CA certificate: certificate 3 in line {line}")),
        (block("CERTIFICATE", "!"), format!("certificate 3 in line {line} is not base64")),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA".to_owned(),
            format!("certificate 3 in line {line} has no matching END line"),
        ),
    ] {
        let error = add(&format!("{a}\n{b}{broken}")).unwrap_err().to_string();
        assert!(error.ends_with(&expected), "{error}");
    }
    let utf16: Vec<u8> = "\u{feff}a".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = add_cas(&utf16, Path::new("ca.pem"), &mut RootCertStore::empty()).unwrap_err();
    assert!(matches!(error, Error::Utf16 { .. }), "{error}");
}

#[test]
fn an_unreadable_file_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    assert!(matches!(read(&path), Err(Error::Unreadable { .. })));
    assert!(matches!(read(dir.path()), Err(Error::NotAFile { .. })));
    fs::write(&path, vec![b'x'; 1024 * 1024]).unwrap();
    assert_eq!(read(&path).unwrap().len(), 1024 * 1024);
    fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(read(&path), Err(Error::TooLarge { .. })));
}

#[test]
fn no_error_contains_file_content_or_text_given_as_a_path() {
    let key = "-----BEGIN PRIVATE KEY-----\ncanary/canary+canary\n-----END PRIVATE KEY-----\n";
    for path in [key, "canary/canary", "/canary", &key.replace('\n', "")] {
        let error = read(Path::new(path)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    for content in [
        key.replace("-----END", "-----canary"),
        key.replace("KEY-----\n", "KEY "),
        key.replace("KEY-----\n", "KEY----- "),
        key.replace('\n', " "),
        key.replace('\n', "\r"),
        key.replace("canary/", "canary!"),
        key.replace("PRIVATE KEY", "CERTIFICATE"),
        key.replace("PRIVATE KEY", "canary"),
        format!("\u{feff}{key}"),
    ] {
        let error = add(&content).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}
