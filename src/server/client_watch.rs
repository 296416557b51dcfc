//! Detects a client that disconnects while its request is in flight.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{peer_state::PeerState, socket_stream::SocketStream};
use crate::stall::StallTimer;

/// How often to check a client that has sent its FIN and still reads, or has sent bytes that are not read yet: the reactor reports no
/// further change then. A disconnect must be noticed within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Watches the client during one request. Allocates nothing and sets no timer until the client sends something after its request.
#[derive(Debug, Default)]
pub(super) struct ClientWatch {
    /// `Some` once the client has sent something after its request.
    timer: Option<Box<StallTimer>>,
}

impl ClientWatch {
    /// Ready when the client of `socket` has disconnected. A half-closed client that still reads has not.
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

    /// Starts over for the next request.
    pub(super) fn reset(&mut self) {
        self.timer = None;
    }
}
