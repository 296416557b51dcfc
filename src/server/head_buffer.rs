//! A buffer for an incomplete request head, which hyper does not get yet.
//!
//! hyper allocates 8 KiB and its own state for a head of one byte, and twice the length of a long head, and the allocator keeps what
//! thousands of heads took. This buffer takes the length of the head. A large head has pages of its own, which return to the system
//! as soon as it ends.

use std::mem;

use memmap2::MmapMut;
use tokio::io::ReadBuf;

/// Heads up to this size are on the heap. Most heads that arrive in parts are larger than a packet, or are typed by hand.
const MAX_HEAP_BYTES: usize = 1024;

/// The bytes of a head, after earlier ones that hyper has not read yet.
#[derive(Debug)]
pub(super) struct HeadBuffer {
    bytes: Storage,
    /// The ends of the bytes that were delivered, that may be delivered, and that have arrived.
    delivered: usize,
    deliverable: usize,
    length: usize,
    /// The maximum number of bytes.
    capacity: usize,
}

#[derive(Debug)]
enum Storage {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Storage {
    /// Space for at least `length` bytes; for `capacity` if `length` exceeds [`MAX_HEAP_BYTES`].
    fn with_length(length: usize, capacity: usize) -> Self {
        if length <= MAX_HEAP_BYTES {
            return Self::Heap(vec![0; length]);
        }
        // Pages are allocated when they are written.
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
    /// A buffer of up to `capacity` bytes that starts with `bytes`, none of them deliverable yet.
    pub(super) fn new(bytes: &[u8], capacity: usize) -> Self {
        let length = bytes.len();
        let mut storage = Storage::with_length(length, capacity);
        storage.as_mut_slice()[..length].copy_from_slice(bytes);
        Self { bytes: storage, delivered: 0, deliverable: 0, length, capacity }
    }

    /// All bytes that have arrived. Call it while nothing has been delivered.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.length]
    }

    /// Drops all but the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.length >= self.capacity
    }

    /// Whether there is something to deliver.
    pub(super) fn has_deliverable(&self) -> bool {
        self.deliverable > self.delivered
    }

    /// Appends `more`, which may exceed the capacity.
    pub(super) fn push(&mut self, more: &[u8]) {
        let length = self.length + more.len();
        if length > self.bytes.as_slice().len() {
            let mut larger = Storage::with_length(length, self.capacity);
            larger.as_mut_slice()[..self.length].copy_from_slice(&self.bytes.as_slice()[..self.length]);
            self.bytes = larger;
        }
        self.bytes.as_mut_slice()[self.length..length].copy_from_slice(more);
        self.length = length;
    }

    /// Makes all bytes deliverable except the last `unfinished` ones.
    pub(super) fn hold_back(&mut self, unfinished: usize) {
        self.deliverable = self.length.saturating_sub(unfinished).max(self.delivered);
    }

    /// Moves deliverable bytes into `buffer`, as many as fit. Returns the buffer of the remaining bytes, if there are any.
    pub(super) fn deliver(mut self, buffer: &mut ReadBuf<'_>) -> Option<Self> {
        let bytes = self.bytes.as_slice();
        let end = self.deliverable.min(self.delivered + buffer.remaining());
        buffer.put_slice(&bytes[self.delivered..end]);
        self.delivered = end;
        if self.has_deliverable() {
            return Some(self);
        }
        let rest = &bytes[self.deliverable..self.length];
        (!rest.is_empty()).then(|| Self::new(rest, mem::take(&mut self.capacity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(buffer: HeadBuffer, space: usize) -> (Vec<u8>, Option<HeadBuffer>) {
        let mut bytes = vec![0; space];
        let mut into = ReadBuf::new(&mut bytes);
        let rest = buffer.deliver(&mut into);
        (into.filled().to_vec(), rest)
    }

    #[test]
    fn bytes_are_delivered_in_order_for_any_part_size() {
        let all: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
        for part in [1, 700, 5000] {
            let mut buffer = HeadBuffer::new(&all[..part], 20_000);
            for more in all[part..].chunks(part) {
                assert!(!buffer.has_deliverable());
                buffer.push(more);
            }
            buffer.hold_back(100);
            let (mut out, mut left) = (Vec::new(), Some(buffer));
            while let Some(buffer) = left.take_if(|buffer| buffer.has_deliverable()) {
                let (bytes, rest) = deliver(buffer, 333);
                out.extend(bytes);
                left = rest;
            }
            assert_eq!(out, all[..9900]);
            let mut rest = left.expect("the start of the next head");
            rest.hold_back(0);
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
