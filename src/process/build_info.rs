//! What this program was built from. `build.rs` sets it.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision of the source, or `unknown`.
pub const REVISION: &str = env!("FINICITY_PROXY_BUILD_REVISION");

/// The date of the source as RFC 3339, or `unknown`. It is not the time of the build.
pub const DATE: &str = env!("FINICITY_PROXY_BUILD_DATE");

/// The target triple.
pub const TARGET: &str = env!("FINICITY_PROXY_BUILD_TARGET");

/// The features that are compiled in, separated by commas, or `none`.
pub const FEATURES: &str = env!("FINICITY_PROXY_BUILD_FEATURES");
