//! The values that make up credentials, and the name of each in its source.

use crate::secret::Secret;

/// One value and its origin.
#[derive(Clone, Debug)]
pub struct Sourced {
    /// The value as stored, including a trailing line break.
    pub value: Secret<String>,
    /// Where the value was read, for errors: a variable, a path or a member of a secret.
    pub origin: String,
}

labels! {
    /// The values that make up credentials. The label is the environment variable.
    #[derive(PartialOrd, Ord)]
    pub enum Field {
        /// OAuth 2.0 client identifier.
        ClientId = "FINICITY_CLIENT_ID",
        /// OAuth 2.0 client secret.
        ClientSecret = "FINICITY_CLIENT_SECRET",
        /// Partner identifier.
        PartnerId = "FINICITY_PARTNER_ID",
        /// Partner secret.
        PartnerSecret = "FINICITY_PARTNER_SECRET",
        /// App Key.
        AppKey = "FINICITY_APP_KEY",
    }
}

impl Field {
    /// The environment variable for the value. With the suffix `_FILE`, it is the variable for the path of a file with the value.
    pub fn variable(self) -> &'static str {
        self.as_str()
    }

    /// The name of the value's file in a credentials directory, and of its member in a stored secret.
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
