//! A TLS client's stream that keeps nothing between two uses but what the protocol makes it keep.
//!
//! rustls does the protocol; what lies here is how bytes come to it and go from it. Its buffered connections, and `tokio-rustls` on them,
//! read 4 KiB at a time and keep buffers for each connection, which a proxy with many connections and large bodies pays for with
//! every one of them. Here a thread has one piece of memory into which all its connections read and encrypt. What a connection
//! owns is a record that has come in part, plaintext for which the reader had no room, and ciphertext that the kernel did not take.
//!
//! Deliberately absent: early data, servers, and an end without `close_notify` that looks like an end (RFC 8446, 6.1).

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

/// The most that is read or written with one call of the kernel: some records at a time. With a half of it large answers take a
/// thirtieth more CPU time, and twice as much saves nothing.
const MAX_IO_BYTES: usize = 128 * 1024;

/// The most plaintext of a record (RFC 8446, 5.1).
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// What encryption may add to [`MAX_IO_BYTES`]: at most 29 bytes for each record of TLS 1.2 or 1.3, and a key update or an alert before
/// them.
const MAX_OVERHEAD_BYTES: usize = 1024;

/// The most slices that are encrypted with one call where they are too long to be gathered: each begins a record, and
/// [`MAX_OVERHEAD_BYTES`] has room for that of as many and of the full records among them.
const MAX_SLICES: usize = 16;

/// The most ciphertext that may wait for the rest of a message: a message of the handshake, whose limit at rustls is 64 KiB, in
/// records that may be as short as their sender likes.
const MAX_PARTIAL_BYTES: usize = 128 * 1024;

thread_local! {
    /// Where a thread reads ciphertext and decrypts it in place, and where it encrypts. It grows to what is used of it.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `use_scratch` with this thread's scratch memory, of which there are `length` bytes.
fn scratch<T>(length: usize, use_scratch: impl FnOnce(&mut [u8]) -> T) -> T {
    // Nobody else's meanwhile: a stream that goes through another one comes here twice.
    let mut scratch = SCRATCH.take();
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    let result = use_scratch(&mut scratch[..length]);
    SCRATCH.set(scratch);
    result
}

/// A connection over TLS, of which we are the client.
pub struct Stream<S> {
    io: S,
    tls: UnbufferedClientConnection,
    /// What has come of a record, or of a message in several of them, whose end has not.
    incoming: Vec<u8>,
    /// What the reader had no room for.
    plaintext: Buffer,
    /// What was encrypted and not taken by `io`.
    outgoing: Buffer,
    /// The server has sent `close_notify`.
    peer_closed: bool,
    /// `close_notify` has been queued.
    close_notify_queued: bool,
    /// What rustls failed with, which is the end. It does not remember that itself for all errors, would go on with the next record, and
    /// panics when it is asked without the bytes of a message that it has in mind.
    tls_error: Option<rustls::Error>,
}

/// Bytes, the first of which have been consumed.
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

    /// Consumes `count` bytes. With the last one, the memory is freed.
    fn consume(&mut self, count: usize) {
        self.consumed += count;
        if self.consumed == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// How far a connection has come.
#[derive(PartialEq, Eq)]
enum Progress {
    /// The handshake needs more bytes from the server.
    Handshaking,
    /// It can be written to.
    Established,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Does the handshake with the server at the other end of `io`, which must prove to be `name`.
    ///
    /// # Errors
    ///
    /// Those of `io`, and a [`rustls::Error`] as the source of one of the kind `InvalidData`, of which the server is told by an alert.
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

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The certificates that the server has presented, its own first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What there is to say before anything came, the first time.
        let mut input = mem::take(&mut self.incoming);
        let mut progress = self.process(&mut input, None);
        loop {
            // An alert says to the server what was wrong; it matters less than that something was.
            let sent = Pin::new(&mut *self).poll_flush(cx);
            if progress? == Progress::Established || matches!(sent, Poll::Ready(Err(_))) {
                return sent;
            }
            // Also while something is not sent yet: the server may take it only when we have taken what it sends.
            progress = ready!(self.poll_receive(cx, None));
        }
    }

    /// Reads ciphertext once, and makes of it what can be made: plaintext goes to `reader`, or is kept for the next one.
    fn poll_receive(&mut self, cx: &mut Context<'_>, reader: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<Progress>> {
        self.check_failed()?;
        let pending = self.incoming.len();
        if pending > MAX_PARTIAL_BYTES {
            return Poll::Ready(Err(invalid_data("a message of TLS does not end")));
        }
        // So much that little plaintext is left over, and all of a record at least.
        let plaintext = reader.as_ref().map_or(0, |reader| reader.remaining());
        let read_limit = plaintext.clamp(MAX_RECORD_BYTES, MAX_IO_BYTES) + MAX_OVERHEAD_BYTES;
        scratch(pending + read_limit, |scratch| {
            let mut read = ReadBuf::new(&mut scratch[pending..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let received = read.filled().len();
            if received == 0 {
                let reason = "the peer closed the connection without saying so (close_notify)";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
            scratch[..pending].copy_from_slice(&self.incoming);
            Poll::Ready(self.process(&mut scratch[..pending + received], reader))
        })
    }

    /// Has rustls make of `data`, which is everything that came and has not been used, what can be made of it, and keeps the rest.
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
                    // All that is written later goes after it.
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
            // An idle connection has no use for it.
            self.incoming = Vec::new();
        }
        Ok(progress)
    }

    /// Takes what rustls wants to say about an error that it has told of, and asks it for no more than that.
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

    /// Fails when rustls has failed.
    fn check_failed(&self) -> io::Result<()> {
        self.tls_error.clone().map_or(Ok(()), |error| Err(protocol_error(error)))
    }

    /// Sends what is to be sent already.
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

    /// Encrypts what can be encrypted at once of `slices`, and sends of it what `io` takes; the rest goes first the next time.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let limit = total.min(MAX_IO_BYTES);
        scratch(MAX_RECORD_BYTES + limit + MAX_OVERHEAD_BYTES, |scratch| {
            let (gathered, encrypted) = scratch.split_at_mut(MAX_RECORD_BYTES);
            let mut written = 0;
            let mut length = 0;
            if slices.len() > 1 && total <= gathered.len() {
                // A head and a short body make one record.
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
                    // Where a part has left already, who writes must not be told that nothing has: the next write fails again.
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
        // With a part of a record nothing happens; but what has come of a message is what rustls has to be shown at each call.
        match self.tls.process_tls_records(&mut self.incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plaintext, output).map_err(io::Error::other)
            }
            Ok(_) => Err(invalid_data("TLS cannot be written to")),
            Err(error) => Err(protocol_error(error)),
        }
    }
}

/// Appends to `outgoing` what `encode` encodes, which reports the length that it needs.
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
                // An alert. What is not taken now goes with the next write, which is told of an error too: it must not hide what has
                // come. What waits already is a writer's, whose waker must not be replaced.
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

    /// Says to the server that nothing more comes, and shuts `io` down.
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
