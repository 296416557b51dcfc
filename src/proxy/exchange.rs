//! What goes down the layers.

use std::sync::Arc;

use http::Request;

use super::record::Record;

/// A request on its way down the stack.
#[derive(Debug)]
pub struct Exchange<B> {
    /// The request as it is at this point of its way.
    pub request: Request<B>,
    /// What the layers learn about it; the access log and the metrics say it in the end.
    pub record: Arc<Record>,
}
