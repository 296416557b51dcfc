//! Whether a client that has ended its sending direction still reads.
//!
//! A client may shut down its sending direction after a complete request (`nc -N`, the `wget` of BusyBox) and wait for the response. To
//! the proxy, that looks as if the client had closed the connection: over TCP, both are a FIN. A Unix socket knows which it was. For TCP,
//! the kernel is asked for the client's own socket, which it has where the client is in the network namespace of the proxy, as in the pod
//! of a sidecar: `sock_diag(7)` needs no capability there. A socket that is not found belongs to a client elsewhere.

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

/// What is known of a client while its request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerState {
    /// It may send more.
    Open,
    /// It sends nothing more, and reads.
    HalfClosed,
    /// It has closed the connection or lost it. Also one that sends nothing more and cannot be asked whether it reads: clients that close
    /// are many, and those that shut down one direction are few.
    Closed,
}

#[cfg(target_os = "linux")]
impl PeerState {
    /// The state of the client of `socket`, as the kernel knows it now. To be called when it has sent its end, or more than was read.
    pub(super) fn of(socket: &SocketStream) -> Self {
        match poll_flags(socket) {
            Ok(flags) if flags.intersects(PollFlags::HUP | PollFlags::ERR) => Self::Closed,
            Ok(flags) if !flags.contains(PollFlags::RDHUP) => Self::Open,
            Ok(_) => match reads(socket) {
                Ok(true) => Self::HalfClosed,
                // For want of a descriptor or of memory, it is looked up again later.
                Err(error) if is_exhausted(&error) => Self::HalfClosed,
                Ok(false) | Err(_) => Self::Closed,
            },
            Err(_) => Self::Closed,
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl PeerState {
    /// The state of the client of `socket`. To be called when it has sent its end, or more than was read.
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

/// Whether the client of `socket`, which has sent its end, reads.
#[cfg(target_os = "linux")]
fn reads(socket: &SocketStream) -> io::Result<bool> {
    match socket {
        // The kernel would have said that it is closed.
        SocketStream::Unix(_) => Ok(true),
        SocketStream::Tcp(stream) => sock_diag::reads(stream.peer_addr()?, stream.local_addr()?),
    }
}

#[cfg(target_os = "linux")]
fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno))
}
