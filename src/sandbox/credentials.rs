//! The one set of credentials. They are public.

/// The credentials that the sandbox knows.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    /// OAuth 2.0 client identifier, also taken for the partner id. With `.NAME` behind it, it is that of the seed `NAME`.
    pub client_id: &'static str,
    /// OAuth 2.0 client secret, also taken for the partner secret.
    pub client_secret: &'static str,
    /// App Key.
    pub app_key: &'static str,
}

/// What to call the sandbox with. Public knowledge; they open nothing else.
pub const CREDENTIALS: Credentials = Credentials {
    client_id: "sandbox-client",
    client_secret: "sandbox-Secret-1!",
    app_key: "sandbox-app-key-0123456789abcdef",
};
