//! Response bodies: sent whole, truncated, or slowly.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Maximum number of pieces of a dripping body.
const DRIP_PIECES: usize = 20;

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// In one piece.
    Whole,
    /// The first half; then the connection is closed.
    Truncated,
    /// In at most [`DRIP_PIECES`] pieces, with this delay before each.
    Dripping(Duration),
}

/// A response body.
#[derive(Debug)]
pub(super) struct SandboxBody {
    rest: Bytes,
    piece: usize,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
}

impl SandboxBody {
    pub(super) fn new(bytes: Vec<u8>, pace: Pace) -> Self {
        let piece = match pace {
            Pace::Whole => bytes.len(),
            Pace::Truncated => bytes.len() / 2,
            Pace::Dripping(_) => bytes.len().div_ceil(DRIP_PIECES),
        };
        Self { rest: Bytes::from(bytes), piece, pace, pause: None }
    }
}

impl Body for SandboxBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        match self.pace {
            Pace::Truncated if self.piece == 0 => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
            Pace::Dripping(time) => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(time)));
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            _ => {}
        }
        let piece = self.piece.min(self.rest.len());
        let bytes = self.rest.split_to(piece);
        if self.pace == Pace::Truncated {
            self.piece = 0;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
