//! Rejects a request that the connection found to be malformed, ambiguous, too large or incomplete.

use super::{
    error::{Code, Error},
    exchange::Exchange,
};
use crate::message::framing::{FramingFault, HeadLimits, HeadPart};

/// Passes a request without a [`FramingFault`]. The connection puts the fault into the request's extensions, which no caller can set.
///
/// # Errors
///
/// The error of the fault. Nothing more is read from the connection, so the response closes it.
pub(super) fn check<B>(limits: HeadLimits, exchange: &mut Exchange<B>) -> Result<(), Error> {
    match exchange.request.extensions().get::<FramingFault>() {
        None => Ok(()),
        Some(fault) => Err(error(*fault, limits).closing_connection()),
    }
}

fn error(fault: FramingFault, limits: HeadLimits) -> Error {
    let HeadLimits { target_bytes, header_bytes, headers } = limits;
    let (code, detail) = match fault {
        FramingFault::InvalidByte { part, byte, offset } => return invalid_byte(part, byte, offset),
        FramingFault::FieldLine(number) => {
            let detail = format!("Header field {number} is not of the form \"name: value\".");
            return Error::new(Code::BadRequest, detail);
        }
        FramingFault::LengthAndCoding => {
            (Code::BadRequest, "The request has both Content-Length and Transfer-Encoding; send only one.")
        }
        FramingFault::Length => {
            (Code::BadRequest, "Content-Length must be a single decimal number in a single header field.")
        }
        FramingFault::Coding => (Code::BadRequest, "Transfer-Encoding must be \"chunked\", and requires HTTP/1.1."),
        FramingFault::UnsupportedCoding => (
            Code::NotImplemented,
            "Only the transfer coding \"chunked\" is supported; use Content-Encoding for compression.",
        ),
        FramingFault::Fragment => {
            (Code::BadRequest, "The request target has a fragment; remove it, or encode \"#\" as %23.")
        }
        FramingFault::TargetTooLong => {
            let detail = format!("The request target exceeds limits.target_bytes ({target_bytes} bytes).");
            return Error::new(Code::TargetTooLong, detail);
        }
        FramingFault::HeadersTooLarge => {
            let detail = format!(
                "The header exceeds limits.headers ({headers} fields) or limits.header_bytes ({header_bytes} bytes)."
            );
            return Error::new(Code::HeadersTooLarge, detail);
        }
        FramingFault::HeadTimeout => (
            Code::RequestTimeout,
            "The request head was not complete within limits.header_timeout; send it without delay.",
        ),
        FramingFault::HeadEvicted => (
            Code::RequestTimeout,
            "The request head was not complete when the connection was evicted to make room for others; send it without delay.",
        ),
        FramingFault::RequestLine => {
            (Code::BadRequest, "The request line must be a method, a target and HTTP/1.1, separated by single spaces.")
        }
        FramingFault::Version => (Code::BadRequest, "The request must use HTTP/1.1 or HTTP/1.0."),
        FramingFault::Target => {
            (Code::BadRequest, "The request target must be a path that starts with a single slash.")
        }
        // Occurs only after the head, when this check has passed.
        FramingFault::Chunk => (Code::BadRequest, "The request body is incomplete."),
    };
    Error::new(code, detail)
}

/// The error for a `byte` that is not allowed in `part`. The response shows nothing else of the request.
fn invalid_byte(part: HeadPart, byte: u8, offset: usize) -> Error {
    let shown = match byte {
        b' ' => "space".to_owned(),
        0x21..=0x7e => format!("character {}", char::from(byte)),
        _ => format!("byte 0x{byte:02x}"),
    };
    let detail = match part {
        HeadPart::Method => format!("Invalid method: {shown} at offset {offset}."),
        HeadPart::Target => {
            format!("Invalid request target: {shown} at offset {offset}; percent-encode it as %{byte:02X}.")
        }
        HeadPart::FieldName(number) => {
            format!("Invalid name of header field {number}: {shown} at offset {offset}.")
        }
        HeadPart::FieldValue(number) => {
            format!("Invalid value of header field {number}: {shown} at offset {offset}.")
        }
    };
    Error::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, Request};

    use super::*;
    use crate::proxy::Record;

    #[test]
    fn only_a_framing_fault_is_an_error() {
        let code = |fault: Option<FramingFault>| {
            let mut request = Request::new(());
            fault.into_iter().for_each(|fault| assert!(request.extensions_mut().insert(fault).is_none()));
            let record = Arc::new(Record::new(Method::GET, None));
            let limits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };
            check(limits, &mut Exchange { request, record }).map_err(|error| error.code())
        };
        assert_eq!(code(None), Ok(()));
        assert_eq!(code(Some(FramingFault::LengthAndCoding)), Err(Code::BadRequest));
        assert_eq!(code(Some(FramingFault::UnsupportedCoding)), Err(Code::NotImplemented));
        assert_eq!(code(Some(FramingFault::TargetTooLong)), Err(Code::TargetTooLong));
        assert_eq!(code(Some(FramingFault::HeadersTooLarge)), Err(Code::HeadersTooLarge));
        assert_eq!(code(Some(FramingFault::HeadTimeout)), Err(Code::RequestTimeout));
        assert_eq!(code(Some(FramingFault::HeadEvicted)), Err(Code::RequestTimeout));
    }
}
