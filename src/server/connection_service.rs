//! The exchanges of one connection, as hyper sees them: how many there were, and whether it waits for the next.
//!
//! hyper says that it begins to wait for a request by setting a timer for its head. Here that timer only counts: the gate and the
//! connection have their own, which cost a request nothing.

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

use super::{framed_reader::ReaderStatus, slots::State};
use crate::process::drain::Drain;

/// Counts the exchanges of a connection. Its clones are one and the same.
#[derive(Clone, Debug)]
pub(super) struct IdleDetector(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// Requests that hyper has begun to wait for.
    awaited: AtomicU64,
    /// Requests that have come.
    begun: AtomicU64,
    /// The requests before the first of these.
    before: u64,
    state: Arc<State>,
}

impl IdleDetector {
    /// After `before` of them, on the connection that `state` belongs to.
    pub(super) fn after(before: u64, state: Arc<State>) -> Self {
        let (awaited, begun) = (AtomicU64::new(before), AtomicU64::new(before));
        Self(Arc::new(Counts { awaited, begun, before, state }))
    }

    /// The number of the request that hyper waits for, while it has nothing else to do.
    pub(super) fn awaited(&self) -> Option<u64> {
        let awaited = self.0.awaited.load(Relaxed);
        (awaited > self.0.begun.load(Relaxed)).then_some(awaited)
    }
}

impl Timer for IdleDetector {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now())
    }

    /// `deadline` is now: the timer is set without a duration.
    #[expect(clippy::disallowed_types, reason = "the signature is hyper's")]
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        let counts = &*self.0;
        counts.awaited.fetch_add(1, Relaxed);
        // A connection that was parked has been idle before that.
        if counts.begun.load(Relaxed) > counts.before {
            counts.state.idle(deadline);
        }
        Box::pin(Never)
    }
}

/// A sleep without an end; nothing is allocated for it.
#[derive(Debug)]
struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for Never {}

/// Counts the requests of a connection, says of the one that the gate refused what is wrong with it, and tells callers when the
/// connection is about to close.
#[derive(Debug)]
pub(super) struct Counted<S> {
    /// hyper only lends what is to be called. One request follows another, so they can share it, and none has to clone the stack.
    inner: RefCell<S>,
    exchanges: IdleDetector,
    view: ReaderStatus,
    end: Drain,
    closes: bool,
}

impl<S> Counted<S> {
    /// Counts in `exchanges` what `inner` gets to see. With `closes`, each response is its connection's last.
    pub(super) fn new(inner: S, exchanges: IdleDetector, view: ReaderStatus, end: Drain, closes: bool) -> Self {
        Self { inner: RefCell::new(inner), exchanges, view, end, closes }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.exchanges.0.state.begin();
        let number = self.exchanges.0.begun.fetch_add(1, Relaxed) + 1;
        if let Some(fault) = self.view.fault_of(number) {
            request.extensions_mut().insert(fault);
        }
        let mut service = self.inner.borrow_mut();
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))), "the stack takes any request, and may have it wait then");
        Answer { inner: service.call(request), end: self.end.clone(), closes: self.closes }
    }
}

pin_project! {
    /// An answer that says `Connection: close` when it is the last one, upon which hyper closes the connection.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        end: Drain,
        closes: bool,
    }
}

impl<F: Future<Output = Result<Response<B>, E>>, B, E> Future for Answer<F> {
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx));
        if let Ok(response) = &mut answer
            && (*this.closes || this.end.has_begun())
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
