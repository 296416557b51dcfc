//! Benchmarks of the request path's layers, each and all together, without sockets, TLS or a second process.
//!
//! ```console
//! $ cargo bench --bench layers -- framing     # only benchmarks with this in their names
//! $ cargo bench --bench layers -- --save-baseline before
//! $ cargo bench --bench layers -- --baseline before
//! ```
//!
//! Times depend on the machine and its load, so compare them with a baseline from the same hour. What must not grow is counted, not
//! timed, by `.ci/budget`. The access line and the metrics have a benchmark of their own, `observe`.

use std::{convert::Infallible, future, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use finicity_proxy::{
    config::{self, Inputs},
    message::transport::Transport,
    message::{
        framing::{HeadLimits, MessageFramer},
        path::canonical,
    },
    policy::{Mode, Policy, Rule},
    process::drain::Drain,
    proxy::{
        self, ConcurrencyLayer, Error, Exchange, LimitedBody, ObservedBody, ProxyState, Record, ReplayBody,
        ResponseBody,
        headers::{self, HeaderRules},
        request_target,
    },
    telemetry::Metrics,
    token::{self, Clock, scheme::AuthHeaders},
    vendor::catalogue::Catalogue,
};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;
use tower::Service;

/// A typical request.
const USUAL: &str = "GET /aggregation/v1/customers/1005061234/accounts HTTP/1.1\r\nHost: localhost:3464\r\n\
    User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: application/json\r\n\
    Connection: keep-alive\r\n\r\n";

/// A request through a service mesh, with all the header fields that clients and libraries add.
const CROWDED: &str = "GET /aggregation/v4/customers/1005061234/accounts/5011648377/transactions?fromDate=1420092061&\
    toDate=1767225599&start=1&limit=1000 HTTP/1.1\r\nHost: localhost:3464\r\nUser-Agent: okhttp/4.12.0\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip\r\nAccept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n\
    Connection: keep-alive, x-hop\r\nx-hop: 1\r\nFinicity-App-Key: placeholder\r\nAuthorization: Bearer placeholder\r\n\
    x-request-id: 7b1f2c9e-0000-4000-8000-123456789abc\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\n\
    x-envoy-attempt-count: 1\r\nx-b3-traceid: 463ac35c9f6413ad48485a3953bb6124\r\nx-b3-spanid: a2fb4a1d1a96d312\r\n\
    x-b3-sampled: 1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n\
    baggage: user=1\r\n\r\n";

/// A request with a chunked body.
const CHUNKED: &str = "POST /aggregation/v2/customers/active HTTP/1.1\r\nHost: localhost:3464\r\n\
    Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"username\":\"ada01\"}\r\n0\r\n\r\n";

/// The maximum size of a head: the defaults of `limits.*`.
const LIMITS: HeadLimits = HeadLimits { target_bytes: 8192, header_bytes: 32 * 1024, headers: 100 };

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    framing(&mut criterion);
    targets(&mut criterion);
    policy(&mut criterion);
    header_fields(&mut criterion);
    all_layers(&mut criterion);
    criterion.final_summary();
}

/// Framing of messages on a connection.
fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for (name, message) in [("usual", USUAL), ("crowded", CROWDED), ("chunked", CHUNKED)] {
        group.throughput(Throughput::Bytes(message.len() as u64));
        let mut framer = MessageFramer::new(LIMITS);
        group.bench_function(name, |bencher| {
            bencher.iter(|| framer.consume(black_box(message.as_bytes())).expect("the message is unambiguous"));
        });
        // As from a client that writes its head in two parts.
        let (first, second) = message.as_bytes().split_at(message.len() / 2);
        group.bench_function(format!("{name} in two parts"), |bencher| {
            bencher.iter(|| {
                framer.consume(black_box(first)).expect("the message is unambiguous");
                framer.consume(black_box(second)).expect("the message is unambiguous");
            });
        });
    }
    group.finish();
}

/// Parsing of request targets.
fn targets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("target");
    let endpoints = config().endpoints;
    for (name, path) in [
        ("short", "/aggregation/v1/customers"),
        ("long", "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions"),
        ("escaped", "/aggregation/v1/customers/%31005061234/accounts/a%20b/./x/../transactions"),
        ("other", "/no/such/operation"),
    ] {
        group.bench_function(format!("route, {name}"), |bencher| {
            bencher.iter(|| Catalogue::us().find(&Method::GET, black_box(path)));
        });
        group.bench_function(format!("canonical form, {name}"), |bencher| {
            bencher.iter(|| canonical(black_box(path)).is_ok());
        });
        let mut request = Request::get(path).body(()).expect("the path is valid");
        group.bench_function(format!("classify, {name}"), |bencher| {
            bencher.iter(|| request_target::classify(&endpoints, black_box(&mut request)).is_ok());
        });
    }
    group.finish();
}

/// Policy checks; the last rule decides.
fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let path = "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions";
    let route = Catalogue::us().find(&Method::GET, path);
    for count in [10, 100, 1000] {
        let others = (1..count).map(|index| format!("GET /aggregation/v4/customers/{{id}}/of-rule-{index}/**"));
        let last = "GET /aggregation/v4/customers/{id}/accounts/{accountId}/transactions".to_owned();
        let rules = others.chain([last]).map(|rule| rule.parse().expect("the rule is valid")).collect::<Vec<Rule>>();
        for (name, policy) in [
            ("allow", Policy::new(Catalogue::us(), &rules, &[], false, Mode::Enforce)),
            ("deny", Policy::new(Catalogue::us(), &[], &rules[..count - 1], false, Mode::Enforce)),
        ] {
            group.bench_function(format!("{name}, {count} rules"), |bencher| {
                bencher.iter(|| policy.check(&Method::GET, black_box(path), route).expect("the request is allowed"));
            });
        }
    }
    group.finish();
}

