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

labels! {
    /// The values that credentials consist of. The label is the environment variable.
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
    /// The environment variable that holds it; with `_FILE` behind it, the one that names a file.
    pub fn variable(self) -> &'static str {
        self.as_str()
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
