//! The `Debug` output of types that hold secrets does not show them.

use std::{fmt::Debug, time::Duration};

use finicity_proxy::{
    app::{self, Loaded},
    config::{self, Inputs},
    credentials::{self, Credentials, Scheme, SourceConfig, dir},
    dns::Resolver,
    proxy, tls,
    token::{
        self, Clock, Command, TokenEndpoint,
        classify::{FailureClass, IssuedToken, TokenFailure, TokenResponse, classify},
        scheme::{self, auth_headers, oauth2::Encoding, revocation_request, token_request},
    },
};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    canary::scan,
    upstream::{token as token_text, token_response},
};

#[track_caller]
fn check(source: &str, value: impl Debug) {
    scan(source, &format!("{value:?}"));
    scan(source, &format!("{value:#?}"));
}

fn inputs() -> Inputs {
    let variables = [
        ("FINICITY_CLIENT_ID", CLIENT_ID),
        ("FINICITY_CLIENT_SECRET", CLIENT_SECRET),
        ("FINICITY_APP_KEY", APP_KEY),
        ("FINICITY_ADMIN_TOKEN", CLIENT_SECRET),
    ];
    Inputs { environment: variables.into_iter().collect(), ..Inputs::default() }
}

fn loaded() -> Loaded {
    app::load(&inputs()).now_or_never().expect("the environment loads without waiting").unwrap()
}

fn issued_token() -> IssuedToken {
    IssuedToken { token: token_text(1).as_str().into(), expires_in: None, untyped: false }
}

#[test]
fn l03_configuration_and_credentials() {
    let loaded = loaded();
    check("the inputs", inputs());
    check("the keys", config::load_raw(&inputs()).unwrap());
    check("the loaded configuration and credentials", &loaded);
    let Loaded { config, mut source, credentials } = loaded;
    let credentials = credentials.unwrap();
    check("the configuration", &config);
    check("the credentials", &credentials);
    check("the App Key", &credentials.app_key);
    check("the App Key's header", credentials.app_key.header());
    check("the source", &source);
    check("the source's outline", (source.description(), source.outline()));
    check("the source's values", source.load().now_or_never().unwrap().unwrap());
    check("the command", Command::Rotate(Box::new(credentials)));

    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("app_key", APP_KEY)] {
        std::fs::write(dir.path().join(name), value).unwrap();
    }
    check("the files", dir::read(dir.path()).unwrap());
    let mut files = SourceConfig::Directory(dir.path().to_owned()).open();
    check("the source", &files);
    check("the source's outline", (files.description(), files.outline()));
    check("the source's values", files.load().now_or_never().unwrap().unwrap());
    std::fs::write(dir.path().join("app_key"), format!("{APP_KEY} and a space ")).unwrap();
    check("the problems", credentials::load(files.as_mut(), None).now_or_never().unwrap().unwrap_err());
}

#[test]
fn l03_token_requests_and_tokens() {
    let Loaded { config, credentials, .. } = loaded();
    let credentials = credentials.unwrap();
    for scheme in [Scheme::OAuth2, Scheme::Partner] {
        for encoding in [Encoding::Json, Encoding::Form, Encoding::Basic] {
            let credentials = Credentials { scheme, ..credentials.clone() };
            let config = token::Config {
                encoding,
                revocation_path: Some("/revoke".to_owned()),
                base: "https://localhost".parse().unwrap(),
                ..config.token.clone()
            };
            check("the token request", token_request(&credentials, &config));
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token_text(1))).unwrap();
            check("the revocation", revocation_request(&credentials, &config, &bearer));
            let auth: scheme::AuthHeaders = auth_headers(&credentials, &config, &issued_token());
            check("the authorization headers", &auth);
            let (mut writer, reader) = token::channel(Clock::Boot, Duration::ZERO);
            writer.publish(auth, Clock::Boot.now() + Duration::from_secs(60));
            check("the writer", &writer);
            check("the reader", &reader);
            check("the token", reader.usable().unwrap());
            check("the state", (reader.state(), reader.status()));
            let (_, trust) = tls::trust_store(tls::Config::default()).unwrap();
            check("the endpoint", TokenEndpoint::new(config, Resolver::new(), trust).unwrap());
        }
    }
}

#[test]
fn l03_responses_and_errors() {
    let headers = HeaderMap::from_iter([(http::header::SET_COOKIE, HeaderValue::from_static(CLIENT_SECRET))]);
    let good = token_response(1, 3600);
    let echo = format!(r#"{{"code":"{CLIENT_SECRET}","error":"{CLIENT_SECRET}","error_description":"{APP_KEY}"}}"#);
    for (status, body) in [(200, &good), (400, &echo), (500, &echo), (200, &echo)] {
        let status = StatusCode::from_u16(status).unwrap();
        let response = TokenResponse { status, headers: &headers, body: Some(body.as_bytes()) };
        check("the response", &response);
        check("its classification", classify(&response, "access_token", std::time::SystemTime::UNIX_EPOCH));
    }
    check("a failure", TokenFailure::new(FailureClass::Certificate, "reason"));
    check("an error", proxy::Error::new(proxy::Code::UpstreamTls, "detail"));
}
