//! An answer that begins before all of its request has been sent.
//!
//! As a rule whoever takes the answer drives its connection. A caller may go on sending and not take anything of the answer before it is
//! done, and then nobody would; so from here on a task does both, until either the answer is over or nobody wants it any more. It is
//! rare enough for a task and a queue of its own.

use std::{
    error::Error as StdError,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;
use tokio::{select, sync::mpsc};

use super::{body_source::Source as _, connect::Connect, http1::Error, pool::Exclusive};

/// The answer of a connection that drives itself.
pub(super) struct BackgroundBody(mpsc::Receiver<Part>);

/// `None` is the end: without it, the body is not whole.
type Part = Option<Result<Bytes, Error>>;

impl BackgroundBody {
    /// Has a task drive `own`.
    pub(super) fn new<C, B>(own: Box<Exclusive<C, B>>) -> Self
    where
        C: Connect,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (parts, received) = mpsc::channel(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "a task of the worker's runtime; it ends with the response, or when that is dropped"
        )]
        tokio::spawn(drive(own, parts));
        Self(received)
    }

    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        Poll::Ready(ready!(self.0.poll_recv(cx)).unwrap_or(Some(Err(Error::Incomplete))))
    }
}

async fn drive<C, B>(mut own: Box<Exclusive<C, B>>, parts: mpsc::Sender<Part>)
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    loop {
        let place = loop {
            select! {
                biased;
                place = parts.reserve() => break place,
                () = poll_fn(|cx| own.line.poll_upload(cx)), if own.line.is_uploading() => {}
            }
        };
        let Ok(place) = place else { return own.give_back() };
        let part = select! {
            biased;
            part = poll_fn(|cx| own.line.poll_data(cx)) => part,
            () = parts.closed() => return own.give_back(),
        };
        let goes_on = matches!(part, Some(Ok(_)));
        place.send(part);
        if !goes_on {
            return own.give_back();
        }
    }
}
