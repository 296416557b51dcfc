//! What an operator wants to know of certificates: names, validity, and which CAs are trusted.
//!
//! No certificate is parsed here. rustls names the limits of a certificate in its errors, so it verifies the chain once more with a
//! time, and then a name, that no certificate has.

use std::{
    error::Error as StdError,
    net::IpAddr,
    time::{Duration, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use rustls::{
    CertificateError,
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{
    Config, Error, ca_file,
    trust_store::{Chain, chain_verifier},
};
use crate::error_chain;

/// The last second of the year 9999, which RFC 5280 (4.1.2.5) has for certificates that do not expire.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// A name that is reserved not to exist (RFC 2606), so that no certificate is for it.
const NO_NAME: &str = "doctor.invalid";

/// The most names that are listed.
const MAX_NAMES: usize = 5;

/// The length of the longest host name (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// A chain of certificates that was verified.
#[derive(Debug)]
pub struct ChainDescription {
    /// The first moment after which a certificate of the chain has expired, since the Unix epoch. `None` when it is not known.
    pub valid_until: Option<Duration>,
    /// The names that the server's certificate is for.
    pub names: String,
    /// The number of CAs in `upstream.ca_file`.
    pub ca_count: usize,
}

/// Describes `chain`, which a server presented as `name` and which was verified by `config`.
///
/// # Errors
///
/// When `upstream.ca_file` cannot be used any more.
pub fn describe_chain(
    config: &Config,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
) -> Result<ChainDescription, Error> {
    let content = config.ca_file.as_deref().map(ca_file::read).transpose()?.unwrap_or_default();
    let (verify, ca_count) = chain_verifier(config, &content)?;
    let [end_entity, intermediates @ ..] = chain else {
        return Ok(ChainDescription { valid_until: None, names: String::new(), ca_count });
    };
    let mut valid_until = None;
    // Each time is the end of another certificate, and the last one is that of the chain.
    for _ in chain {
        let at = UnixTime::since_unix_epoch(valid_until.unwrap_or(END_OF_TIME));
        match verify(&Chain { end_entity, intermediates, name, at }) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                valid_until = Some(Duration::from_secs(not_after.as_secs()));
            }
            _ => break,
        }
    }
    let other_name = ServerName::try_from(NO_NAME).expect("a valid name");
    let mismatch = ParsedCertificate::try_from(end_entity).and_then(|leaf| verify_server_name(&leaf, &other_name));
    let names = match mismatch {
        Err(rustls::Error::InvalidCertificate(error)) => presented_names(&error),
        _ => None,
    };
    Ok(ChainDescription { valid_until, names: names.unwrap_or_default(), ca_count })
}

/// The limit that a certificate has not kept, where `error` is of one: its names, or its time. A name is in it only when a trusted CA
/// vouches for it.
pub fn exceeded_limit(error: &(dyn StdError + 'static)) -> Option<String> {
    let rustls::Error::InvalidCertificate(error) = error_chain::find(error)? else { return None };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(format!("it expired at {}", time(*not_after))),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("it is valid from {}", time(*not_before)))
        }
        // The chain is verified before the name is.
        error => presented_names(error).map(|names| format!("it is for {names}")),
    }
}

fn time(time: UnixTime) -> String {
    // Beyond the year 9999 there is no such format.
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()).min(END_OF_TIME)).to_string()
}

/// The names in `error`, as far as they have only characters of host names and addresses.
fn presented_names(error: &CertificateError) -> Option<String> {
    let CertificateError::NotValidForNameContext { presented, .. } = error else { return None };
    // They come as `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*:".contains(&byte);
    let names = presented.iter().filter_map(|name| {
        let name = name.split_once('(')?.1.strip_suffix(')')?.trim_matches('"');
        let is_name = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_part);
        // An address in the usual notation.
        is_name.then(|| name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string()))
    });
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let listed = names[..names.len() - more].join(", ");
    match (names.len(), more) {
        (0, _) => None,
        (_, 0) => Some(listed),
        (_, more) => Some(format!("{listed} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// A CA with the name `name` that ends in `year`.
    fn ca_params(name: &str, year: i32) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        params
    }

    /// The description of a chain whose certificates end in these years, and whose server has these names.
    fn described(server_year: i32, intermediate_year: i32, names: &[&str]) -> ChainDescription {
        let root = CertifiedIssuer::self_signed(ca_params("root", 2020), KeyPair::generate().unwrap()).unwrap();
        let params = ca_params("intermediate", intermediate_year);
        let intermediate = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_after = date_time_ymd(server_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let server = params.signed_by(&key, &intermediate).unwrap();
        let config = Config { public_roots: false, extra_roots: vec![root.der().clone()], ..Config::default() };
        let chain = [server.der().clone(), intermediate.der().clone()];
        describe_chain(&config, &chain, &ServerName::try_from(names[0].to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn a_chain_ends_with_its_first_certificate_that_expires() {
        for (server, intermediate, end) in [(2040, 2050, "2040"), (2050, 2040, "2040"), (2040, 2040, "2040")] {
            let until = described(server, intermediate, &["h.test"]).valid_until.unwrap();
            let shown = time(UnixTime::since_unix_epoch(until));
            assert_eq!(shown, format!("{end}-01-01T00:00:00Z"), "{server} {intermediate}");
        }
    }

    #[test]
    fn names_are_listed_up_to_a_limit_and_only_as_names() {
        assert_eq!(
            described(2040, 2040, &["h.test", "*.h.test", "::1", "10.0.0.1"]).names,
            "h.test, *.h.test, ::1, 10.0.0.1"
        );
        assert_eq!(described(2040, 2040, &["a", "b", "c", "d", "e", "f", "g"]).names, "a, b, c, d, e and 2 more");
        assert_eq!(described(2040, 2040, &["h.test", "canary\u{7f} secret", "x\"y"]).names, "h.test");
    }

    #[test]
    fn only_errors_of_certificates_have_a_limit() {
        let error = |error| exceeded_limit(&rustls::Error::InvalidCertificate(error));
        let (now, limit) =
            (UnixTime::since_unix_epoch(Duration::from_secs(5)), UnixTime::since_unix_epoch(Duration::ZERO));
        assert_eq!(
            error(CertificateError::ExpiredContext { time: now, not_after: limit }).as_deref(),
            Some("it expired at 1970-01-01T00:00:00Z")
        );
        assert_eq!(error(CertificateError::UnknownIssuer), None);
        assert_eq!(exceeded_limit(&rustls::Error::DecryptError), None);
        assert_eq!(exceeded_limit(&std::io::Error::other("x")), None);
    }
}
