//! Notices a client that goes away while its request is in flight.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{peer_state::PeerState, socket_stream::SocketStream};
use crate::stall::StallTimer;

/// How often a client is looked at that has sent its end and reads, or has sent more than was read. The reactor reports no further change
/// then. A client that is gone is to be noticed within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Watches the client of one request. Nothing is allocated, and no timer is set, until the client sends something after its request.
#[derive(Debug, Default)]
pub(super) struct ClientWatch {
    /// `Some` after that.
    timer: Option<Box<StallTimer>>,
}

impl ClientWatch {
    /// Ready when the client of `socket` has gone. One that has sent its end and still reads has not.
    pub(super) fn poll_gone(&mut self, socket: &SocketStream, cx: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => {
                let has_unread = ready!(socket.poll_peek(cx));
                if !has_unread && PeerState::of(socket) == PeerState::Closed {
                    return Poll::Ready(());
                }
                self.timer.insert(Box::new(StallTimer::new(INTERVAL)))
            }
        };
        loop {
            ready!(timer.poll_elapsed(cx));
            timer.reset();
            if PeerState::of(socket) == PeerState::Closed {
                return Poll::Ready(());
            }
        }
    }

    /// The next request is read.
    pub(super) fn reset(&mut self) {
        self.timer = None;
    }
}
