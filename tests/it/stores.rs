//! Secret stores as sources of credentials, each against its real server, or a strict one of its API where none can be had.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(feature = "vault")]
mod vault;
