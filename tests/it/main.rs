//! Integration tests: the real program as a process, a real TLS upstream, real sockets and signals.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the way to fail")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests are threads without a runtime and drive a real process in real time"
)]
#![expect(unreachable_pub, reason = "one binary; `pub` marks what support offers to the tests")]

mod support;

/// Requests that reach the upstream, and responses to the client.
mod data_path {
    mod billing;
    mod browsers;
    mod egress;
    mod errors;
    mod executed;
    mod forwarding;
    mod half_close;
    mod header_families;
    mod held_connections;
    mod hosts;
    mod http2;
    mod http2_hostile;
    mod limits;
    mod methods;
    mod policy;
    mod reauthentication;
    mod responses;
    mod retries;
    mod slow_readers;
    mod sockets;
    mod targets;
}

/// Finicity Connect, with which users share their accounts.
mod connect {
    mod partner_id;
}

/// Notifications sent by the vendor.
mod webhooks {
    mod configuration;
    mod delivery;
    mod restarts;
    mod rotation;
    mod verification;
}

/// Request framing: where a request starts and ends.
mod framing {
    mod requests;
    mod smuggling;
    mod unfinished_heads;
}

/// Obtaining and replacing tokens, and rejected credentials.
mod token {
    mod attempts;
    mod failures;
    mod lifetime;
    mod partner;
    mod responses;
    mod rotation;
    mod startup_rejection;
}

/// Trust in upstream certificates, and the TLS handshake.
mod tls {
    mod plaintext;
    pub mod trust;
    mod wire;
}

/// Probes, administration, signals, shutdown, and the resources of the process.
mod operations {
    mod administration;
    mod crowd;
    mod drain;
    mod probes;
    mod process;
    mod rollout;
    mod service_manager;
    mod signals;
    mod soak;
}

/// What is logged, and that secrets are not.
mod logs {
    mod audit;
    mod level;
    mod redaction;
    mod requests;
    mod scrubber;
    mod secrets;
    mod stalled_reader;
}

/// The mock Finicity API: every operation, its state, its faults, and clients developed against it.
#[cfg(feature = "sandbox")]
mod sandbox {
    mod authentication;
    mod conformance;
    mod connect;
    mod control;
    mod documented_commands;
    mod documents;
    mod journey;
    mod seeds;
    mod state;
}

/// Subcommands, their arguments, environment and files, and their exit codes.
mod cli {
    #[cfg(feature = "cli-docs")]
    mod cli_docs;
    mod command_line;
    mod commands;
    mod config;
    mod credentials;
    mod doctor;
    mod doctor_network;
    mod environment;
    mod hints;
    mod isolation;
    mod preflight;
    mod status;
    mod wrong_files;
}

// Each store is a cargo feature of the same name.
#[cfg(feature = "store")]
mod stores;

// Checks of the source code, the alert rules and the documents. They start no program.
mod alerts;
mod architecture;
mod compliance;
mod faults;
