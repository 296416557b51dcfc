//! The request path, from a client's connection to the vendor's API and back: [`stack`] assembles it.
//!
//! A request goes down the stack as an [`Exchange`]: the request, and the [`Record`] of what the layers learn about it. What
//! comes back up is the upstream's response, streamed, or an [`Error`] that one layer turns into a response.
//!
//! Deliberately absent: buffering of whole messages (except bodies of Connect requests), decompression of what is forwarded,
//! redirects, cookies, and retries of requests that may have been executed (except free, read-only ones).

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
    /// A pool without connections. Connections and the lookups of `resolver` run on the runtime that first uses them. A new connection
    /// uses the TLS configuration that `trust` holds when it is opened.
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
    /// Permits for requests in flight.
    pub concurrency: ConcurrencyLayer,
    /// Reads the token that is injected.
    pub token: TokenReader,
    /// The partner credentials in use; `None` with OAuth 2.0, and before credentials are loaded.
    pub partner: watch::Receiver<Option<PartnerCredentials>>,
    /// The daily budget of billable requests; `None` without a limit.
    pub billing: Option<Arc<BillingBudget>>,
    /// Keys that verify webhooks.
    pub signing_keys: SharedSigningKeys,
    /// Reports a refused token to the refresher.
    pub control: TokenControl,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Shutdown state.
    pub drain: Drain,
}

/// The request pipeline for `transport`: all layers, and the upstream below them.
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

/// The layers above `upstream`, in the order in which a request passes them.
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
        .layer(DrainLayer::new(drain)) // 503 after the drain timeout
        .layer(filter(move |exchange: &mut Exchange<_>| malformed::check(head_limits, exchange))) // unambiguous framing, head limits
        .layer(filter(move |exchange: &mut Exchange<_>| admission.admit(exchange))) // Host, Origin, required header
        .map_request(move |exchange| request_target::with_operation(catalogue, exchange)) // operation of the catalogue
        .layer(InterceptLayer::new(config, token.clone(), billing, signing_keys)) // methods, targets, policy, billing budget; local responses
        .layer(filter(move |exchange: &mut Exchange<_>| body_limits::check(limits, exchange))) // body size and minimum rate
        .map_request(move |exchange| body_limits::limit(limits, exchange))
        .layer(concurrency) // requests in flight, bounded queue
        .layer(DeadlineLayer::new(config)) // time to the first byte of the response
        .layer(filter(move |exchange: &mut Exchange<_>| headers::strip_request(&header_rules, exchange))) // hop-by-hop, credentials, identity
        .layer(PartnerIdLayer::new(config, partner)) // adds `partnerId` to bodies of Connect requests that lack it
        .layer(ReauthLayer::new(config, control, Arc::clone(&metrics))) // replaces a refused token and resends once
        .layer(RetryLayer::new(metrics)) // resends once after a connection failure, where that is safe
        .layer(InjectLayer::new(config, token)) // adds the proxy's credentials
        .service(upstream)
}
