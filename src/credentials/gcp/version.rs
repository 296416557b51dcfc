//! Parses the versions of a secret from Secret Manager's responses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use crc::{CRC_32_ISCSI, Crc, Table};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    failure::{Failure, VersionState},
    http::Response,
};
use crate::{credentials::store::StoredSecret, secret::Secret};

/// CRC32C (Castagnoli).
const CRC32C: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

/// A version, without its value.
pub(super) struct Version {
    /// The version number.
    pub(super) number: String,
    /// Identifies the version, even if the secret is deleted and created again, which restarts at version 1.
    pub(super) id: String,
}

/// The version in a response to `versions.get`, which must be readable.
pub(super) fn describe(response: &Response) -> Result<Version, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        name: &'a str,
        create_time: &'a str,
        state: &'a str,
    }

    let body: Option<Body<'_>> = serde_json::from_slice(response.body()).ok();
    let body = body.and_then(|body| Some((number(body.name)?, body)));
    let (number, Body { create_time, state, .. }) = body.ok_or_else(Failure::unreadable_response)?;
    match state {
        "ENABLED" => Ok(Version { number: number.to_owned(), id: format!("{number} of {create_time}") }),
        "DISABLED" => Err(Failure::unavailable(VersionState::Disabled, Some(number))),
        "DESTROYED" => Err(Failure::unavailable(VersionState::Destroyed, Some(number))),
        _ => Err(Failure::unreadable_response()),
    }
}

/// The secret in a response to `versions.access`. Its version is `described`, or else consists of its number and checksum.
pub(super) fn read(response: &Response, described: Option<&Version>) -> Result<StoredSecret, Failure> {
    #[derive(Deserialize)]
    struct Body {
        name: String,
        payload: Payload,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        data: Zeroizing<String>,
        /// A 64-bit integer, which Google encodes as a string.
        data_crc32c: Option<String>,
    }

    let body: Body = serde_json::from_slice(response.body()).map_err(|_| Failure::unreadable_response())?;
    let number = number(&body.name).ok_or_else(Failure::unreadable_response)?;
    // Full capacity, because a reallocation would leave a copy in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(body.payload.data.len()));
    BASE64_STANDARD.decode_vec(&*body.payload.data, &mut bytes).map_err(|_| Failure::unreadable_response())?;
    let checksum = CRC32C.checksum(&bytes);
    if body.payload.data_crc32c.is_some_and(|sent| sent.parse() != Ok(checksum)) {
        return Err(Failure::damaged());
    }
    let version = match described {
        Some(Version { id, .. }) => id.clone(),
        None => format!("{number} with {checksum:08x}"),
    };
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Failure::binary()
    })?;
    Ok(StoredSecret { version, text: Secret::new(text) })
}

/// The number at the end of the resource name of a version.
fn number(name: &str) -> Option<&str> {
    let (_, number) = name.rsplit_once("/versions/")?;
    let is_number = (1..=20).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(number)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::credentials::StoreFault;

    const NAME: &str = "projects/123/secrets/s/versions/7";

    fn response(body: &str) -> Response {
        http::Response::new(Bytes::copy_from_slice(body.as_bytes()))
    }

    fn payload(data: &str, checksum: &str) -> Result<StoredSecret, Failure> {
        read(&response(&format!(r#"{{"name": "{NAME}", "payload": {{"data": "{data}"{checksum}}}}}"#)), None)
    }

    #[test]
    fn a_version_is_described_by_number_and_creation() {
        let body = |state: &str, name: &str| {
            response(&format!(
                r#"{{"name": "{name}", "createTime": "2026-01-01T00:00:00Z", "state": "{state}", "etag": "x"}}"#
            ))
        };
        let version = describe(&body("ENABLED", NAME)).ok().unwrap();
        assert_eq!((&*version.number, &*version.id), ("7", "7 of 2026-01-01T00:00:00Z"));
        for (state, expected) in
            [("DISABLED", "its version 7 is disabled"), ("DESTROYED", "its version 7 is destroyed")]
        {
            let failure = describe(&body(state, NAME)).err().unwrap();
            assert_eq!((failure.fault, &*failure.reason), (StoreFault::VersionUnavailable, expected));
        }
        for (state, name) in
            [("CANARY", NAME), ("ENABLED", "projects/1/secrets/s/versions/latest"), ("ENABLED", "canary")]
        {
            let failure = describe(&body(state, name)).err().unwrap();
            assert_eq!(failure.fault, StoreFault::Unreachable);
        }
    }

    #[test]
    fn a_payload_must_match_its_checksum() {
        // The check value of CRC32C.
        let secret = payload("MTIzNDU2Nzg5", r#", "dataCrc32c": "3808858755""#).unwrap();
        assert_eq!((secret.text.expose().as_str(), &*secret.version), ("123456789", "7 with e3069283"));
        // Google's JSON may escape the padding.
        assert_eq!(payload(r"MTIzNDU2Nzg5MA\u003d\u003d", "").unwrap().text.expose(), "1234567890");
        for wrong in ["3808858754", "-1", "", "4294967296", "canary"] {
            let failure = payload("MTIzNDU2Nzg5", &format!(r#", "dataCrc32c": "{wrong}""#)).unwrap_err();
            assert!(failure.fault == StoreFault::Unreachable && failure.reason.contains("CRC32C"), "{failure:?}");
        }
    }

    #[test]
    fn an_invalid_payload_is_an_error_and_never_shown() {
        for (data, fault) in [("/w==", StoreFault::Malformed), ("canary!", StoreFault::Unreachable)] {
            let failure = payload(data, "").unwrap_err();
            assert_eq!(failure.fault, fault);
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }
}
