//! Secret stores as credential sources, each against its real server, or against a strict mock where none is available.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(feature = "vault")]
mod vault;
