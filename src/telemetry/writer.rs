//! Writes log lines without blocking and with bounded memory.
//!
//! Lines are appended to an in-memory buffer, which one thread writes out. If the reader of the output stops, the buffer fills up to its
//! limit; further lines are dropped, counted, and reported in the log once the output is read again. Requests never wait for the log. The
//! thread scrubs secrets from each batch. Batches consist of whole lines, so a secret within a line is never split between two batches.

#![expect(clippy::disallowed_types, reason = "a thread without a runtime, which waits on a Condvar")]

use std::{
    fmt,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{error, warn};
use tracing_subscriber::fmt::MakeWriter;

use super::{Scrubber, text_format::needs_escape};

/// Maximum number of bytes that wait to be written: several seconds of access lines at full load.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// How long a first line waits for others, so that many lines share one system call. Each call wakes a thread and costs about a fifth of a
/// request. The delay is too short for a reader to notice.
const BATCH_DELAY: Duration = Duration::from_millis(20);

/// Size at which the buffer is written without waiting for more. Usually it then still fits into one write.
const BATCH_BYTES: usize = 56 * 1024;

/// Maximum length of a line. Longer ones come from crates that log all data they read. They are dropped, because a truncated JSON object
/// would be invalid.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Maximum size of one write: the capacity of a pipe. A larger write would return only after the reader had consumed all of it, so a slow
/// reader could not be distinguished from a stopped one.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Capacity that a buffer keeps after it was written. It grows beyond that only if the thread or the reader cannot keep up.
const RETAINED_BYTES: usize = 128 * 1024;

/// Minimum time between two reports of dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time between two reports of scrubbed secrets. It is longer, because a report that itself contained a secret would trigger the
/// next one.
const SCRUB_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a panicking thread waits for the lock. It may hold the lock itself, and would then wait forever.
const PANIC_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The handle for writing log lines. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<LogBuffer>);

/// Shared by the handles and the writer thread.
#[derive(Debug, Default)]
struct LogBuffer {
    pending: Mutex<PendingLines>,
    /// Notified when the first line or a full batch is pending, and when a flush is requested.
    filled: Condvar,
    /// Notified when everything has been written.
    emptied: Condvar,
    dropped: AtomicU64,
    /// Completed writes.
    writes: AtomicU64,
}

