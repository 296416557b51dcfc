//! A caller's connection, over TCP or a Unix socket: what carries the bytes, and nothing about what they mean.

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

/// The two kinds of connection.
#[derive(Debug)]
pub(super) enum SocketStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Evaluates an expression on the stream of either kind.
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

    /// Moves it from the reactor that it is registered with to that of the current runtime.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub(super) fn register_here(self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.into_std().and_then(TcpStream::from_std).map(Self::Tcp),
            Self::Unix(stream) => stream.into_std().and_then(UnixStream::from_std).map(Self::Unix),
        }
    }

    /// Has small writes sent at once. A Unix socket always does.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Writes what the kernel takes of `bytes` now, however little room it has.
    ///
    /// # Errors
    ///
    /// When it takes nothing ([`WouldBlock`](io::ErrorKind::WouldBlock)), and when the connection is lost.
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(with_stream!(self, stream => send(stream, bytes, flags))?)
    }

    /// Has the connection reset when it is dropped. A Unix socket cannot be reset: what ends early on it has to say so in its
    /// framing, and callers that speak HTTP/1.0, which has none, are not let in there (`proxy::admission`).
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_zero_linger(),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Waits until there is something to read, be it the end.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    #[cfg(test)]
    pub(super) async fn readable(&self) -> io::Result<()> {
        with_stream!(self, stream => stream.readable().await)
    }

    /// Waits until something can be read, be it the end: whether bytes wait to be read. False also when the connection is lost.
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
                // It was ready before, and is waited for now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(false),
            }
        }
    }

    /// Whether bytes have arrived that were not read, as the kernel knows it now. The end of the connection is none.
    pub(super) fn has_unread(&self) -> bool {
        let peeked = with_stream!(self, stream => recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT));
        matches!(peeked, Ok((_, length)) if length > 0)
    }

    /// Who is at the other end.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => Peer::Tcp(stream.peer_addr().ok()),
            Self::Unix(_) => Peer::Unix(self.peer_uid()),
        }
    }

    /// The user at the other end of a Unix socket, if the kernel knows one (`SO_PEERCRED`).
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
