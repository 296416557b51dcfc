//! A client's connection, over TCP or a Unix socket.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::message::transport::{Peer, Transport};

/// A TCP or Unix stream.
#[derive(Debug)]
pub(super) enum SocketStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Evaluates an expression on either kind of stream.
macro_rules! with_stream {
    ($transport:expr, $stream:ident => $action:expr) => {
        match $transport {
            SocketStream::Tcp($stream) => $action,
            SocketStream::Unix($stream) => $action,
        }
    };
}

impl SocketStream {
    /// The transport.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Unix(_) => Transport::Unix,
        }
    }

    /// Moves the stream from its reactor to that of the current runtime.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(super) fn register_here(self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.into_std().and_then(TcpStream::from_std).map(Self::Tcp),
            Self::Unix(stream) => stream.into_std().and_then(UnixStream::from_std).map(Self::Unix),
        }
    }

    /// Sends small writes immediately. A Unix socket always does.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Writes as much of `bytes` as the kernel takes now, regardless of its low-water mark.
    ///
    /// # Errors
    ///
    /// If the kernel takes nothing ([`WouldBlock`](io::ErrorKind::WouldBlock)), or the connection is lost.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(with_stream!(self, stream => send(stream, bytes, flags))?)
    }

    /// Makes dropping the connection reset it. A Unix socket cannot be reset: there, only the framing can show that a response is truncated,
    /// so HTTP/1.0 clients, which have no such framing, are not admitted (`proxy::admission`).
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_zero_linger(),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Waits until the socket is readable, including EOF.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    #[cfg(test)]
    pub(super) async fn readable(&self) -> io::Result<()> {
        with_stream!(self, stream => stream.readable().await)
    }

    /// Waits until the socket is readable, and returns whether bytes are waiting. False at EOF and if the connection is lost.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let peeked = with_stream!(self, stream => {
                if ready!(stream.poll_read_ready(cx)).is_err() {
                    return Poll::Ready(false);
                }
                stream.try_io(Interest::READABLE, || {
                    Ok(recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(_, length)| length)?)
                })
            });
            match peeked {
                Ok(length) => return Poll::Ready(length > 0),
                // The readiness was stale; wait again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(false),
            }
        }
    }

    /// Whether the kernel holds unread bytes now. EOF does not count.
    pub(super) fn has_unread(&self) -> bool {
        let peeked = with_stream!(self, stream => recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT));
        matches!(peeked, Ok((_, length)) if length > 0)
    }

    /// The peer.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => Peer::Tcp(stream.peer_addr().ok()),
            Self::Unix(_) => Peer::Unix(self.peer_uid()),
        }
    }

    /// The peer's UID on a Unix socket, if the kernel knows it (`SO_PEERCRED`).
    pub(super) fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
        }
    }
}

impl AsFd for SocketStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        with_stream!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_stream!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        with_stream!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
