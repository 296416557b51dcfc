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
mod billing;
mod intercept;
mod body_limits;
mod concurrency;
mod deadline;
pub mod headers;
mod header_families;
mod connect;
mod reauthenticate;
mod replay;
mod retry;
mod vendor_code;
mod inject;
mod forward;
mod body;
mod filter;
mod webhook;

use std::{convert::Infallible, error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::watch;
use tower::{Service, ServiceBuilder};

pub use billing::BillingBudget;
pub use body::{ProgressBody, ResponseBody};
pub use body_limits::{BodyLimits, LimitedBody};
pub use concurrency::ConcurrencyLayer;
pub use config::{Config, ConnectConfig, ExtraHeaders};
pub use endpoints::{AuthEndpoint, AuthEndpoints, ResponseShape};
pub use error::{Code, Error, Executed};
pub use exchange::Exchange;
pub use observe::ObservedBody;
pub use record::Record;
pub use replay::ReplayBody;
pub use webhook::{
    ForwardTo, ForwardToError, ReplayWindow, SharedSigningKeys, WebhookConfig, WebhookReceiver,
    router as webhook_router,
};

use self::{
    admission::Admission, catch_panic::CatchPanicLayer, connect::PartnerIdLayer, deadline::DeadlineLayer,
    drain::DrainLayer, error_response::ErrorResponseLayer, filter::filter, forward::Upstream, headers::HeaderRules,
    inject::InjectLayer, intercept::InterceptLayer, observe::ObserveLayer, reauthenticate::ReauthLayer,
    retry::RetryLayer,
};
use crate::{
    credentials::PartnerCredentials,
    dns::Resolver,
    message::transport::Transport,
    process::drain::Drain,
    telemetry::Metrics,
    tls::TrustStore,
    token::{TokenControl, TokenReader},
};

/// The upstream connections of one worker, shared by its stacks for all transports.
#[derive(Clone)]
pub struct UpstreamPool(Upstream<LimitedBody<Incoming>>);

impl UpstreamPool {
    /// No connections yet. They live on the runtime that they are first used on, and so do the look-ups of `resolver`; they trust what
    /// `trust` says at each.
    pub fn new(config: &Config, resolver: Resolver, trust: TrustStore, metrics: Arc<Metrics>) -> Self {
        Self(Upstream::new(
            &config.upstream,
            Arc::new(HeaderRules::new(&config.injected_headers, &config.forwarded_headers)),
            resolver,
            trust,
            metrics,
        ))
    }
}

impl fmt::Debug for UpstreamPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamPool")
    }
}

/// The state shared by the stacks of all workers and transports.
#[derive(Clone, Debug)]
pub struct ProxyState {
    /// The permits of the requests in flight.
    pub concurrency: ConcurrencyLayer,
    /// The token that is injected.
    pub token: TokenReader,
    /// The partner of the credentials in use, if they have one.
    pub partner: watch::Receiver<Option<PartnerCredentials>>,
    /// What is left of the calls that may be billed, where they are limited.
    pub billing: Option<Arc<BillingBudget>>,
    /// The keys that webhooks are verified by.
    pub signing_keys: SharedSigningKeys,
    /// Where a refused token is reported.
    pub control: TokenControl,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The state of the shutdown.
    pub drain: Drain,
}

/// The request pipeline for requests over `transport`: all layers, and the upstream below them.
pub fn stack(
    config: &Config,
    transport: Transport,
    pool: UpstreamPool,
    state: ProxyState,
) -> impl Service<
    Request<Incoming>,
    Response = Response<ObservedBody>,
    Error = Infallible,
    Future: Future<Output = Result<Response<ObservedBody>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    layers(config, transport, state, pool.0)
}

/// The layers over `upstream`, which sends requests on: top to bottom is the way down.
pub fn layers<B, S>(
    config: &Config,
    transport: Transport,
    state: ProxyState,
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
    let ProxyState { concurrency, token, partner, billing, signing_keys, control, metrics, drain } = state;
    let admission = Arc::new(Admission::new(config, transport));
    let header_rules = Arc::new(HeaderRules::new(&config.injected_headers, &config.forwarded_headers));
    let (catalogue, head_limits, limits) = (config.catalogue, config.head_limits, config.body_limits);
    ServiceBuilder::new()
        .layer(ObserveLayer::new(transport, Arc::clone(&metrics))) // request id, access log, metrics
        .layer(ErrorResponseLayer::new(Arc::clone(&metrics))) // errors become responses here and nowhere else
        .layer(CatchPanicLayer::new(Arc::clone(&metrics)))
        .layer(DrainLayer::new(drain)) // none is waited for beyond the drain's time
        .layer(filter(move |exchange: &mut Exchange<_>| malformed::check(head_limits, exchange))) // one reading of the message, and no more of it than the limits
        .layer(filter(move |exchange: &mut Exchange<_>| admission.admit(exchange))) // who may call: host names, no browsers, a header
        .map_request(move |exchange| request_target::with_operation(catalogue, exchange)) // which operation of the catalogue it is
        .layer(InterceptLayer::new(config, token.clone(), billing, signing_keys)) // what may be called: methods, targets, policy; token calls end here
        .layer(filter(move |exchange: &mut Exchange<_>| body_limits::check(limits, exchange))) // how much may be sent …
        .map_request(move |exchange| body_limits::limit(limits, exchange)) // … and how slowly
        .layer(concurrency) // how many at once, and how many wait
        .layer(DeadlineLayer::new(config))
        .layer(filter(move |exchange: &mut Exchange<_>| headers::strip_request(&header_rules, exchange))) // nothing of the caller's that could pass for ours …
        .layer(PartnerIdLayer::new(config, partner)) // the partner's identifier, in the bodies of Connect calls that lack it
        .layer(ReauthLayer::new(config, control, Arc::clone(&metrics))) // a refused token is replaced and the request sent once more
        .layer(RetryLayer::new(metrics)) // a request that met a closed connection is sent once more, where that does no harm
        .layer(InjectLayer::new(config, token)) // … and our credentials, last of all
        .service(upstream)
}
