//! Bytes that have arrived and that hyper does not get yet: a request head that has not arrived in full.
//!
//! hyper allocates 8 KiB and its own state for a head of one byte, and twice its length for a long one, and the allocator keeps
//! what thousands of them took. Here a head takes its own length, and a large one is in pages of its own, which the system has back
//! as soon as it ends.

use std::mem;

use memmap2::MmapMut;
use tokio::io::ReadBuf;

/// Heads up to this size are in the heap. Most heads that arrive in more than one part are larger than a packet or are typed.
const SMALL: usize = 1024;

/// What is kept.
#[derive(Debug)]
pub(super) struct HeadBuffer {
    bytes: Bytes,
    /// The length of what was delivered, of what may be delivered, and of all that has arrived.
    delivered: usize,
    ready: usize,
    length: usize,
    /// The most bytes that are kept.
    capacity: usize,
}

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Bytes {
    /// Room for `length` bytes at least, and for `capacity` without another allocation where there are many.
    fn with(length: usize, capacity: usize) -> Self {
        if length <= SMALL {
            return Self::Heap(vec![0; length]);
        }
        // The pages are taken when they are written.
        MmapMut::map_anon(capacity.max(length)).map_or_else(|_| Self::Heap(vec![0; capacity.max(length)]), Self::Mapped)
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl HeadBuffer {
    /// Keeps `bytes`, and up to `capacity` of those that follow. None of them can be delivered yet.
    pub(super) fn new(bytes: &[u8], capacity: usize) -> Self {
        let length = bytes.len();
        let mut kept = Bytes::with(length, capacity);
        kept.as_mut_slice()[..length].copy_from_slice(bytes);
        Self { bytes: kept, delivered: 0, ready: 0, length, capacity }
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.length >= self.capacity
    }

    /// Whether there is something to deliver.
    pub(super) fn is_ready(&self) -> bool {
        self.ready > self.delivered
    }

    /// Keeps `more`. To be called while there is room, which it may exceed.
    pub(super) fn push(&mut self, more: &[u8]) {
        let length = self.length + more.len();
        if length > self.bytes.as_slice().len() {
            let mut larger = Bytes::with(length, self.capacity);
            larger.as_mut_slice()[..self.length].copy_from_slice(&self.bytes.as_slice()[..self.length]);
            self.bytes = larger;
        }
        self.bytes.as_mut_slice()[self.length..length].copy_from_slice(more);
        self.length = length;
    }

    /// All but the last `unfinished` bytes can be delivered.
    pub(super) fn release(&mut self, unfinished: usize) {
        self.ready = self.length.saturating_sub(unfinished).max(self.delivered);
    }

    /// Delivers what can be, as far as `buffer` has room. Returns what is to be kept after it.
    pub(super) fn deliver(mut self, buffer: &mut ReadBuf<'_>) -> Option<Self> {
        let bytes = self.bytes.as_slice();
        let end = self.ready.min(self.delivered + buffer.remaining());
        buffer.put_slice(&bytes[self.delivered..end]);
        self.delivered = end;
        if self.is_ready() {
            return Some(self);
        }
        let rest = &bytes[self.ready..self.length];
        (!rest.is_empty()).then(|| Self::new(rest, mem::take(&mut self.capacity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(buffer: HeadBuffer, room: usize) -> (Vec<u8>, Option<HeadBuffer>) {
        let mut bytes = vec![0; room];
        let mut into = ReadBuf::new(&mut bytes);
        let rest = buffer.deliver(&mut into);
        (into.filled().to_vec(), rest)
    }

    #[test]
    fn bytes_come_out_in_their_order_however_they_went_in() {
        let all: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
        for part in [1, 700, 5000] {
            let mut buffer = HeadBuffer::new(&all[..part], 20_000);
            for more in all[part..].chunks(part) {
                assert!(!buffer.is_ready());
                buffer.push(more);
            }
            buffer.release(100);
            let (mut out, mut left) = (Vec::new(), Some(buffer));
            while let Some(buffer) = left.take_if(|buffer| buffer.is_ready()) {
                let (bytes, rest) = deliver(buffer, 333);
                out.extend(bytes);
                left = rest;
            }
            assert_eq!(out, all[..9900]);
            let mut rest = left.expect("the start of the next head");
            rest.release(0);
            assert_eq!(deliver(rest, 1000).0, all[9900..]);
        }
    }

    #[test]
    fn a_buffer_is_full_at_its_capacity() {
        let mut buffer = HeadBuffer::new(&[1; 1000], 3000);
        buffer.push(&[2; 1500]);
        assert!(!buffer.is_full());
        buffer.push(&[3; 1500]);
        assert!(buffer.is_full());
    }
}
