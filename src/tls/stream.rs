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
    pki_types::ServerName,
    unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read or written with one call of the kernel: some records at a time. With a half of it large answers take a
/// thirtieth more CPU time, and twice as much saves nothing.
const CALL_BYTES: usize = 128 * 1024;

/// The most plaintext of a record (RFC 8446, 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// What encryption may add to [`CALL_BYTES`]: at most 29 bytes for each record of TLS 1.2 or 1.3, and a key update or an alert before
/// them.
const OVERHEAD_BYTES: usize = 1024;

/// The most slices that are encrypted with one call where they are too long to be gathered: each begins a record, and
/// [`OVERHEAD_BYTES`] has room for that of as many and of the full records among them.
const SLICES: usize = 16;

/// The most ciphertext that may wait for the rest of a message: a message of the handshake, whose limit at rustls is 64 KiB, in
/// records that may be as short as their sender likes.
const PARTIAL_BYTES: usize = 128 * 1024;

thread_local! {
    /// Where a thread reads ciphertext and decrypts it in place, and where it encrypts. It grows to what is used of it.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `with` with this thread's scratch memory, of which there are `length` bytes.
fn scratch<T>(length: usize, with: impl FnOnce(&mut [u8]) -> T) -> T {
    // Nobody else's meanwhile: a stream that goes through another one comes here twice.
    let mut scratch = SCRATCH.take();
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    let result = with(&mut scratch[..length]);
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
    plaintext: Unread,
    /// What was encrypted and not taken by `io`.
    outgoing: Unread,
    /// The server has said that it sends nothing more.
    ended: bool,
    /// It was said that we send nothing more.
    closed: bool,
    /// What rustls failed with, which is the end. It does not remember that itself for all errors, would go on with the next record, and
    /// panics when it is asked without the bytes of a message that it has in mind.
    failed: Option<rustls::Error>,
}

/// Bytes of which the first ones were taken.
#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unread {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes `count` bytes; with the last one, the memory goes too.
    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// What a connection needs before it goes on.
#[derive(PartialEq, Eq)]
enum Needs {
    /// More from the server, before the handshake has ended.
    Handshake,
    /// Nothing: it can be written to. More from the server brings more to read.
    Nothing,
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
        let mut stream = Self { io, tls, incoming, plaintext, outgoing, ended: false, closed: false, failed: None };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What there is to say before anything came, the first time.
        let mut begun = mem::take(&mut self.incoming);
        let mut needs = self.process(&mut begun, None);
        loop {
            // An alert says to the server what was wrong; it matters less than that something was.
            let sent = Pin::new(&mut *self).poll_flush(cx);
            if needs? == Needs::Nothing || matches!(sent, Poll::Ready(Err(_))) {
                return sent;
            }
            // Also while something is not sent yet: the server may take it only when we have taken what it sends.
            needs = ready!(self.poll_receive(cx, None));
        }
    }

    /// Reads ciphertext once, and makes of it what can be made: plaintext goes to `reader`, or is kept for the next one.
    fn poll_receive(&mut self, cx: &mut Context<'_>, reader: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<Needs>> {
        self.check()?;
        let kept = self.incoming.len();
        if kept > PARTIAL_BYTES {
            return Poll::Ready(Err(invalid("a message of TLS does not end")));
        }
        // So much that little plaintext is left over, and all of a record at least.
        let wanted = reader.as_ref().map_or(0, |reader| reader.remaining());
        let wanted = wanted.clamp(RECORD_BYTES, CALL_BYTES) + OVERHEAD_BYTES;
        scratch(kept + wanted, |scratch| {
            let mut arriving = ReadBuf::new(&mut scratch[kept..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut arriving))?;
            let arrived = arriving.filled().len();
            if arrived == 0 {
                let end = "the peer closed the connection without saying so (close_notify)";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, end)));
            }
            scratch[..kept].copy_from_slice(&self.incoming);
            Poll::Ready(self.process(&mut scratch[..kept + arrived], reader))
        })
    }

    /// Has rustls make of `data`, which is everything that came and has not been used, what can be made of it, and keeps the rest.
    fn process(&mut self, data: &mut [u8], mut reader: Option<&mut ReadBuf<'_>>) -> io::Result<Needs> {
        let mut used = 0;
        let needs = loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut data[used..]);
            let needs = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(protocol)?;
                        let room = reader.as_ref().map_or(0, |reader| reader.remaining());
                        let (now, later) = record.payload.split_at(record.payload.len().min(room));
                        if let Some(reader) = &mut reader {
                            reader.put_slice(now);
                        }
                        self.plaintext.push(later);
                        discard += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(&mut self.outgoing, |room| message.encode(room))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    // All that is written later goes after it.
                    sent.done();
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) if !self.ended => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Needs::Handshake),
                Ok(_) => Some(Needs::Nothing),
                Err(error) => {
                    self.incoming = Vec::new();
                    self.queue_alert();
                    self.failed = Some(error.clone());
                    return Err(protocol(error));
                }
            };
            used += discard;
            if let Some(needs) = needs {
                break needs;
            }
        };
        self.incoming.clear();
        if used < data.len() {
            self.incoming.extend_from_slice(&data[used..]);
        } else {
            // An idle connection has no use for it.
            self.incoming = Vec::new();
        }
        Ok(needs)
    }

    /// Takes what rustls wants to say about an error that it has told of, and asks it for no more than that.
    fn queue_alert(&mut self) {
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut message)) = self.tls.process_tls_records(&mut []).state else {
                return;
            };
            if append(&mut self.outgoing, |room| message.encode(room)).is_err() {
                return;
            }
        }
    }

    /// Fails when rustls has.
    fn check(&self) -> io::Result<()> {
        self.failed.clone().map_or(Ok(()), |error| Err(protocol(error)))
    }

    /// Sends what is to be sent already.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, self.outgoing.rest()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.take(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts what can be encrypted at once of `slices`, and sends of it what `io` takes; the rest goes first the next time.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let most = total.min(CALL_BYTES);
        scratch(RECORD_BYTES + most + OVERHEAD_BYTES, |scratch| {
            let (gathered, encrypted) = scratch.split_at_mut(RECORD_BYTES);
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
                for slice in slices.iter().filter(|slice| !slice.is_empty()).take(SLICES) {
                    let part = &slice[..slice.len().min(most - written)];
                    length += self.encrypt(part, &mut encrypted[length..])?;
                    written += part.len();
                }
            }
            let mut sent = 0;
            while sent < length {
                match Pin::new(&mut self.io).poll_write(cx, &encrypted[sent..length]) {
                    Poll::Ready(Ok(more @ 1..)) => sent += more,
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

    /// Encrypts all of `plaintext` into `room`, and says how long it is then.
    fn encrypt(&mut self, plaintext: &[u8], room: &mut [u8]) -> io::Result<usize> {
        if plaintext.is_empty() {
            return Ok(0);
        }
        self.check()?;
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // With a part of a record nothing happens; but what has come of a message is what rustls has to be shown at each call.
        match self.tls.process_tls_records(&mut self.incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plaintext, room).map_err(io::Error::other)
            }
            Ok(_) => Err(invalid("TLS cannot be written to")),
            Err(error) => Err(protocol(error)),
        }
    }
}

/// Appends to `outgoing` what `encode` encodes, which says how much room it needs.
fn append(outgoing: &mut Unread, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = encode(&mut []) else {
        return Ok(());
    };
    let start = outgoing.bytes.len();
    outgoing.bytes.resize(start + required_size, 0);
    encode(&mut outgoing.bytes[start..]).map(drop).map_err(io::Error::other)
}

fn protocol(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.plaintext.is_empty() {
            let count = buffer.remaining().min(this.plaintext.rest().len());
            buffer.put_slice(&this.plaintext.rest()[..count]);
            this.plaintext.take(count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        while !this.ended && buffer.filled().len() == before {
            let waiting = !this.outgoing.is_empty();
            let received = ready!(this.poll_receive(cx, Some(&mut *buffer)));
            if !waiting {
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
        if !mem::replace(&mut this.closed, true)
            && this.failed.is_none()
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                this.tls.process_tls_records(&mut this.incoming).state
        {
            let mut room = [0; OVERHEAD_BYTES];
            let length = traffic.queue_close_notify(&mut room).map_err(io::Error::other)?;
            this.outgoing.push(&room[..length]);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ended", &self.ended).field("closed", &self.closed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
