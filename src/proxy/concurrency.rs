//! How many requests are with the upstream at once, over all workers: so many, a bounded queue of others behind them, and the rest
//! is turned away while it is young.
//!
//! A request has its place until its answer has gone down to the last byte, since a slow download occupies an upstream connection
//! as well. Answers of the proxy's own have none. While there are free places, a request waits for nothing and nothing is allocated.

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

/// The places of the process: the layers of all workers' stacks are clones of one.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer(Arc<Permits>);

impl ConcurrencyLayer {
    /// As many places, in the open and in the queue, as `config` says.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        for reason in Shed::LABELS {
            metrics.init_shed(reason);
        }
        Self(Arc::new(Permits {
            open: Arc::new(Semaphore::new(config.concurrency)),
            queue: Arc::new(Semaphore::new(config.queue)),
            patience: config.queue_timeout,
            metrics,
        }))
    }
}

labels! {
    /// Why a request was rejected.
    enum Shed {
        /// The queue was full.
        QueueFull = "queue_full",
        /// There was no permit within `limits.queue_timeout`.
        QueueTimeout = "queue_timeout",
    }
}

#[derive(Debug)]
struct Permits {
    open: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Permits {
    /// A place now, a time in the queue for one, or neither.
    fn enter(self: &Arc<Self>) -> Result<Entered, Error> {
        if let Ok(place) = Arc::clone(&self.open).try_acquire_owned() {
            return Ok(Entered::AtOnce(place));
        }
        let Ok(queued) = Arc::clone(&self.queue).try_acquire_owned() else {
            return Err(self.shed(Shed::QueueFull));
        };
        let (places, queued) = (Arc::clone(self), Queued::new(queued, Arc::clone(&self.metrics)));
        Ok(Entered::Queue(Box::pin(async move {
            let _queued = queued;
            let arrived = Instant::now();
            let place = timeout(places.patience, Arc::clone(&places.open).acquire_owned()).await;
            places.metrics.observe_queue_wait(arrived.elapsed());
            place
                .map(|place| place.expect("the semaphore is never closed"))
                .map_err(|_| places.shed(Shed::QueueTimeout))
        })))
    }

    fn shed(&self, reason: Shed) -> Error {
        self.metrics.shed(reason.as_str());
        Error::overloaded("The proxy has as many requests in flight as it may have; try again later.")
    }
}

enum Entered {
    AtOnce(OwnedSemaphorePermit),
    Queue(Wait),
}

type Wait = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, Error>> + Send>>;

/// Counts a request for as long as it is in the queue.
#[derive(Debug)]
struct Queued {
    _place: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Queued {
    fn new(place: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.queued().inc();
        Self { _place: place, metrics }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.metrics.queued().dec();
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Concurrency { inner, places: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub struct Concurrency<S> {
    inner: S,
    places: Arc<Permits>,
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
        match self.places.enter() {
            Ok(Entered::AtOnce(place)) => {
                ConcurrencyFuture::Calling { inner: self.inner.call(exchange), place: Some(place) }
            }
            Ok(Entered::Queue(wait)) => {
                // The service that was polled ready is the one to call; the clone takes its place.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                ConcurrencyFuture::Waiting { wait, since: Instant::now(), call: Some(Box::new((inner, exchange))) }
            }
            Err(error) => ConcurrencyFuture::Refused { error: Some(error) },
        }
    }
}

pin_project! {
    #[project = ConcurrencyProjection]
    pub enum ConcurrencyFuture<S, B, F> {
        Refused { error: Option<Error> },
        // What it waits with is on the heap, so that a request that does not wait has no room for it.
        Waiting { wait: Wait, since: Instant, call: Option<Box<(S, Exchange<B>)>> },
        Calling { #[pin] inner: F, place: Option<OwnedSemaphorePermit> },
    }
}

impl<S, B> Future for ConcurrencyFuture<S, B, S::Future>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let calling = match self.as_mut().project() {
                ConcurrencyProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                ConcurrencyProjection::Calling { inner, place } => {
                    let response = ready!(inner.poll(cx))?;
                    let place = place.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(response.map(|body| body.holding(place))));
                }
                ConcurrencyProjection::Waiting { wait, since, call } => {
                    let place = ready!(wait.as_mut().poll(cx));
                    let (mut service, exchange) = *call.take().expect("polled after it was ready");
                    exchange.record.set_queued(since.elapsed());
                    let place = Some(place?);
                    Self::Calling { inner: service.call(exchange), place }
                }
            };
            self.set(calling);
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

    const PATIENCE: Duration = Duration::from_secs(1);

    type Reply = tokio::sync::oneshot::Sender<Result<(), Code>>;

    /// A stack with this layer, and the requests that reach its bottom, to be answered by hand.
    struct Bench {
        service: BoxCloneService<Exchange<()>, Response<ResponseBody>, Error>,
        metrics: Arc<Metrics>,
        arrived: UnboundedReceiver<Reply>,
    }

    impl Bench {
        fn new(open: usize, queue: usize) -> Self {
            let metrics = Arc::new(Metrics::new());
            let places = Permits {
                open: Arc::new(Semaphore::new(open)),
                queue: Arc::new(Semaphore::new(queue)),
                patience: PATIENCE,
                metrics: Arc::clone(&metrics),
            };
            let (tell, arrived) = unbounded_channel();
            let bottom = tower::service_fn(move |_: Exchange<()>| answer_by_hand(tell.clone()));
            let service = BoxCloneService::new(ConcurrencyLayer(Arc::new(places)).layer(bottom));
            Self { service, metrics, arrived }
        }

        /// Sends a request, and lets it come as far as it comes.
        async fn send(&self) -> JoinHandle<Result<Response<ResponseBody>, Error>> {
            let exchange = Exchange { request: Request::new(()), record: Arc::new(Record::new(Method::GET, None)) };
            let sent = tokio::spawn(self.service.clone().oneshot(exchange));
            settle().await;
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

    async fn answer_by_hand(tell: UnboundedSender<Reply>) -> Result<Response<ResponseBody>, Error> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        tell.send(reply).unwrap();
        let answer = answer.await.unwrap();
        answer.map(|()| Response::new(ResponseBody::local("x"))).map_err(|code| Error::new(code, "x"))
    }

    /// Lets every other task run until it waits.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn i09_beyond_the_places_requests_wait_in_a_bounded_queue_and_the_rest_is_shed() {
        let mut bench = Bench::new(2, 2);
        let sent = [bench.send().await, bench.send().await, bench.send().await, bench.send().await];
        assert_eq!(bench.arrived.len(), 2);
        bench.check_metric("requests_queued 2");
        let started = Instant::now();
        let error = bench.send().await.await.unwrap().unwrap_err();
        assert_eq!((error.code(), started.elapsed()), (Code::Overloaded, Duration::ZERO));
        bench.check_metric(r#"requests_shed_total{reason="queue_full"} 1"#);

        let [first, second, third, fourth] = sent;
        bench.arrived().unwrap().send(Ok(())).unwrap();
        let answer = first.await.unwrap().unwrap();
        settle().await;
        assert_eq!(bench.arrived.len(), 1, "the place is taken until the answer's body is gone");
        drop(answer);
        settle().await;
        assert_eq!(bench.arrived.len(), 2);
        bench.check_metric("requests_queued 1");

        let error = fourth.await.unwrap().unwrap_err();
        assert_eq!((error.code(), started.elapsed()), (Code::Overloaded, PATIENCE));
        bench.check_metric(r#"requests_shed_total{reason="queue_timeout"} 1"#);
        bench.check_metric("requests_queued 0");
        for waiting in [second, third] {
            bench.arrived().unwrap().send(Ok(())).unwrap();
            waiting.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g07_a_request_that_is_dropped_leaves_its_place_at_once_wherever_it_is() {
        let mut bench = Bench::new(1, 1);
        let (working, queued) = (bench.send().await, bench.send().await);
        assert_eq!(bench.arrived.len(), 1);
        queued.abort();
        settle().await;
        bench.check_metric("requests_queued 0");
        let next = bench.send().await;
        bench.arrived().unwrap();
        working.abort();
        settle().await;
        bench.arrived().expect("the next one has the place").send(Ok(())).unwrap();
        next.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_the_proxys_own_has_no_place() {
        let mut bench = Bench::new(1, 0);
        let failed = bench.send().await;
        bench.arrived().unwrap().send(Err(Code::UpstreamTls)).unwrap();
        let _error = failed.await.unwrap().unwrap_err();
        bench.send().await;
        assert!(bench.arrived().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_go_in_their_order_and_before_those_who_come() {
        let mut bench = Bench::new(1, 2);
        let first = bench.send().await;
        let second = bench.send().await;
        bench.arrived().unwrap().send(Ok(())).unwrap();
        drop(first.await.unwrap());
        // The place is promised to the second, though it has not run yet.
        let third = bench.send().await;
        advance(PATIENCE / 2).await;
        assert_eq!(bench.arrived.len(), 1);
        bench.arrived().unwrap().send(Ok(())).unwrap();
        drop(second.await.unwrap().unwrap());
        settle().await;
        bench.arrived().unwrap().send(Ok(())).unwrap();
        third.await.unwrap().unwrap();
    }
}
