//! The request and result types of the layers.

use std::sync::Arc;

use http::{Request, Response};

use super::{body::ResponseBody, error::Error, record::Record};

/// A request on its way down the stack.
#[derive(Debug)]
pub struct Exchange<B> {
    /// The request, as changed by the layers so far.
    pub request: Request<B>,
    /// What the layers learn about it, for the access log and the metrics.
    pub record: Arc<Record>,
}

/// The result of a request: a response of the upstream or of the proxy, or an error that becomes a response.
pub(super) type ResponseResult = Result<Response<ResponseBody>, Error>;
