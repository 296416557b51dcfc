//! Why a request body failed.

/// Why a request body failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum BodyLimitError {
    #[error("the request body exceeds the limit of {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    #[error("the request body stalled or arrived too slowly")]
    TooSlow,
    #[error("the request body is incomplete")]
    Incomplete,
    #[error("the request ended before its body was read")]
    RequestFinished,
}
