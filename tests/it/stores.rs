//! Secret stores as sources of credentials, each against its real server.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "vault")]
mod vault;
