//! Describes certificates for operators: names, validity, and the number of CAs.
//!
//! No certificate is parsed here. Because rustls errors contain the validity and the names of a certificate, the chain is verified again at
//! a time, and then for a name, for which no certificate is valid.

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

/// The last second of the year 9999, which RFC 5280 (4.1.2.5) assigns to certificates that do not expire.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// A reserved name that cannot exist (RFC 2606), so no certificate is valid for it.
const NO_NAME: &str = "doctor.invalid";

/// Maximum number of names listed.
const MAX_NAMES: usize = 5;

/// The length of the longest host name (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// A verified certificate chain.
#[derive(Debug)]
pub struct ChainDescription {
    /// When the first certificate of the chain expires, since the Unix epoch. `None` if unknown.
    pub valid_until: Option<Duration>,
    /// The names for which the server's certificate is valid.
    pub names: String,
    /// The number of CAs in `upstream.ca_file`.
    pub ca_count: usize,
}

/// Describes `chain`, which a server presented for `name` and which was verified with `config`.
///
/// # Errors
///
/// `upstream.ca_file` has become invalid.
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
    // Each round finds the expiry of another certificate, earlier than the one before. The last one is that of the chain.
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

/// If `error` is about a certificate's validity or names, a phrase with that validity or these names. Names are included only if a
/// trusted CA has issued the certificate.
pub fn exceeded_limit(error: &(dyn StdError + 'static)) -> Option<String> {
    let rustls::Error::InvalidCertificate(error) = error_chain::find(error)? else { return None };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(format!("it expired at {}", time(*not_after))),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("it is valid from {}", time(*not_before)))
        }
        // The chain is verified before the name, so these names are trustworthy.
        error => presented_names(error).map(|names| format!("it is for {names}")),
    }
}

fn time(time: UnixTime) -> String {
    // The format ends with the year 9999.
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()).min(END_OF_TIME)).to_string()
}

/// The names in `error` that consist only of characters of host names and addresses.
fn presented_names(error: &CertificateError) -> Option<String> {
    let CertificateError::NotValidForNameContext { presented, .. } = error else { return None };
    // rustls formats them as `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*:".contains(&byte);
    let names = presented.iter().filter_map(|name| {
        let name = name.split_once('(')?.1.strip_suffix(')')?.trim_matches('"');
        let is_name = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_part);
        // Addresses are converted to the usual notation.
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

    /// A CA with the name `name` that expires in `year`.
    fn ca_params(name: &str, year: i32) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        params
    }

    /// The description of a chain with certificates that expire in these years, and a server with these names.
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
    fn a_chain_expires_with_its_first_certificate() {
        for (server, intermediate, end) in [(2040, 2050, "2040"), (2050, 2040, "2040"), (2040, 2040, "2040")] {
            let until = described(server, intermediate, &["h.test"]).valid_until.unwrap();
            let shown = time(UnixTime::since_unix_epoch(until));
            assert_eq!(shown, format!("{end}-01-01T00:00:00Z"), "{server} {intermediate}");
        }
    }

    #[test]
    fn valid_names_are_listed_up_to_a_limit() {
        assert_eq!(
            described(2040, 2040, &["h.test", "*.h.test", "::1", "10.0.0.1"]).names,
            "h.test, *.h.test, ::1, 10.0.0.1"
        );
        assert_eq!(described(2040, 2040, &["a", "b", "c", "d", "e", "f", "g"]).names, "a, b, c, d, e and 2 more");
        assert_eq!(described(2040, 2040, &["h.test", "canary\u{7f} secret", "x\"y"]).names, "h.test");
    }

    #[test]
    fn only_certificate_errors_have_a_limit() {
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