#[derive(Debug, Default)]
struct PendingLines {
    bytes: Vec<u8>,
    writing: bool,
    flush_requested: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. It lives as long as the process.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn spawn(output: impl Write + Send + 'static, scrubber: Scrubber) -> io::Result<Self> {
        let buffer = Arc::new(LogBuffer::default());
        let writing = Arc::clone(&buffer);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.run(output, &scrubber))?;
        Ok(Self(buffer))
    }

    /// Appends `line`, including its line break. If the line is too long or the buffer is full, it is dropped and counted.
    pub(super) fn append(&self, line: &[u8]) {
        self.0.append(line);
    }

    /// Whether a line can be appended now. `false` in a thread that panicked while it held the lock.
    pub(super) fn is_available(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The number of lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all appended lines are written, but at most `limit`, and at most `stall_timeout` without progress.
    pub(super) fn flush(&self, stall_timeout: Duration, limit: Duration) {
        let end = Instant::now() + limit;
        let busy = |pending: &mut PendingLines| pending.writing || !pending.bytes.is_empty();
        let Some(mut pending) = self.0.lock() else { return };
        pending.flush_requested = true;
        self.0.filled.notify_one();
        loop {
            let before = self.0.writes.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.0.emptied.wait_timeout_while(pending, stall_timeout.min(left), busy);
            let (still_pending, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            pending = still_pending;
            let has_stopped = self.0.writes.load(Ordering::Relaxed) == before;
            if !waited.timed_out() || has_stopped || left <= stall_timeout {
                break;
            }
        }
        pending.flush_requested = false;
    }
}

impl LogBuffer {
    /// Locks the buffer. `None` if the thread is panicking and does not get the lock within [`PANIC_LOCK_TIMEOUT`].
    fn lock(&self) -> Option<MutexGuard<'_, PendingLines>> {
        // Poisoning is ignored: a panic while the lock is held leaves half a line in the buffer at worst.
        if !thread::panicking() {
            return Some(self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let deadline = Instant::now() + PANIC_LOCK_TIMEOUT;
        loop {
            match self.pending.try_lock() {
                Ok(pending) => return Some(pending),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
    }

    /// Whether there is room for a report of dropped lines.
    fn has_capacity(&self) -> bool {
        self.lock().is_some_and(|pending| pending.bytes.len() < MAX_PENDING_BYTES / 2)
    }

    fn append(&self, line: &[u8]) {
        let Some(mut pending) = self.lock() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if pending.bytes.len() + line.len() > MAX_PENDING_BYTES || line.len() > MAX_LINE_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = pending.bytes.len();
        pending.bytes.extend_from_slice(line);
        if before == 0 || (before < BATCH_BYTES && pending.bytes.len() >= BATCH_BYTES) {
            self.filled.notify_one();
        }
    }

    fn write(&self, output: &mut impl Write, batch: &[u8]) -> io::Result<()> {
        for part in batch.chunks(MAX_WRITE_BYTES) {
            output.write_all(part)?;
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        output.flush()
    }

    fn run(&self, mut output: impl Write, scrubber: &Scrubber) {
        let (mut batch, mut partial_line) = (Vec::new(), Vec::new());
        let (mut scrubbed, mut dropped) = (Unreported::new(SCRUB_REPORT_INTERVAL), Unreported::new(REPORT_INTERVAL));
        loop {
            self.take_pending(&mut batch);
            // Write whole lines only. A partial line at the end is prepended to the next batch.
            batch.splice(..0, partial_line.drain(..));
            let whole = memchr::memrchr(b'\n', &batch).map_or(0, |end| end + 1);
            partial_line.extend(batch.drain(whole..));
            // The thread must continue, because nothing is logged without it. The panic hook reports a panic.
            let written = panic::catch_unwind(AssertUnwindSafe(|| {
                escape_control(&mut batch);
                if let Some(found) = scrubber.scrub(&mut batch)
                    && let Some(times) = scrubbed.report(scrubber.hits())
                {
                    error!(
                        secret = found.name,
                        times,
                        "scrubbed a secret from the log output: this is a bug in finicity-proxy, please report it"
                    );
                }
                self.write(&mut output, &batch).is_ok()
            }));
            if !written.unwrap_or(false) {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            } else if self.has_capacity()
                && let Some(lines) = dropped.report(self.dropped.load(Ordering::Relaxed))
            {
                warn!(lines, "log lines dropped: output not read in time");
            }
            batch.clear();
            batch.shrink_to(RETAINED_BYTES);
            self.end_batch();
        }
    }

    /// Waits for pending lines, and moves them to `batch`, which must be empty.
    fn take_pending(&self, batch: &mut Vec<u8>) {
        let Some(pending) = self.lock() else { return };
        let pending =
            self.filled.wait_while(pending, |pending| pending.bytes.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let (mut pending, _) = self
            .filled
            .wait_timeout_while(pending, BATCH_DELAY, |pending| {
                pending.bytes.len() < BATCH_BYTES && !pending.flush_requested
            })
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut pending.bytes, batch);
        pending.writing = true;
    }

    fn end_batch(&self) {
        let Some(mut pending) = self.lock() else { return };
        pending.writing = false;
        if pending.bytes.is_empty() {
            self.emptied.notify_all();
        }
    }
}

/// Reports the increase of a counter with a minimum interval.
#[derive(Debug)]
struct Unreported {
    reported: u64,
    next_report: Option<Instant>,
    interval: Duration,
}

impl Unreported {
    fn new(interval: Duration) -> Self {
        Self { reported: 0, next_report: None, interval }
    }

    /// The increase of `count` since the last report. `None` if it has not increased, or if the interval has not passed.
    fn report(&mut self, count: u64) -> Option<u64> {
        let now = Instant::now();
        if count == self.reported || self.next_report.is_some_and(|next| now < next) {
            return None;
        }
        self.next_report = Some(now + self.interval);
        Some(count - std::mem::replace(&mut self.reported, count))
    }
}

/// Escapes DEL and the control characters outside ASCII, which the formatters do not escape and a terminal may interpret. They occur only in
/// strings, where JSON permits this escape.
fn escape_control(batch: &mut Vec<u8>) {
    if batch.is_ascii() && memchr::memchr(0x7f, batch).is_none() {
        return;
    }
    let text = String::from_utf8_lossy(batch);
    let mut escaped = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if needs_escape(character) && !matches!(character, '\n' | '\u{1b}') {
            let _ = fmt::Write::write_fmt(&mut escaped, format_args!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    *batch = escaped.into_bytes();
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(&self.0)
    }
}

/// Writes one formatted event. The formatter passes each event in a single `write`.
#[derive(Debug)]
pub(super) struct LineWriter<'a>(&'a LogBuffer);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl LogWriter {
    /// Panics while it holds the lock.
    pub(super) fn panic_while_locked(&self) -> ! {
        let _pending = self.0.lock();
        panic!("canary");
    }
}

#[cfg(test)]
mod tests;
