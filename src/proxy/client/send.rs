//! One request on the connection that it got.

use std::{error::Error as StdError, future::poll_fn};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    answer::AnswerBody,
    connect::Connect,
    early::Detached,
    http1,
    pool::{Chosen, Connection, Own},
};
use crate::{cause, proxy::error::Fate};

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) error: NoAnswer,
    /// What is known to have become of it, if anything is.
    pub(super) fate: Option<Fate>,
}

/// What the connection says of a request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum NoAnswer {
    #[error(transparent)]
    Http1(http1::Error),
    #[error(transparent)]
    Http2(hyper::Error),
}

impl NoAnswer {
    /// Whether the caller is at fault.
    pub(super) fn is_of_the_caller(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_of_the_caller(),
            Self::Http2(error) => error.is_user(),
        }
    }

    /// Whether the upstream said something that is no HTTP: over HTTP/2, what made our side end the stream or the connection.
    pub(super) fn is_of_the_protocol(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_of_the_protocol(),
            Self::Http2(error) => cause::find::<h2::Error>(error).is_some_and(h2::Error::is_library),
        }
    }
}

impl SendError {
    /// Whether the upstream certainly did nothing with it.
    pub(super) fn is_unexecuted(&self) -> bool {
        self.fate.is_some_and(Fate::is_unexecuted)
    }
}

impl<C, B> Chosen<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Sends `request` and gives the answer, whose body is still to come.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request: over HTTP/1.1 its connection is closed, over HTTP/2 its stream is reset.
    pub(super) async fn send(self, request: Request<B>) -> Result<Response<AnswerBody>, SendError> {
        match self.connection {
            Connection::Http1(own) => send_alone(own, request, self.reused).await,
            Connection::Http2(shared) => match shared.connection.send(request, self.reused).await {
                Ok(response) => Ok(response.map(|body| AnswerBody::http2(body, shared))),
                Err(failure) => {
                    if failure.ended {
                        shared.forget();
                    }
                    Err(SendError { error: NoAnswer::Http2(failure.error), fate: failure.fate })
                }
            },
        }
    }
}

async fn send_alone<C, B>(
    mut own: Box<Own<C, B>>,
    request: Request<B>,
    reused: bool,
) -> Result<Response<AnswerBody>, SendError>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let pending = own.life().pending();
    own.line.begin(request);
    let answer = poll_fn(|cx| own.line.poll_answer(cx)).await;
    pending.ended();
    match answer {
        Ok(head) => {
            let goes_on = own.line.is_uploading() && !own.line.is_answer_here();
            let body = if goes_on { AnswerBody::detached(Detached::new(own)) } else { AnswerBody::http1(own) };
            Ok(head.map(|()| body))
        }
        Err(error) => {
            own.note(&error);
            Err(SendError { fate: own.line.fate(&error, reused), error: NoAnswer::Http1(error) })
        }
    }
}
