//! Build information, set by `build.rs`.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision of the source, or `unknown`.
pub const REVISION: &str = env!("FINICITY_PROXY_BUILD_REVISION");

/// The date of the source (RFC 3339), not of the build, or `unknown`.
pub const DATE: &str = env!("FINICITY_PROXY_BUILD_DATE");

/// The target triple.
pub const TARGET: &str = env!("FINICITY_PROXY_BUILD_TARGET");

/// The enabled cargo features, comma-separated, or `none`.
pub const FEATURES: &str = env!("FINICITY_PROXY_BUILD_FEATURES");
