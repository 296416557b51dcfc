//! Limits the requests in flight over all workers: `limits.concurrency` permits, a bounded FIFO queue, then load shedding.
//!
//! A request holds its permit until its response body is sent in full or dropped, because a slow download occupies an upstream connection.
//! Proxy-generated error responses hold no permit. While permits are free, nothing waits and nothing is allocated.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tower::{Layer, Service};

use super::{body::ResponseBody, config::Config, error::Error, exchange::Exchange};
use crate::telemetry::Metrics;

/// The permits of the process. All workers' stacks use clones of one layer.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer(Arc<Permits>);

impl ConcurrencyLayer {
    /// A layer with `config.concurrency` permits and a queue of `config.queue` requests.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        for reason in Shed::LABELS {
            metrics.init_shed(reason);
        }
        Self(Arc::new(Permits {
            in_flight: Arc::new(Semaphore::new(config.concurrency)),
            queue: Arc::new(Semaphore::new(config.queue)),
            queue_timeout: config.queue_timeout,
            metrics,
        }))
    }
}

labels! {
    /// Why a request was shed.
    enum Shed {
        /// The queue was full.
        QueueFull = "queue_full",
        /// No permit became free within `limits.queue_timeout`.
        QueueTimeout = "queue_timeout",
    }
}

