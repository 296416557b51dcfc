//! Why the body of a request was given up.

/// Why a request's body was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum BodyLimitError {
    #[error("the request body is larger than the limit of {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    #[error("the request body came too slowly or not at all")]
    TooSlow,
    #[error("the request body broke off")]
    Incomplete,
    #[error("the request was answered before its body was read")]
    RequestFinished,
}
