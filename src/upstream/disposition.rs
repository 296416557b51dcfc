//! Whether the upstream can have processed a request that got no response (RFC 9113, section 8.7).

/// What is known about a request without a response, where a retry may be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// No byte was written: the connection closed first. `reused`: the connection had served a request before.
    NotSent { reused: bool },
    /// Over HTTP/2, the upstream reported that it did not process the request.
    NotProcessed,
    /// A reused connection closed without a byte of a response. Whether the upstream processed the request is unknown.
    NoResponse,
}

impl Disposition {
    /// Whether the upstream certainly did not execute the request.
    pub(crate) fn is_unexecuted(self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::NotProcessed)
    }
}
