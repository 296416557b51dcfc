//! What goes down the layers, and what comes back up.

use std::sync::Arc;

use http::{Request, Response};

use super::{body::ResponseBody, error::Error, record::Record};

/// A request on its way down the stack.
#[derive(Debug)]
pub struct Exchange<B> {
    /// The request as it is at this point of its way.
    pub request: Request<B>,
    /// What the layers learn about it; the access log and the metrics say it in the end.
    pub record: Arc<Record>,
}

/// The result of a request: the response of the upstream or of the proxy, or the error that becomes one.
pub(super) type ResponseResult = Result<Response<ResponseBody>, Error>;
