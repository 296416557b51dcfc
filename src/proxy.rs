//! The way of a request, from a caller's connection to the vendor's API and back: [`stack`] is all of it.
//!
//! What comes down the stack is an [`Exchange`]: the request, and the [`Record`] of what the layers learn about it. What
//! comes back up is the upstream's answer, streamed, or an [`Error`] that one layer turns into a response.
//!
//! Deliberately absent: buffering, decompression, redirects, cookies, and any retry of a request that may have been executed,
//! but for those that read and cost nothing.

mod config;
mod exchange;
mod record;
mod error;
mod observe;
mod request_id;
mod error_response;
mod catch_panic;
mod drain;
mod malformed;
mod admission;
pub mod request_target;
mod endpoints;
mod intercept;
mod body_limits;
mod concurrency;
mod deadline;
pub mod headers;
mod header_families;
mod reauthenticate;
mod replay;
mod retry;
mod vendor_code;
mod inject;
mod forward;
mod body;
mod filter;

use std::{convert::Infallible, error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};

pub use body::{RequestBody, ResponseBody};
pub use body_limits::{BodyLimits, LimitedBody};
pub use concurrency::ConcurrencyLayer;
pub use config::Config;
pub use endpoints::{Endpoint, Endpoints, Shape};
pub use error::{Code, Error, UNFINISHED_HEAD};
pub use exchange::Exchange;
pub use observe::ObservedBody;
pub use record::Record;
pub use replay::ReplayBody;

use self::{
    admission::Admission, catch_panic::CatchPanicLayer, deadline::DeadlineLayer, drain::DrainLayer,
    error_response::ErrorResponseLayer, filter::step, forward::Upstream, headers::HeaderRules, inject::InjectLayer,
    intercept::InterceptLayer, observe::ObserveLayer, reauthenticate::HealLayer, retry::RetryLayer,
};
use crate::{
    message::transport::Transport,
    process::drain::Drain,
    telemetry::Metrics,
    tls::TrustStore,
    token::{TokenControl, TokenReader},
};

/// The upstream connections of one worker, shared by its stacks for all transports.
#[derive(Clone)]
pub struct Pool(Upstream<LimitedBody<Incoming>>);

impl Pool {
    /// No connections yet. They live on the runtime that they are first used on, and trust what `trust` says at each.
    pub fn new(config: &Config, trust: TrustStore, metrics: Arc<Metrics>) -> Self {
        Self(Upstream::new(
            &config.upstream,
            Arc::new(HeaderRules::new(&config.own_headers, &config.forward)),
            trust,
            metrics,
        ))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

/// The state shared by the stacks of all workers and transports.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The places among the requests in flight.
    pub concurrency: ConcurrencyLayer,
    /// The token that is injected.
    pub token: TokenReader,
    /// Where a refused one is told of.
    pub control: TokenControl,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How far the end of the process has come.
    pub drain: Drain,
}

/// The request pipeline for requests over `transport`: all layers, and the upstream below them.
pub fn stack(
    config: &Config,
    transport: Transport,
    pool: Pool,
    shared: Shared,
) -> impl Service<
    Request<Incoming>,
    Response = Response<ObservedBody>,
    Error = Infallible,
    Future: Future<Output = Result<Response<ObservedBody>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    layers(config, transport, shared, pool.0)
}

/// The layers over `upstream`, which sends requests on: top to bottom is the way down.
pub fn layers<B, S>(
    config: &Config,
    transport: Transport,
    shared: Shared,
    upstream: S,
) -> impl Service<
    Request<B>,
    Response = Response<ObservedBody>,
    Error = Infallible,
    Future: Future<Output = Result<Response<ObservedBody>, Infallible>> + Send,
>
+ Clone
+ Send
+ 'static
+ use<B, S>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin + Send + 'static,
    S: Service<Exchange<ReplayBody<LimitedBody<B>>>, Response = Response<ResponseBody>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let Shared { concurrency, token, control, metrics, drain } = shared;
    let admission = Arc::new(Admission::new(config, transport));
    let names = Arc::new(HeaderRules::new(&config.own_headers, &config.forward));
    let (catalogue, limits) = (config.catalogue, config.upload);
    ServiceBuilder::new()
        .layer(ObserveLayer::new(transport, Arc::clone(&metrics))) // request id, access log, metrics
        .layer(ErrorResponseLayer::new(Arc::clone(&metrics))) // errors become responses here and nowhere else
        .layer(CatchPanicLayer::new(Arc::clone(&metrics)))
        .layer(DrainLayer::new(drain)) // none is waited for beyond the drain's time
        .layer(step(malformed::check)) // one reading of the message, and no more of it than the limits
        .layer(step(move |exchange: &mut Exchange<_>| admission.admit(exchange))) // who may call: host names, no browsers, a header
        .map_request(move |exchange| request_target::with_operation(catalogue, exchange)) // which operation of the catalogue it is
        .layer(InterceptLayer::new(config, token.clone())) // what may be called: methods, targets, policy; token calls end here
        .layer(step(move |exchange: &mut Exchange<_>| body_limits::check(limits, exchange))) // how much may be sent …
        .map_request(move |exchange| body_limits::watch(limits, exchange)) // … and how slowly
        .layer(concurrency) // how many at once, and how many wait
        .layer(DeadlineLayer::new(config))
        .layer(step(move |exchange: &mut Exchange<_>| headers::strip_request(&names, exchange))) // nothing of the caller's that could pass for ours …
        .layer(HealLayer::new(config, control, Arc::clone(&metrics))) // a refused token is replaced and the request sent once more
        .layer(RetryLayer::new(metrics)) // a request that met a closed connection is sent once more, where that does no harm
        .layer(InjectLayer::new(config, token)) // … and our credentials, last of all
        .service(upstream)
}
