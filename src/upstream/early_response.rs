//! A response that begins before its request has been fully sent.
//!
//! Normally the reader of the response drives the connection. A client that reads the response only after its upload would deadlock, so
//! a task drives both directions here until the response ends or is dropped. This case is rare enough to afford a task and a
//! queue.

use std::{
    error::Error as StdError,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;
use tokio::{select, sync::mpsc};

use super::{body_source::BodySource as _, connect::Connect, http1::Error, pool::ExclusiveConnection};

/// A response body with a connection that is driven by a task.
pub(super) struct BackgroundBody(mpsc::Receiver<BodyPart>);

/// `None` is the end of the body. A channel that closes without it means a truncated body.
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
