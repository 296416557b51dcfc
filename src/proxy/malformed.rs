//! Refuses a request of which the connection found that it has more than one reading, or is too large.

use super::{
    error::{Code, Error},
    exchange::Exchange,
};
use crate::message::framing::{FramingFault, HeadLimits, HeadPart};

/// Lets a request through with which nothing is wrong. The connection leaves what is wrong in the request's extensions, where
/// no caller can put anything.
///
/// # Errors
///
/// What is wrong. Nothing more is read from the connection, so the answer says that it closes.
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
            let detail = format!("Header field {number} is not a name, a colon and a value.");
            return Error::new(Code::BadRequest, detail);
        }
        FramingFault::LengthAndCoding => {
            (Code::BadRequest, "The request has both Content-Length and Transfer-Encoding; send one of them.")
        }
        FramingFault::Length => (Code::BadRequest, "Content-Length must be one decimal number, in one header field."),
        FramingFault::Coding => (Code::BadRequest, "Transfer-Encoding can only be \"chunked\", and only in HTTP/1.1."),
        FramingFault::UnsupportedCoding => {
            (Code::NotImplemented, "No transfer coding but \"chunked\" is supported; use Content-Encoding to compress.")
        }
        FramingFault::Fragment => (
            Code::BadRequest,
            "The request target has a fragment; leave out \"#\" and what follows, or encode it as %23.",
        ),
        FramingFault::TargetTooLong => {
            let detail = format!("The request target is longer than limits.target_bytes, {target_bytes} bytes.");
            return Error::new(Code::TargetTooLong, detail);
        }
        FramingFault::HeadersTooLarge => {
            let detail = format!(
                "There are more header fields than limits.headers, {headers}, or they are larger than limits.header_bytes, \
                 {header_bytes} bytes."
            );
            return Error::new(Code::HeadersTooLarge, detail);
        }
        FramingFault::HeadTimeout => (
            Code::RequestTimeout,
            "The head of the request was not complete within limits.header_timeout; send it at once.",
        ),
        FramingFault::HeadEvicted => (
            Code::RequestTimeout,
            "The head of the request was not complete when its place was needed for others; send it at once.",
        ),
        FramingFault::RequestLine => {
            (Code::BadRequest, "The request line must be a method, a target and HTTP/1.1, with one space between them.")
        }
        FramingFault::Version => (Code::BadRequest, "The request must be in HTTP/1.1 or HTTP/1.0."),
        FramingFault::Target => (Code::BadRequest, "The request target must be a path, with one slash at its start."),
        // It comes after the head, when the request is on its way already.
        FramingFault::Chunk => (Code::BadRequest, "The request body broke off."),
    };
    Error::new(code, detail)
}

/// The error for a `byte` that `part` must not have. The byte is all that the response shows of the request.
fn invalid_byte(part: HeadPart, byte: u8, offset: usize) -> Error {
    let shown = match byte {
        b' ' => "a space".to_owned(),
        0x21..=0x7e => format!("the character {}", char::from(byte)),
        _ => format!("the byte 0x{byte:02x}"),
    };
    let detail = match part {
        HeadPart::Method => format!("The method has {shown} at offset {offset}, which no method may have."),
        HeadPart::Target => {
            format!("The request target has {shown} at offset {offset}; percent-encode it as %{byte:02X}.")
        }
        HeadPart::FieldName(number) => {
            format!("The name in header field {number} has {shown} at offset {offset}, which no field name may have.")
        }
        HeadPart::FieldValue(number) => {
            format!("Header field {number} has {shown} at offset {offset}, which no field value may have.")
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
    fn a_fault_is_an_error_and_nothing_else_is() {
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
