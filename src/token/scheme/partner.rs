//! Partner authentication, as the vendor's published API documents it: id and secret as JSON, an answer with nothing but a
//! token, which then goes in a header field of its own.

use serde::Serialize;
use zeroize::Zeroizing;

use super::json;
use crate::credentials::Credentials;

/// The path of the token endpoint where none is configured.
pub const TOKEN_PATH: &str = "/aggregation/v2/partners/authentication";

/// The JSON body of the token call.
pub fn body(credentials: &Credentials) -> Zeroizing<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        partner_id: &'a str,
        partner_secret: &'a str,
    }

    let body = Body { partner_id: credentials.id.expose(), partner_secret: credentials.secret.expose() };
    json(&body, &[body.partner_id, body.partner_secret])
}
