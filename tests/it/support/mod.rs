//! Test support: the program as a child process, a TLS upstream that shows every byte, and a client that sends any.
//!
//! Everything is waited for by an event, with a generous limit that only a broken test reaches; nothing sleeps.

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

/// How long an expected event may take before a test fails. It is generous, since a slow machine is not a failure.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The credentials that the tests run the program with. No output may ever hold one of them.
pub const CLIENT_ID: &str = "canary-client-4f1d";
pub const CLIENT_SECRET: &str = "canary-Secret+9b/2=e!";
pub const APP_KEY: &str = "canaryappkey77aa55cc33ee1100ff99";

/// What the egress proxy asks for.
pub const EGRESS_USERNAME: &str = "canary-egress";
pub const EGRESS_PASSWORD: &str = "canary-Egress+9b/2=e!";

/// What an administrator shows on the admin port, in tests that have one.
pub const ADMIN_TOKEN: &str = "canaryadmintoken";

/// What webhooks are signed with, where it is not the partner secret.
pub const WEBHOOK_SECRET: &str = "canary-Webhook+9b/2=e!";

/// What a Connect link holds, which grants access to whoever has it.
pub const LINK_SIGNATURE: &str = "canarylinksignature4bb1f9f3d3a0e4e0";

/// What every token begins with.
pub const TOKEN_PREFIX: &str = "canarytoken";