/// Stripping of header fields, in both directions.
fn header_fields(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let rules = HeaderRules::new(&config().injected_headers, &[]);
    for (name, message) in [("usual", USUAL), ("crowded", CROWDED)] {
        group.bench_function(format!("strip a request, {name}"), |bencher| {
            let exchange = || {
                let request = request(message, Bytes::new());
                let record = Arc::new(Record::new(Method::GET, None));
                Exchange { request, record }
            };
            bencher.iter_batched_ref(
                exchange,
                |exchange| headers::strip_request(&rules, exchange).is_ok(),
                BatchSize::SmallInput,
            );
        });
    }
    let response = {
        let mut response = HeaderMap::new();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_LENGTH, "1234"),
            (header::DATE, "Sun, 22 Nov 2026 12:00:00 GMT"),
            (header::SERVER, "nginx"),
            (header::CONNECTION, "keep-alive"),
            (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        ] {
            response.insert(name, HeaderValue::from_static(value));
        }
        response
    };
    group.bench_function("strip a response", |bencher| {
        bencher.iter_batched_ref(
            || response.clone(),
            |response| headers::strip_response(&rules, response),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// All layers: from the request that hyper has parsed to the response that hyper will write, without a log. The upstream service reads the
/// request body and responds immediately.
fn all_layers(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("the runtime can be built");
    let _entered = runtime.enter();
    let mut layers = layers();
    let mut group = criterion.benchmark_group("layers");
    let body = Bytes::from(vec![b'x'; 16 * 1024]);
    let upload =
        "POST /aggregation/v2/customers/active HTTP/1.1\r\nHost: localhost:3464\r\nContent-Length: 16384\r\n\r\n";
    for (name, message, body, expected) in [
        ("usual", USUAL, Bytes::new(), StatusCode::OK),
        ("crowded", CROWDED, Bytes::new(), StatusCode::OK),
        ("16 KiB upload, kept for a replay", upload, body, StatusCode::OK),
        // The layers down to `intercept` only. Subtract this to get the cost of the layers below.
        ("intercepted", "OPTIONS * HTTP/1.1\r\nHost: localhost:3464\r\n\r\n", Bytes::new(), StatusCode::NO_CONTENT),
        ("rejected", "TRACE / HTTP/1.1\r\nHost: localhost:3464\r\n\r\n", Bytes::new(), StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let check = |response: &Response<ObservedBody>| assert_eq!(response.status(), expected, "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || request(message, body.clone()),
                |request| {
                    let response = layers.call(request).now_or_never().expect("no layer waits");
                    let Ok(response) = response;
                    check(&response);
                    response
                        .into_body()
                        .collect()
                        .now_or_never()
                        .expect("the body is available")
                        .expect("the body is complete")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The layers with the default configuration, a token, and an upstream that responds immediately.
fn layers()
-> impl Service<Request<Full<Bytes>>, Response = Response<ObservedBody>, Error = Infallible, Future: Send> + Clone {
    let config = config();
    let metrics = Arc::new(Metrics::new());
    let (mut writer, token) = token::channel(Clock::Boot, Duration::from_secs(2));
    let value = |text| {
        let mut value = HeaderValue::from_static(text);
        value.set_sensitive(true);
        value
    };
    let headers = [
        (token::scheme::FINICITY_APP_KEY, value("0123456789abcdef0123456789abcdef")),
        (header::AUTHORIZATION, value("Bearer 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")),
    ];
    let usable_until = Clock::Boot.now() + Duration::from_secs(24 * 3600);
    writer.publish(AuthHeaders { headers, expires_in: None, untyped: false }, usable_until);
    let state = ProxyState {
        concurrency: ConcurrencyLayer::new(&config, Arc::clone(&metrics)),
        token,
        partner: watch::channel(None).1,
        billing: None,
        signing_keys: Arc::default(),
        control: token::command_channel().0,
        metrics,
        drain: Drain::default(),
    };
    let response = Bytes::from(vec![b' '; 1024]);
    let upstream = tower::service_fn(move |exchange: Exchange<ReplayBody<LimitedBody<Full<Bytes>>>>| {
        assert!(exchange.request.headers().contains_key(header::AUTHORIZATION), "the token is injected");
        let body = exchange.request.into_body();
        if !body.is_end_stream() {
            let body = body.collect().now_or_never().expect("the body is available");
            black_box(body.expect("the body is complete").to_bytes());
        }
        future::ready(Ok::<_, Error>(Response::new(ResponseBody::full(response.clone()))))
    });
    proxy::layers(&config, Transport::Tcp, state, upstream)
}

/// The default configuration of the data path.
fn config() -> proxy::Config {
    let secrets = ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"];
    let environment = secrets.map(|name| (name, "not-a-real-secret")).into_iter().collect();
    let inputs = Inputs { file: None, environment, flags: Vec::new() };
    config::load(&inputs).expect("the defaults are valid").proxy
}

/// The request with `head`, as hyper passes it on.
fn request(head: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a field is a name and a value");
        request = request.header(name, value);
    }
    request.body(Full::new(body)).expect("the request is well-formed")
}