#[derive(Debug)]
struct Permits {
    in_flight: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    queue_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Permits {
    /// Acquires a permit, immediately or through the queue.
    ///
    /// # Errors
    ///
    /// If the queue is full.
    fn acquire(self: &Arc<Self>) -> Result<Acquisition, Error> {
        if let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() {
            return Ok(Acquisition::Immediate(permit));
        }
        let Ok(queued) = Arc::clone(&self.queue).try_acquire_owned() else {
            return Err(self.shed(Shed::QueueFull));
        };
        let (permits, slot) = (Arc::clone(self), QueueSlot::new(queued, Arc::clone(&self.metrics)));
        Ok(Acquisition::Queued(Box::pin(async move {
            let _slot = slot;
            let arrived = Instant::now();
            let permit = timeout(permits.queue_timeout, Arc::clone(&permits.in_flight).acquire_owned()).await;
            permits.metrics.observe_queue_wait(arrived.elapsed());
            permit
                .map(|permit| permit.expect("the semaphore is never closed"))
                .map_err(|_| permits.shed(Shed::QueueTimeout))
        })))
    }

    fn shed(&self, reason: Shed) -> Error {
        self.metrics.shed(reason.as_str());
        Error::overloaded("Concurrency limit reached; retry later.")
    }
}

enum Acquisition {
    Immediate(OwnedSemaphorePermit),
    Queued(AcquireFuture),
}

type AcquireFuture = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, Error>> + Send>>;

/// Counts a request while it is in the queue.
#[derive(Debug)]
struct QueueSlot {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl QueueSlot {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.queued().inc();
        Self { _permit: permit, metrics }
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.metrics.queued().dec();
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Concurrency { inner, permits: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub struct Concurrency<S> {
    inner: S,
    permits: Arc<Permits>,
}

impl<S, B> Service<Exchange<B>> for Concurrency<S>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ConcurrencyFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        match self.permits.acquire() {
            Ok(Acquisition::Immediate(permit)) => {
                ConcurrencyFuture::Calling { inner: self.inner.call(exchange), permit: Some(permit) }
            }
            Ok(Acquisition::Queued(wait)) => {
                // `poll_ready` reserved this instance, so call it and leave the clone in its place.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                ConcurrencyFuture::Waiting { wait, since: Instant::now(), call: Some(Box::new((inner, exchange))) }
            }
            Err(error) => ConcurrencyFuture::Rejected { error: Some(error) },
        }
    }
}

pin_project! {
    #[project = ConcurrencyProjection]
    pub enum ConcurrencyFuture<S, B, F> {
        Rejected { error: Option<Error> },
        // Boxed, so that the future of a request that does not wait stays small.
        Waiting { wait: AcquireFuture, since: Instant, call: Option<Box<(S, Exchange<B>)>> },
        Calling { #[pin] inner: F, permit: Option<OwnedSemaphorePermit> },
    }
}

impl<S, B> Future for ConcurrencyFuture<S, B, S::Future>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                ConcurrencyProjection::Rejected { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                ConcurrencyProjection::Calling { inner, permit } => {
                    let response = ready!(inner.poll(cx))?;
                    let permit = permit.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(response.map(|body| body.with_permit(permit))));
                }
                ConcurrencyProjection::Waiting { wait, since, call } => {
                    let permit = ready!(wait.as_mut().poll(cx));
                    let (mut service, exchange) = *call.take().expect("polled after it was ready");
                    exchange.record.set_queue_wait(since.elapsed());
                    let permit = Some(permit?);
                    Self::Calling { inner: service.call(exchange), permit }
                }
            };
            self.set(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use tokio::{
        sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        task::JoinHandle,
        time::advance,
    };
    use tower::{ServiceExt as _, util::BoxCloneService};

    use super::*;
    use crate::proxy::{Code, Record};

    const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

    type Reply = tokio::sync::oneshot::Sender<Result<(), Code>>;

    /// This layer above a mock service, and the requests that reach that service. The test sends the responses.
    struct Harness {
        service: BoxCloneService<Exchange<()>, Response<ResponseBody>, Error>,
        metrics: Arc<Metrics>,
        arrived: UnboundedReceiver<Reply>,
    }

    impl Harness {
        fn new(in_flight: usize, queue: usize) -> Self {
            let metrics = Arc::new(Metrics::new());
            let permits = Permits {
                in_flight: Arc::new(Semaphore::new(in_flight)),
                queue: Arc::new(Semaphore::new(queue)),
                queue_timeout: QUEUE_TIMEOUT,
                metrics: Arc::clone(&metrics),
            };
            let (requests, arrived) = unbounded_channel();
            let bottom = tower::service_fn(move |_: Exchange<()>| respond_by_hand(requests.clone()));
            let service = BoxCloneService::new(ConcurrencyLayer(Arc::new(permits)).layer(bottom));
            Self { service, metrics, arrived }
        }

        /// Sends a request, and runs it until it waits.
        async fn send(&self) -> JoinHandle<Result<Response<ResponseBody>, Error>> {
            let exchange = Exchange { request: Request::new(()), record: Arc::new(Record::new(Method::GET, None)) };
            let sent = tokio::spawn(self.service.clone().oneshot(exchange));
            run_until_idle().await;
            sent
        }

        fn arrived(&mut self) -> Option<Reply> {
            self.arrived.try_recv().ok()
        }

        #[track_caller]
        fn check_metric(&self, line: &str) {
            let text = self.metrics.render();
            assert!(text.contains(&format!("finicity_proxy_{line}\n")), "{line} is not in\n{text}");
        }
    }

    async fn respond_by_hand(requests: UnboundedSender<Reply>) -> Result<Response<ResponseBody>, Error> {
        let (reply, response) = tokio::sync::oneshot::channel();
        requests.send(reply).unwrap();
        let response = response.await.unwrap();
        response.map(|()| Response::new(ResponseBody::full("x"))).map_err(|code| Error::new(code, "x"))
    }

    /// Runs every other task until it waits.
    async fn run_until_idle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn i09_requests_beyond_the_permits_queue_and_then_are_shed() {
        let mut harness = Harness::new(2, 2);
        let sent = [harness.send().await, harness.send().await, harness.send().await, harness.send().await];
        assert_eq!(harness.arrived.len(), 2);
        harness.check_metric("requests_queued 2");
        let started = Instant::now();
        let error = harness.send().await.await.unwrap().unwrap_err();
        assert_eq!((error.code(), started.elapsed()), (Code::Overloaded, Duration::ZERO));
        harness.check_metric(r#"requests_shed_total{reason="queue_full"} 1"#);

        let [first, second, third, fourth] = sent;
        harness.arrived().unwrap().send(Ok(())).unwrap();
        let response = first.await.unwrap().unwrap();
        run_until_idle().await;
        assert_eq!(harness.arrived.len(), 1, "the permit is held until the response body is dropped");
        drop(response);
        run_until_idle().await;
        assert_eq!(harness.arrived.len(), 2);
        harness.check_metric("requests_queued 1");

        let error = fourth.await.unwrap().unwrap_err();
        assert_eq!((error.code(), started.elapsed()), (Code::Overloaded, QUEUE_TIMEOUT));
        harness.check_metric(r#"requests_shed_total{reason="queue_timeout"} 1"#);
        harness.check_metric("requests_queued 0");
        for waiting in [second, third] {
            harness.arrived().unwrap().send(Ok(())).unwrap();
            waiting.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g07_a_dropped_request_releases_its_permit_or_queue_slot() {
        let mut harness = Harness::new(1, 1);
        let (working, queued) = (harness.send().await, harness.send().await);
        assert_eq!(harness.arrived.len(), 1);
        queued.abort();
        run_until_idle().await;
        harness.check_metric("requests_queued 0");
        let next = harness.send().await;
        harness.arrived().unwrap();
        working.abort();
        run_until_idle().await;
        harness.arrived().expect("the next request has the permit").send(Ok(())).unwrap();
        next.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_generated_error_holds_no_permit() {
        let mut harness = Harness::new(1, 0);
        let failed = harness.send().await;
        harness.arrived().unwrap().send(Err(Code::UpstreamTls)).unwrap();
        let _error = failed.await.unwrap().unwrap_err();
        harness.send().await;
        assert!(harness.arrived().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn queued_requests_run_in_order_and_before_new_ones() {
        let mut harness = Harness::new(1, 2);
        let first = harness.send().await;
        let second = harness.send().await;
        harness.arrived().unwrap().send(Ok(())).unwrap();
        drop(first.await.unwrap());
        // The permit is assigned to the second request, which has not run yet.
        let third = harness.send().await;
        advance(QUEUE_TIMEOUT / 2).await;
        assert_eq!(harness.arrived.len(), 1);
        harness.arrived().unwrap().send(Ok(())).unwrap();
        drop(second.await.unwrap().unwrap());
        run_until_idle().await;
        harness.arrived().unwrap().send(Ok(())).unwrap();
        third.await.unwrap().unwrap();
    }
}
