//! `[credentials]` and `[auth]`: the credentials' source, and how the proxy authenticates with them.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, Uri, header, uri::PathAndQuery};

use super::{
    super::{Environment, reader::Reader},
    HOUR, SECOND, stores,
};
use crate::{
    credentials::{self, Scheme, SourceConfig},
    message::path::canonical,
    proxy::ExtraHeaders,
    token::{
        self,
        scheme::{FINICITY_APP_KEY, FINICITY_APP_TOKEN, oauth2::Encoding},
    },
};

/// Header fields for framing or for the connection. A credential in one of them would break every request.
const RESERVED_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The source of the credentials, and their scheme.
pub(super) fn credentials(read: &mut Reader<'_>, environment: &Environment) -> Option<credentials::Config> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Source {
        Environment,
        Directory,
        Aws,
        Azure,
        Gcp,
        Vault,
    }
    let sources = [
        ("env", Source::Environment),
        ("dir", Source::Directory),
        ("aws", Source::Aws),
        ("azure", Source::Azure),
        ("gcp", Source::Gcp),
        ("vault", Source::Vault),
    ];
    let source = read.choice("credentials.source", &sources);
    let dir = read.optional("credentials.dir", |path| Ok(PathBuf::from(path)));
    let store = stores::common(read);
    let aws = stores::aws(read, source == Source::Aws);
    let azure = stores::azure::config(read, environment, source == Source::Azure);
    let gcp = stores::gcp(read, source == Source::Gcp);
    let vault = stores::vault(read, source == Source::Vault);
    let schemes = [("auto", None), ("oauth2", Some(Scheme::OAuth2)), ("partner", Some(Scheme::Partner))];
    let scheme = read.choice("auth.scheme", &schemes);
    let source = match source {
        Source::Environment => SourceConfig::environment(environment.variables()),
        Source::Directory => {
            if dir.is_none() {
                read.problem("credentials.dir", "must name a directory when credentials.source is \"dir\"");
            }
            SourceConfig::Directory(dir?)
        }
        Source::Aws => stores::aws_source(read, store, aws)?,
        Source::Azure => stores::azure::source(read, store, azure)?,
        Source::Gcp => stores::gcp_source(read, store, gcp, environment)?,
        Source::Vault => stores::vault_source(read, store, vault)?,
    };
    Some(credentials::Config { source, scheme })
}

/// Which requests also carry App Key and token under a second pair of names.
pub(super) fn extra_headers(read: &mut Reader<'_>) -> ExtraHeaders {
    let choices = [("auto", ExtraHeaders::Auto), ("always", ExtraHeaders::Always), ("never", ExtraHeaders::Never)];
    read.choice("auth.extra_headers", &choices)
}

/// The token configuration. The caller sets `base` and `egress`.
pub(super) fn token(read: &mut Reader<'_>) -> token::Config {
    let encodings = [("json", Encoding::Json), ("form", Encoding::Form), ("basic", Encoding::Basic)];
    let app_key_header = read.parsed("auth.app_key_header", header_name).unwrap_or(FINICITY_APP_KEY);
    let token_header = read.parsed("auth.token_header", header_name).unwrap_or(FINICITY_APP_TOKEN);
    if [&token_header, &header::AUTHORIZATION].contains(&&app_key_header) {
        read.problem("auth.app_key_header", "must differ from the token's header, or one would overwrite the other");
    }
    token::Config {
        base: Uri::default(),
        egress: None,
        token_path: read.optional("auth.token_path", token_path),
        revocation_path: read.optional("auth.revocation_path", token_path),
        encoding: read.choice("auth.encoding", &encodings),
        scope: read.optional("auth.scope", scope),
        app_key_header,
        token_header,
        default_lifetime: read.duration("auth.default_lifetime", 60 * SECOND..=24 * HOUR),
        startup_jitter: read.duration("auth.startup_jitter", Duration::ZERO..=600 * SECOND),
        token_wait: read.duration("auth.token_wait", Duration::ZERO..=60 * SECOND),
    }
}

/// A header name that is not in [`RESERVED_HEADERS`].
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = text.parse().ok().filter(|name| !RESERVED_HEADERS.contains(name));
    name.ok_or_else(|| "must be the name of a header that HTTP does not use itself, such as \"App-Key\"".to_owned())
}

fn token_path(text: &str) -> Result<String, String> {
    let is_valid = text.starts_with('/')
        && !text.starts_with("//")
        && !text.contains(['?', '#', '\\'])
        && text.parse::<PathAndQuery>().is_ok_and(|path| path.as_str() == text)
        && canonical(text).is_ok();
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err("must be a path, such as \"/oauth/token\", without a query or dot segments".to_owned())
    }
}

/// RFC 6749, 3.3: words of printable ASCII without quote and backslash.
fn scope(text: &str) -> Result<String, String> {
    let is_valid = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_valid) {
        Ok(text.to_owned())
    } else {
        Err("must be words of printable ASCII, separated by spaces".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_header_is_not_one_that_http_uses() {
        for good in ["App-Key", "finicity-app-key", "x_key", "Authorization"] {
            assert!(header_name(good).is_ok(), "{good}");
        }
        for bad in ["", "App Key", "Content-Length", "transfer-encoding", "HOST", "connection", "Upgrade"] {
            assert!(header_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_path_is_a_plain_path() {
        for (path, is_valid) in [
            ("/oauth/token", true),
            ("/", true),
            ("oauth", false),
            ("//h/x", false),
            ("/a?b", false),
            ("/a#b", false),
            ("/a b", false),
            ("/a/../b", false),
            ("/a%zz", false),
        ] {
            assert_eq!(token_path(path).is_ok(), is_valid, "{path}");
        }
    }
}
