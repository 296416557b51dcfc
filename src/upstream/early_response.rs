//! A response that begins before all of its request has been sent.
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

use super::{body_source::BodySource as _, connect::Connect, http1::Error, pool::ExclusiveConnection};

/// The body of a response whose connection is driven by a task.
pub(super) struct BackgroundBody(mpsc::Receiver<BodyPart>);

/// `None` is the end. A channel that closes without it means a truncated body.
type BodyPart = Option<Result<Bytes, Error>>;

impl BackgroundBody {
    /// Starts a task that drives `exclusive`.
    pub(super) fn new<C, B>(exclusive: Box<ExclusiveConnection<C, B>>) -> Self
    where
        C: Connect,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (sender, received) = mpsc::channel(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "a task of the worker's runtime; it ends with the response, or when that is dropped"
        )]
        tokio::spawn(drive(exclusive, sender));
        Self(received)
    }

    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<BodyPart> {
        Poll::Ready(ready!(self.0.poll_recv(cx)).unwrap_or(Some(Err(Error::Incomplete))))
    }
}

async fn drive<C, B>(mut exclusive: Box<ExclusiveConnection<C, B>>, sender: mpsc::Sender<BodyPart>)
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    loop {
        let permit = loop {
            select! {
                biased;
                permit = sender.reserve() => break permit,
                () = poll_fn(|cx| exclusive.http1.poll_upload(cx)), if exclusive.http1.is_uploading() => {}
            }
        };
        let Ok(permit) = permit else { return exclusive.release() };
        let part = select! {
            biased;
            part = poll_fn(|cx| exclusive.http1.poll_data(cx)) => part,
            () = sender.closed() => return exclusive.release(),
        };
        let has_more = matches!(part, Some(Ok(_)));
        permit.send(part);
        if !has_more {
            return exclusive.release();
        }
    }
}
