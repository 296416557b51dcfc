//! Partner authentication, as the vendor's published API documents it: the request carries id and secret as JSON, the response has
//! only a token, and requests carry that token in a separate header field.

use serde::Serialize;
use zeroize::Zeroizing;

use super::json;
use crate::credentials::Credentials;

/// The default path of the token endpoint.
pub const TOKEN_PATH: &str = "/aggregation/v2/partners/authentication";

/// The JSON body of the token request.
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
