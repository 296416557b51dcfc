//! The values that credentials consist of, and what each is called where it is kept.

use crate::secret::Secret;

/// One value, and where it was read.
#[derive(Clone, Debug)]
pub struct Sourced {
    /// The value as it is kept there, the line break at its end included.
    pub value: Secret<String>,
    /// The name of the place, for errors: a variable or a path, never a value.
    pub origin: String,
}

/// The values that credentials consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// OAuth 2.0 client identifier.
    ClientId,
    /// OAuth 2.0 client secret.
    ClientSecret,
    /// Partner identifier.
    PartnerId,
    /// Partner secret.
    PartnerSecret,
    /// App Key.
    AppKey,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 5] = [Self::ClientId, Self::ClientSecret, Self::PartnerId, Self::PartnerSecret, Self::AppKey];

    /// The environment variable that holds it; with `_FILE` behind it, the one that names a file.
    pub fn variable(self) -> &'static str {
        match self {
            Self::ClientId => "FINICITY_CLIENT_ID",
            Self::ClientSecret => "FINICITY_CLIENT_SECRET",
            Self::PartnerId => "FINICITY_PARTNER_ID",
            Self::PartnerSecret => "FINICITY_PARTNER_SECRET",
            Self::AppKey => "FINICITY_APP_KEY",
        }
    }

    /// The file that holds it in a directory of credentials.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::ClientSecret => "client_secret",
            Self::PartnerId => "partner_id",
            Self::PartnerSecret => "partner_secret",
            Self::AppKey => "app_key",
        }
    }
}
