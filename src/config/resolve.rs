//! From what was written to what can run: every key, its type, its bounds.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use http::{HeaderName, Uri, uri::PathAndQuery};
use tracing_subscriber::filter::Targets;

use super::{Config, Environment, Listen, Problem, Raw, reader::Reader};
use crate::{
    cause,
    credentials::{self, Credentials, Scheme, Source},
    proxy,
    secret::Secret,
    server,
    telemetry::logging,
    tls,
    token::{
        self,
        scheme::{FINICITY_APP_KEY, FINICITY_APP_TOKEN, oauth2::Encoding},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The most worker threads that `auto` starts; see `config/default.toml`.
const MAX_AUTO_WORKERS: usize = 2;

/// Reads every key of `raw` and the credentials. What is wrong is added to `problems`; only without any is the result of use.
pub(super) fn resolve(raw: &Raw, environment: &Environment, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut reader = Reader::new(raw, problems);
    let (source, scheme) = source(&mut reader, environment);
    let config = keys(&mut reader, source.clone(), scheme);
    let credentials = credentials::load(&source, scheme);
    let admin_token = credentials::admin_token(environment.variables());
    match (credentials, admin_token, config) {
        (Ok(credentials), Ok(admin_token), Some(config)) => Some(config(credentials, admin_token)),
        (credentials, admin_token, _) => {
            let credentials = credentials.err().unwrap_or_default();
            let wrong = credentials.iter().chain(admin_token.as_ref().err());
            problems.extend(wrong.map(|problem| Problem::other(cause::line(problem))));
            None
        }
    }
}

/// Where credentials come from, and of which scheme they shall be.
fn source(read: &mut Reader<'_>, environment: &Environment) -> (Source, Option<Scheme>) {
    let from_dir = read.choice("credentials.source", &[("env", false), ("dir", true)]);
    let dir = read.optional("credentials.dir", |path| Ok(PathBuf::from(path)));
    let schemes = [("auto", None), ("oauth2", Some(Scheme::OAuth2)), ("partner", Some(Scheme::Partner))];
    let scheme = read.choice("auth.scheme", &schemes);
    let source = match (from_dir, dir) {
        (true, Some(dir)) => Source::Directory(dir),
        (true, None) => {
            read.problem("credentials.dir", "must name a directory when credentials.source is \"dir\"");
            Source::Directory(PathBuf::new())
        }
        (false, _) => Source::environment(environment.variables()),
    };
    (source, scheme)
}

/// Reads every key; what comes back makes the whole configuration once the credentials are there.
fn keys(
    read: &mut Reader<'_>,
    source: Source,
    scheme: Option<Scheme>,
) -> Option<impl FnOnce(Credentials, Option<Secret<String>>) -> Config + use<>> {
    let upstream = read.parsed("upstream.url", upstream_url);
    let listen = listen(read);
    let tls = tls::Config {
        ca_file: read.optional("upstream.ca_file", |path| Ok(PathBuf::from(path))),
        extra_roots: Vec::new(),
    };
    if let Err(error) = tls::client_config(&tls) {
        read.problem("upstream.ca_file", cause::line(&error));
    }
    let idle_timeout = read.duration("upstream.idle_timeout", SECOND..=HOUR);
    let server = server::Config {
        worker_threads: worker_threads(read),
        connections: read.number("limits.connections", 1..=1_000_000),
        limits: server::Limits {
            header_timeout: read.duration("limits.header_timeout", SECOND..=HOUR),
            write_timeout: idle_timeout,
        },
    };
    let log = logging::Config {
        format: read.choice("log.format", &[("json", logging::Format::Json), ("human", logging::Format::Human)]),
        level: read.parsed("log.level", level).unwrap_or_default(),
    };
    let drain_timeout = read.duration("shutdown.drain_timeout", Duration::ZERO..=HOUR);
    let hosts = host_names(read);
    let connect_timeout = read.duration("upstream.connect_timeout", Duration::from_millis(100)..=60 * SECOND);
    let first_byte_timeout = read.duration("upstream.first_byte_timeout", SECOND..=HOUR);
    let slow_first_byte_timeout = read.duration("upstream.slow_first_byte_timeout", SECOND..=HOUR);
    let pool_idle_timeout = read.duration("upstream.pool_idle_timeout", SECOND..=HOUR);
    let http2 = read.choice("upstream.http2", &[("off", false), ("auto", true)]);
    let replay_buffer = read.number("upstream.replay_buffer", 0..=16 * 1024 * 1024);
    let token = token(read);
    let state_dir = read.optional("auth.state_dir", |path| Ok(PathBuf::from(path)));
    let admin_socket = read.optional("admin.socket", |path| Ok(PathBuf::from(path)));

    let upstream = upstream?;
    Some(move |credentials, admin_token| Config {
        listen,
        server,
        proxy: proxy::Config {
            upstream: upstream.clone(),
            hosts,
            connect_timeout,
            first_byte_timeout,
            slow_first_byte_timeout,
            idle_timeout,
            pool_idle_timeout,
            http2,
            replay_buffer,
            heal_wait: token.token_wait,
            own_headers: vec![token.app_key_header.clone(), token.token_header.clone()],
        },
        token: token::Config { base: upstream, ..token },
        state_dir,
        admin_socket,
        source,
        scheme,
        admin_token,
        tls,
        log,
        drain_timeout,
        credentials,
    })
}

/// All that concerns tokens; its base is put in later.
fn token(read: &mut Reader<'_>) -> token::Config {
    let encodings = [("json", Encoding::Json), ("form", Encoding::Form), ("basic", Encoding::Basic)];
    token::Config {
        base: Uri::default(),
        token_path: read.optional("auth.token_path", token_path),
        revocation_path: read.optional("auth.revocation_path", token_path),
        encoding: read.choice("auth.encoding", &encodings),
        scope: read.optional("auth.scope", scope),
        app_key_header: read.parsed("auth.app_key_header", header_name).unwrap_or(FINICITY_APP_KEY),
        token_header: read.parsed("auth.token_header", header_name).unwrap_or(FINICITY_APP_TOKEN),
        default_lifetime: read.duration("auth.default_lifetime", 60 * SECOND..=24 * HOUR),
        startup_jitter: read.duration("auth.startup_jitter", Duration::ZERO..=600 * SECOND),
        token_wait: read.duration("auth.token_wait", Duration::ZERO..=60 * SECOND),
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| "must be the name of an HTTP header".to_owned())
}

fn listen(read: &mut Reader<'_>) -> Listen {
    let allow_remote = read.flag("listen.allow_remote");
    let listen = Listen {
        proxy: read.addresses("listen.proxy"),
        ops: read.addresses("listen.ops"),
        admin: read.addresses("listen.admin"),
    };
    let is_remote = |addresses: &[SocketAddr]| addresses.iter().any(|address| !address.ip().is_loopback());
    if is_remote(&listen.proxy) && !allow_remote {
        read.problem(
            "listen.proxy",
            "is not a loopback address: whoever can reach it can use the credentials; set listen.allow_remote = true if that \
             is meant",
        );
    }
    if is_remote(&listen.admin) {
        read.problem("listen.admin", "must be a loopback address, such as \"127.0.0.1:3466\"");
    }
    listen
}

fn worker_threads(read: &mut Reader<'_>) -> NonZeroUsize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let auto = NonZeroUsize::new(cores.min(MAX_AUTO_WORKERS)).unwrap_or(NonZeroUsize::MIN);
    if read.is_text("runtime.worker_threads", "auto") {
        return auto;
    }
    NonZeroUsize::new(read.number("runtime.worker_threads", 1..=64)).unwrap_or(NonZeroUsize::MIN)
}

fn upstream_url(text: &str) -> Result<Uri, String> {
    let expected = "must be https:// and a host, such as \"https://api.finicity.com\"";
    let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
    let authority = url.authority().ok_or(expected)?;
    if url.scheme_str() != Some("https") {
        return Err(format!("{expected}: credentials are only ever sent over verified TLS"));
    }
    if authority.as_str().contains('@') {
        return Err(format!("{expected}: without a user name or a password"));
    }
    if url.path() != "/" || url.query().is_some() || text.ends_with(['?', '#']) || text.contains('#') {
        return Err(format!("{expected}: without a path or a query"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(expected.to_owned());
    }
    Ok(url)
}

fn token_path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/')
        && !text.starts_with("//")
        && !text.contains(['?', '#', '\\'])
        && text.parse::<PathAndQuery>().is_ok_and(|path| path.as_str() == text);
    if valid {
        Ok(text.to_owned())
    } else {
        Err("must be a path, such as \"/oauth/token\", without a query".to_owned())
    }
}

/// RFC 6749, 3.3: printable ASCII without quote and backslash, in words.
fn scope(text: &str) -> Result<String, String> {
    let legal = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"' && byte != b'\\';
    if text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("must be words of printable ASCII, separated by spaces".to_owned())
    }
}

fn host_names(read: &mut Reader<'_>) -> Vec<String> {
    let hosts = read.list("guard.hosts");
    let legal =
        |host: &String| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !hosts.iter().all(legal) {
        read.problem(
            "guard.hosts",
            "must be host names without a scheme or a port, such as \"finicity-proxy.payments.svc\"",
        );
    }
    hosts
}

/// Levels by target. A bare word must be a level: `Targets` alone would take a misspelt one for the name of a module.
fn level(text: &str) -> Result<Targets, String> {
    let expected = "must be error, warn, info, debug or trace, or a list such as \"info,finicity_proxy::token=debug\"";
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let valid = text.split(',').map(str::trim).all(|directive| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    });
    if !valid {
        return Err(expected.to_owned());
    }
    text.replace(' ', "").parse().map_err(|_| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::{Inputs, gather};

    #[test]
    fn every_key_of_the_defaults_is_read_and_valid() {
        let mut problems = Vec::new();
        let raw = gather(&Inputs::default(), &mut problems);
        let mut reader = Reader::new(&raw, &mut problems);
        let (source, scheme) = source(&mut reader, &Environment::default());
        assert!(keys(&mut reader, source, scheme).is_some());
        let read: Vec<String> = reader.read().iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(raw.keys().cloned().collect::<Vec<_>>(), read);
        assert_eq!(problems, []);
    }

    #[test]
    fn j05_the_upstream_is_https_and_a_host_and_nothing_else() {
        for good in
            ["https://api.finicity.com", "https://api.finicity.com/", "https://localhost:8443", "https://[::1]:1"]
        {
            assert!(upstream_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.finicity.com",
            "api.finicity.com",
            "https://",
            "https://u:p@h",
            "https://h/path",
            "https://h?q",
            "https://h/#f",
            "https://h#f",
            "ftp://h",
            "",
            "https://h:",
            "https://:443",
            "https://a b",
        ] {
            assert!(upstream_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_module() {
        for good in ["info", "trace", "info,finicity_proxy=debug", "warn, hyper=trace", "off"] {
            assert!(level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "info,x=verbose", "=info", "INFO;"] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_path_is_a_plain_path() {
        for (path, good) in [
            ("/oauth/token", true),
            ("/", true),
            ("oauth", false),
            ("//h/x", false),
            ("/a?b", false),
            ("/a#b", false),
            ("/a b", false),
        ] {
            assert_eq!(token_path(path).is_ok(), good, "{path}");
        }
    }
}
