use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::Request;
use http_body_util::Full;
use tower::{ServiceExt as _, service_fn, util::BoxCloneService};

use super::*;
use crate::proxy::{error::Code, record::Record, replay::ReplayBuffer};
use crate::vendor::catalogue::Catalogue;

/// A free read, a billed call, a call that may be billed, and one that is not in the catalogue.
const FREE: &str = "/aggregation/v1/customers";
const BILLED: &str = "/aggregation/v1/customers/1/accounts/2/owner";
const MAYBE_BILLED: &str = "/aggregation/v1/customers/1/accounts";
const UNKNOWN: &str = "/x";

const NOT_SENT: Disposition = Disposition::NotSent { reused: true };

type Inner = BoxCloneService<Exchange<ReplayBody<Full<Bytes>>>, Response<ResponseBody>, Error>;

/// The layer above an upstream that fails its first `failures` requests with `disposition`, and the number of requests that it got.
fn failing(disposition: Disposition, failures: usize) -> (Retry<Inner>, Arc<AtomicUsize>, Arc<Metrics>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let inner = service_fn(move |exchange: Exchange<ReplayBody<Full<Bytes>>>| {
        let (head, body) = exchange.request.into_parts();
        body.buffer().set_head(head);
        let fails = counted.fetch_add(1, SeqCst) < failures;
        std::future::ready(if fails {
            Err(Error::new(Code::UpstreamUnreachable, "x").with_disposition(Some(disposition)))
        } else {
            Ok(Response::new(ResponseBody::full("")))
        })
    });
    let metrics = Arc::new(Metrics::new());
    (RetryLayer::new(Arc::clone(&metrics)).layer(BoxCloneService::new(inner)), seen, metrics)
}

/// Sends a request. Returns whether it got a response, and whether it was resent.
async fn send(retry: &Retry<Inner>, method: Method, path: &str) -> (bool, bool) {
    let record = Arc::new(Record::new(method.clone(), None));
    record.set_operation(Catalogue::us().find(&method, path));
    let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from_static(b"body"))).unwrap();
    let request = ReplayBuffer::wrap(request, Bytes::new(), 0);
    let result = retry.clone().oneshot(Exchange { request, record: Arc::clone(&record) }).await;
    (result.is_ok(), record.is_retried())
}

#[tokio::test(start_paused = true)]
async fn g01_g02_h04_disposition_and_operation_decide_about_a_retry() {
    let methods =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    for disposition in [NOT_SENT, Disposition::NotSent { reused: false }, Disposition::NotProcessed] {
        for method in &methods {
            for path in [FREE, BILLED, MAYBE_BILLED, UNKNOWN] {
                let (retry, seen, _) = failing(disposition, 1);
                assert_eq!(send(&retry, method.clone(), path).await, (true, true), "{disposition:?} {method} {path}");
                assert_eq!(seen.load(SeqCst), 2);
            }
        }
    }
    for method in methods {
        for path in [FREE, BILLED, MAYBE_BILLED, UNKNOWN] {
            let (retry, seen, _) = failing(Disposition::NoResponse, 1);
            let is_retried = method == Method::GET && path == FREE;
            assert_eq!(send(&retry, method.clone(), path).await, (is_retried, is_retried), "{method} {path}");
            assert_eq!(seen.load(SeqCst), 1 + usize::from(is_retried));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_operation_that_is_not_a_read_is_not_retried() {
    for method in [Method::PUT, Method::DELETE] {
        let path = "/aggregation/v1/customers/1";
        assert!(!Catalogue::us().find(&method, path).is_billable());
        let (retry, seen, _) = failing(Disposition::NoResponse, 1);
        assert_eq!(send(&retry, method, path).await, (false, false));
        assert_eq!(seen.load(SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_a_disposition_is_not_retried() {
    let (retry, seen, metrics) = failing(NOT_SENT, 0);
    let failing = service_fn(|_: Exchange<_>| std::future::ready(Err(Error::new(Code::UpstreamUnreachable, "x"))));
    let retry = Retry { inner: BoxCloneService::new(failing), ..retry };
    assert_eq!(send(&retry, Method::GET, FREE).await, (false, false));
    assert_eq!(seen.load(SeqCst), 0);
    assert!(metrics.render().contains("finicity_proxy_retries_total 0"));
}

#[tokio::test(start_paused = true)]
async fn g03_a_request_is_sent_at_most_twice() {
    for disposition in
        [NOT_SENT, Disposition::NotSent { reused: false }, Disposition::NotProcessed, Disposition::NoResponse]
    {
        let (retry, seen, metrics) = failing(disposition, usize::MAX);
        assert_eq!(send(&retry, Method::GET, FREE).await, (false, true));
        assert_eq!(seen.load(SeqCst), 2, "{disposition:?}");
        assert!(metrics.render().contains("finicity_proxy_retries_total 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn g03_retries_are_limited_to_the_budget() {
    for disposition in [Disposition::NotSent { reused: false }, Disposition::NotProcessed, Disposition::NoResponse] {
        let (retry, seen, _) = failing(disposition, usize::MAX);
        for _ in 0..1000 {
            send(&retry, Method::GET, FREE).await;
        }
        let extra = seen.load(SeqCst) - 1000;
        assert!((200..=210).contains(&extra), "{disposition:?}: {extra} in addition to the 1000");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(send(&retry, Method::GET, FREE).await, (false, true), "the budget is refilled");
    }
}

#[tokio::test(start_paused = true)]
async fn unsent_requests_on_reused_connections_need_no_budget() {
    let (retry, seen, _) = failing(NOT_SENT, usize::MAX);
    for _ in 0..1000 {
        send(&retry, Method::GET, FREE).await;
    }
    assert_eq!(seen.load(SeqCst), 2000);
}

#[tokio::test(start_paused = true)]
async fn g04_a_body_that_is_no_longer_buffered_is_not_resent() {
    let (retry, seen, _) = failing(NOT_SENT, 1);
    let inner = retry.inner.clone();
    let reading = service_fn(move |mut exchange: Exchange<ReplayBody<Full<Bytes>>>| {
        let inner = inner.clone();
        async move {
            http_body_util::BodyExt::frame(exchange.request.body_mut()).await.unwrap().unwrap();
            inner.oneshot(exchange).await
        }
    });
    let retry = Retry { inner: BoxCloneService::new(reading), ..retry };
    assert_eq!(send(&retry, Method::PUT, FREE).await, (false, false));
    assert_eq!(seen.load(SeqCst), 1);
}
