//! Integration tests: the real program as a process, a real TLS upstream, real sockets and signals.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the way to fail")]
#![expect(unreachable_pub, reason = "one binary; `pub` says what support offers to the tests")]

mod support;

mod alerts;
mod answers;
mod architecture;
mod attempts;
mod audit;
mod command_line;
mod commands;
mod crowd;
mod drain;
mod egress;
mod environment;
mod errors;
mod administration;
mod forwarding;
mod framing;
mod header_families;
mod healing;
mod held_connections;
mod http2;
mod http2_hostile;
mod isolation;
mod limits;
mod log_level;
mod log_reader;
mod logs;
mod methods;
mod partner;
mod plaintext;
mod policy;
mod probes;
mod process;
mod refused_start;
mod retries;
mod rollout;
mod rotation;
mod redaction;
mod scrubber;
mod secrets;
mod signals;
mod smuggling;
mod soak;
mod status;
mod targets;
mod tls;
mod sockets;
mod token_life;
mod token_responses;
mod wrong_files;
mod unfinished_heads;
