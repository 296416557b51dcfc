//! Whether the upstream can have processed a request that brought no response (RFC 9113, 8.7).

/// What is known to have become of a request that brought no answer, where it cannot have done anything or did not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Nothing of it was written: its connection closed first. `reused` when that had served before.
    NotSent { reused: bool },
    /// The upstream said, over HTTP/2, that it has not looked at it.
    NotProcessed,
    /// A connection that had served before closed without a byte of an answer. Whether the upstream looked at it is unknown.
    NoResponse,
}

impl Disposition {
    /// Whether the upstream certainly did nothing with it.
    pub(crate) fn is_unexecuted(self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::NotProcessed)
    }
}
