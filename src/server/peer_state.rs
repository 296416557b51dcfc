//! Detects whether a client that has ended its sending direction still reads.
//!
//! A client may shut down its sending direction after a complete request (`nc -N`, BusyBox `wget`) and wait for the response. Over TCP, that
//! looks like a closed connection: both are a FIN. A Unix socket distinguishes the two. For TCP, the kernel is asked about the client's own
//! socket, which is possible if the client is in the proxy's network namespace, as in the pod of a sidecar; `sock_diag(7)` needs no
//! capability for that. A client whose socket is not found is on another machine or in another namespace.

#[cfg(target_os = "linux")]
mod sock_diag;

#[cfg(target_os = "linux")]
use std::io;

#[cfg(target_os = "linux")]
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
};

use super::socket_stream::SocketStream;

/// The state of a client while its request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerState {
    /// The client may send more.
    Open,
    /// The client has ended its sending direction and still reads.
    HalfClosed,
    /// The client has closed or lost the connection. Also assumed if it has ended its sending direction and its socket is not found, because
    /// clients that close are far more common than those that half-close.
    Closed,
}

#[cfg(target_os = "linux")]
impl PeerState {
    /// The state of the client of `socket`, as the kernel reports it now. Call it when the client has sent its FIN or unread bytes.
    pub(super) fn of(socket: &SocketStream) -> Self {
        match poll_flags(socket) {
            Ok(flags) if flags.intersects(PollFlags::HUP | PollFlags::ERR) => Self::Closed,
            Ok(flags) if !flags.contains(PollFlags::RDHUP) => Self::Open,
            Ok(_) => match reads(socket) {
                Ok(true) => Self::HalfClosed,
                // Out of descriptors or memory: the lookup is repeated later.
                Err(error) if is_exhausted(&error) => Self::HalfClosed,
                Ok(false) | Err(_) => Self::Closed,
            },
            Err(_) => Self::Closed,
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl PeerState {
    /// The state of the client of `socket`. Call it when the client has sent its FIN or unread bytes.
    pub(super) fn of(socket: &SocketStream) -> Self {
        if socket.has_unread() { Self::Open } else { Self::Closed }
    }
}

#[cfg(target_os = "linux")]
fn poll_flags(socket: &SocketStream) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(fds[0].revents())
}

/// Whether the client of `socket` still reads. It has sent its FIN.
#[cfg(target_os = "linux")]
fn reads(socket: &SocketStream) -> io::Result<bool> {
    match socket {
        // For a closed one, the kernel would have reported HUP.
        SocketStream::Unix(_) => Ok(true),
        SocketStream::Tcp(stream) => sock_diag::reads(stream.peer_addr()?, stream.local_addr()?),
    }
}

#[cfg(target_os = "linux")]
fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno))
}
