//! Test support: the program as a child process, a TLS upstream that records every byte, and a client that sends arbitrary bytes.
//!
//! Tests wait for events and never sleep. The timeout is generous; only a broken test reaches it.

pub mod canary;
pub mod client;
pub mod egress;
pub mod h2;
pub mod process;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod service;
pub mod upstream;

use std::time::Duration;

/// The timeout for an expected event. It is generous, because a slow machine must not fail a test.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The credentials of the program under test. They must not appear in any output.
pub const CLIENT_ID: &str = "canary-client-4f1d";
pub const CLIENT_SECRET: &str = "canary-Secret+9b/2=e!";
pub const APP_KEY: &str = "canaryappkey77aa55cc33ee1100ff99";

/// The credentials for the egress proxy.
pub const EGRESS_USERNAME: &str = "canary-egress";
pub const EGRESS_PASSWORD: &str = "canary-Egress+9b/2=e!";

/// The admin token, in tests that set one.
pub const ADMIN_TOKEN: &str = "canaryadmintoken";

/// The signing key of webhooks, if it is not the partner secret.
pub const WEBHOOK_SECRET: &str = "canary-Webhook+9b/2=e!";

/// The signature in a Connect link. Possession of the link grants access.
pub const LINK_SIGNATURE: &str = "canarylinksignature4bb1f9f3d3a0e4e0";

/// The prefix of every token.
pub const TOKEN_PREFIX: &str = "canarytoken";
