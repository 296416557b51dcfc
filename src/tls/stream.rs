//! A TLS client stream that holds no buffers between uses, except those that the protocol requires.
//!
//! rustls implements the protocol; this module moves the bytes. rustls' buffered connections, and `tokio-rustls` on top of them, read 4 KiB
//! at a time and keep buffers for each connection, which is expensive with many connections and large bodies. Here, each thread has one
//! scratch buffer into which all its connections read and encrypt. A connection owns only a partially received record, plaintext for which
//! the reader had no room, and ciphertext that the kernel did not accept.
//!
//! Deliberately absent: early data and the server side. An end without `close_notify` is an error, not an end of file (RFC 8446, 6.1).

use std::{
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConfig,
    client::UnbufferedClientConnection,
    pki_types::{CertificateDer, ServerName},
    unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of bytes per system call: several records. Half of this costs 3 % more CPU time for large responses; twice as much saves
/// nothing.
const MAX_IO_BYTES: usize = 128 * 1024;

/// Maximum plaintext of a record (RFC 8446, 5.1).
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// Maximum number of bytes that encryption adds to [`MAX_IO_BYTES`]: 29 per record of TLS 1.2 or 1.3, and a key update or an alert before
/// them.
const MAX_OVERHEAD_BYTES: usize = 1024;

/// Maximum number of slices encrypted per call, if they are too long to be gathered into one record. Each slice begins a new record, and
/// [`MAX_OVERHEAD_BYTES`] covers this many in addition to the full records.
const MAX_SLICES: usize = 16;

/// Maximum ciphertext of an incomplete message. rustls limits a handshake message to 64 KiB, and the rest is the overhead of its records,
/// which the sender may make arbitrarily short.
const MAX_PARTIAL_BYTES: usize = 128 * 1024;

thread_local! {
    /// The thread's buffer for reading, decrypting in place and encrypting. It grows on demand.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `use_scratch` with `length` bytes of this thread's scratch buffer.
fn scratch<T>(length: usize, use_scratch: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken, not borrowed: a stream that runs over another one calls this recursively, and then gets a new buffer.
    let mut scratch = SCRATCH.take();
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    let result = use_scratch(&mut scratch[..length]);
    SCRATCH.set(scratch);
    result
}

/// The client side of a TLS connection.
pub struct Stream<S> {
    io: S,
    tls: UnbufferedClientConnection,
    /// A partially received record, or the records of a partially received message.
    incoming: Vec<u8>,
    /// Plaintext for which the reader had no room.
    plaintext: Buffer,
    /// Ciphertext that `io` has not accepted yet.
    outgoing: Buffer,
    /// The server has sent `close_notify`.
    peer_closed: bool,
    /// `close_notify` has been queued.
    close_notify_queued: bool,
    /// The error of rustls, which is final. Kept here because rustls does not remember every error: it would continue with the next record,
    /// and it panics if it is called without the bytes of a message that it has begun.
    tls_error: Option<rustls::Error>,
}

/// A byte queue: `bytes` without the first `consumed` ones.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Buffer {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Consumes `count` bytes. Frees the memory when none is left.
    fn consume(&mut self, count: usize) {
        self.consumed += count;
        if self.consumed == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// The state of a connection.
#[derive(PartialEq, Eq)]
enum Progress {
    /// The handshake needs more bytes from the server.
    Handshaking,
    /// The connection can be written to.
    Established,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Performs the handshake over `io`, and verifies that the server is `name`.
    ///
    /// # Errors
    ///
    /// Errors of `io`. For a failed handshake, `InvalidData` with a [`rustls::Error`] as its source; the server receives an alert.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn connect(config: Arc<ClientConfig>, name: ServerName<'static>, io: S) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let (incoming, plaintext, outgoing) = Default::default();
        let mut stream = Self {
            io,
            tls,
            incoming,
            plaintext,
            outgoing,
            peer_closed: false,
            close_notify_queued: false,
            tls_error: None,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The negotiated application protocol (RFC 7301).
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The certificates presented by the server, its own first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Queues the ClientHello.
        let mut input = mem::take(&mut self.incoming);
        let mut progress = self.process(&mut input, None);
        loop {
            // After a failure this sends the alert. The failure is returned even if the alert cannot be sent.
            let sent = Pin::new(&mut *self).poll_flush(cx);
            if progress? == Progress::Established || matches!(sent, Poll::Ready(Err(_))) {
                return sent;
            }
            // Receive even while data is unsent: the server may stop reading until we have read what it sends.
            progress = ready!(self.poll_receive(cx, None));
        }
    }

    /// Reads ciphertext once and processes it. Plaintext goes to `reader`; what does not fit is kept for the next one.
    fn poll_receive(&mut self, cx: &mut Context<'_>, reader: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<Progress>> {
        self.check_failed()?;
        let pending = self.incoming.len();
        if pending > MAX_PARTIAL_BYTES {
            return Poll::Ready(Err(invalid_data("incomplete TLS message exceeds the size limit")));
        }
        // About as much as the reader can hold, to leave little plaintext over, but at least a full record.
        let plaintext = reader.as_ref().map_or(0, |reader| reader.remaining());
        let read_limit = plaintext.clamp(MAX_RECORD_BYTES, MAX_IO_BYTES) + MAX_OVERHEAD_BYTES;
        scratch(pending + read_limit, |scratch| {
            let mut read = ReadBuf::new(&mut scratch[pending..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let received = read.filled().len();
            if received == 0 {
                let reason = "the peer closed the connection without close_notify";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
            scratch[..pending].copy_from_slice(&self.incoming);
            Poll::Ready(self.process(&mut scratch[..pending + received], reader))
        })
    }

    /// Passes `data`, which is all received and unprocessed ciphertext, to rustls, and keeps what rustls does not consume.
    fn process(&mut self, data: &mut [u8], mut reader: Option<&mut ReadBuf<'_>>) -> io::Result<Progress> {
        let mut used = 0;
        let progress = loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut data[used..]);
            let progress = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(protocol_error)?;
                        let capacity = reader.as_ref().map_or(0, |reader| reader.remaining());
                        let (delivered, rest) = record.payload.split_at(record.payload.len().min(capacity));
                        if let Some(reader) = &mut reader {
                            reader.put_slice(delivered);
                        }
                        self.plaintext.push(rest);
                        discard += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(&mut self.outgoing, |output| message.encode(output))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    // It is queued in `outgoing`, and all later writes are queued behind it.
                    sent.done();
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) if !self.peer_closed => {
                    self.peer_closed = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Progress::Handshaking),
                Ok(_) => Some(Progress::Established),
                Err(error) => {
                    self.incoming = Vec::new();
                    self.queue_alert();
                    self.tls_error = Some(error.clone());
                    return Err(protocol_error(error));
                }
            };
            used += discard;
            if let Some(progress) = progress {
                break progress;
            }
        };
        self.incoming.clear();
        if used < data.len() {
            self.incoming.extend_from_slice(&data[used..]);
        } else {
            // Free the memory: an idle connection does not need it.
            self.incoming = Vec::new();
        }
        Ok(progress)
    }

    /// Queues the alert with which rustls reports an error to the server, and processes nothing else.
    fn queue_alert(&mut self) {
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut message)) = self.tls.process_tls_records(&mut []).state else {
                return;
            };
            if append(&mut self.outgoing, |output| message.encode(output)).is_err() {
                return;
            }
        }
    }

    /// Returns the error of rustls, if it has failed.
    fn check_failed(&self) -> io::Result<()> {
        self.tls_error.clone().map_or(Ok(()), |error| Err(protocol_error(error)))
    }

    /// Sends `outgoing`.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, self.outgoing.unread()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.consume(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts the first part of `slices` and sends it. Ciphertext that `io` does not accept is kept, and sent before anything else.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let limit = total.min(MAX_IO_BYTES);
        scratch(MAX_RECORD_BYTES + limit + MAX_OVERHEAD_BYTES, |scratch| {
            let (gathered, encrypted) = scratch.split_at_mut(MAX_RECORD_BYTES);
            let mut written = 0;
            let mut length = 0;
            if slices.len() > 1 && total <= gathered.len() {
                // For example, a head and a short body become one record.
                for slice in slices {
                    gathered[written..written + slice.len()].copy_from_slice(slice);
                    written += slice.len();
                }
                length = self.encrypt(&gathered[..written], encrypted)?;
            } else {
                for slice in slices.iter().filter(|slice| !slice.is_empty()).take(MAX_SLICES) {
                    let part = &slice[..slice.len().min(limit - written)];
                    length += self.encrypt(part, &mut encrypted[length..])?;
                    written += part.len();
                }
            }
            let mut sent = 0;
            while sent < length {
                match Pin::new(&mut self.io).poll_write(cx, &encrypted[sent..length]) {
                    Poll::Ready(Ok(count @ 1..)) => sent += count,
                    // A part is already sent, so this write must not fail. The next write gets the error again.
                    Poll::Pending | Poll::Ready(_) if sent > 0 => break,
                    Poll::Pending => break,
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            self.outgoing.push(&encrypted[sent..length]);
            Poll::Ready(Ok(written))
        })
    }

    /// Encrypts all of `plaintext` into `output`. Returns the length of the ciphertext.
    fn encrypt(&mut self, plaintext: &[u8], output: &mut [u8]) -> io::Result<usize> {
        if plaintext.is_empty() {
            return Ok(0);
        }
        self.check_failed()?;
        if self.close_notify_queued {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // An incomplete record has no effect, but rustls must be given the bytes of a partial message at each call.
        match self.tls.process_tls_records(&mut self.incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plaintext, output).map_err(io::Error::other)
            }
            Ok(_) => Err(invalid_data("the TLS connection is not writable")),
            Err(error) => Err(protocol_error(error)),
        }
    }
}

