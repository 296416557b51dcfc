//! What the proxy adds to hyper on one connection: idle detection, and `Connection: close` on the last response.
//!
//! hyper sets its header timer when it starts waiting for a request. The timer here only counts that: the [`FramedReader`] and the
//! connection have timers of their own, which cost a request nothing.
//!
//! [`FramedReader`]: super::framed_reader::FramedReader

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming,
    rt::{Sleep, Timer},
};
use pin_project_lite::pin_project;
use tower::Service;

use super::{framed_reader::ReaderStatus, slots::SlotState};
use crate::process::drain::Drain;

/// Detects whether hyper waits for the next request of a connection. Clones share the state.
#[derive(Clone, Debug)]
pub(super) struct IdleDetector(Arc<RequestCounts>);

#[derive(Debug)]
struct RequestCounts {
    /// The number of requests that hyper has started to wait for.
    awaited: AtomicU64,
    /// The number of requests that have arrived.
    begun: AtomicU64,
    /// The number of requests on the connection before hyper served it.
    previous: u64,
    state: Arc<SlotState>,
}

impl IdleDetector {
    /// A detector after `previous` requests, on the connection with `state`.
    pub(super) fn new(previous: u64, state: Arc<SlotState>) -> Self {
        let (awaited, begun) = (AtomicU64::new(previous), AtomicU64::new(previous));
        Self(Arc::new(RequestCounts { awaited, begun, previous, state }))
    }

    /// The number of the request that hyper waits for, if no request is in flight.
    pub(super) fn awaited_request(&self) -> Option<u64> {
        let awaited = self.0.awaited.load(Relaxed);
        (awaited > self.0.begun.load(Relaxed)).then_some(awaited)
    }
}

impl Timer for IdleDetector {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now())
    }

    /// `deadline` is now, because the header timeout is zero.
    #[expect(clippy::disallowed_types, reason = "the signature is hyper's")]
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        let counts = &*self.0;
        counts.awaited.fetch_add(1, Relaxed);
        // A parked connection became idle earlier.
        if counts.begun.load(Relaxed) > counts.previous {
            counts.state.set_idle(deadline);
        }
        Box::pin(NeverSleep)
    }
}

/// A sleep that never ends and allocates nothing.
#[derive(Debug)]
struct NeverSleep;

impl Future for NeverSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for NeverSleep {}

/// Counts the requests of a connection, attaches its fault to a rejected request, and adds `Connection: close` to the last response.
#[derive(Debug)]
pub(super) struct ConnectionService<S> {
    /// A `RefCell`, because hyper's `call` takes `&self`. Requests are served one at a time, so the stack need not be cloned.
    inner: RefCell<S>,
    detector: IdleDetector,
    status: ReaderStatus,
    drain: Drain,
    close_after_response: bool,
}

impl<S> ConnectionService<S> {
    /// Counts the requests to `inner` in `detector`. With `close_after_response`, each response closes its connection.
    pub(super) fn new(
        inner: S,
        detector: IdleDetector,
        status: ReaderStatus,
        drain: Drain,
        close_after_response: bool,
    ) -> Self {
        Self { inner: RefCell::new(inner), detector, status, drain, close_after_response }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CloseOnDrain<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.detector.0.state.begin_request();
        let number = self.detector.0.begun.fetch_add(1, Relaxed) + 1;
        if let Some(fault) = self.status.fault_in(number) {
            request.extensions_mut().insert(fault);
        }
        let mut service = self.inner.borrow_mut();
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))), "the stack is always ready; requests wait in it");
        CloseOnDrain {
            inner: service.call(request),
            drain: self.drain.clone(),
            close_after_response: self.close_after_response,
        }
    }
}

pin_project! {
    /// Adds `Connection: close` to the last response, so that hyper closes the connection.
    pub(super) struct CloseOnDrain<F> {
        #[pin]
        inner: F,
        drain: Drain,
        close_after_response: bool,
    }
}

impl<F: Future<Output = Result<Response<B>, E>>, B, E> Future for CloseOnDrain<F> {
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(cx));
        if let Ok(response) = &mut result
            && (*this.close_after_response || this.drain.has_begun())
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(result)
    }
}
