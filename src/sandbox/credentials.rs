//! The sandbox's credentials. They are public.

/// Credentials for the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    /// OAuth 2.0 client identifier and partner id. With the suffix `.NAME`, it is the one of the seed `NAME`.
    pub client_id: &'static str,
    /// OAuth 2.0 client secret and partner secret.
    pub client_secret: &'static str,
    /// App Key.
    pub app_key: &'static str,
}

/// The only credentials that the sandbox accepts. They are valid nowhere else.
pub const CREDENTIALS: Credentials = Credentials {
    client_id: "sandbox-client",
    client_secret: "sandbox-Secret-1!",
    app_key: "sandbox-app-key-0123456789abcdef",
};