/// Appends the output of `encode` to `outgoing`. Given too little space, `encode` reports the required length.
fn append(outgoing: &mut Buffer, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = encode(&mut []) else {
        return Ok(());
    };
    let start = outgoing.bytes.len();
    outgoing.bytes.resize(start + required_size, 0);
    encode(&mut outgoing.bytes[start..]).map(drop).map_err(io::Error::other)
}

fn protocol_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn invalid_data(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.plaintext.is_empty() {
            let count = buffer.remaining().min(this.plaintext.unread().len());
            buffer.put_slice(&this.plaintext.unread()[..count]);
            this.plaintext.consume(count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        while !this.peer_closed && buffer.filled().len() == before {
            let has_unsent = !this.outgoing.is_empty();
            let received = ready!(this.poll_receive(cx, Some(&mut *buffer)));
            if !has_unsent {
                // Sends an alert, if one was queued. Errors are ignored so that they do not hide received data; the next write sends the
                // rest, or fails. If data was already unsent, a writer waits to send it, and its waker must not be replaced.
                let _ = this.poll_send(cx);
            }
            if buffer.filled().len() == before {
                received?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    /// Sends `close_notify`, and shuts `io` down.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !mem::replace(&mut this.close_notify_queued, true)
            && this.tls_error.is_none()
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                this.tls.process_tls_records(&mut this.incoming).state
        {
            let mut close_notify = [0; MAX_OVERHEAD_BYTES];
            let length = traffic.queue_close_notify(&mut close_notify).map_err(io::Error::other)?;
            this.outgoing.push(&close_notify[..length]);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("peer_closed", &self.peer_closed)
            .field("close_notify_queued", &self.close_notify_queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
