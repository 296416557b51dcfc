//! The way of a log line out of the process: never blocking, never unbounded.
//!
//! A line is appended to a buffer in memory; one thread writes the buffer out. When whoever reads the output stops reading,
//! the buffer fills up to its limit, and from then on lines are dropped and counted; the log says so once it is read again.
//! Requests never wait for a log. The thread looks for secrets in what it writes, a batch of whole lines at a time, so that none
//! can hide between two batches.

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

/// How much may wait to be written: several seconds of access lines at full load.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// How long a first line waits for others, so that many lines share one system call. Each call wakes
/// a thread and costs as much as a fifth of a request; and this is below what a reader can notice.
const BATCH_DELAY: Duration = Duration::from_millis(20);

/// From here on the buffer is written without waiting for more. With the line that brings it there, it fits into one write as a rule.
const BATCH_BYTES: usize = 56 * 1024;

/// The longest line. Longer ones come from crates that log what they read, byte by byte, and are dropped whole: a part of a JSON
/// object is none.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The maximum size of one write: the capacity of a pipe. A larger write would return only once the reader had taken all of it, so that
/// a slow reader could not be distinguished from one that has stopped.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// The capacity that a buffer keeps after it was written. It grows beyond that only when the thread or the reader does not keep up.
const RETAINED_BYTES: usize = 128 * 1024;

/// The minimum time between two lines about dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The minimum time between two lines about scrubbed secrets. It is longer, since a line that contained a secret itself would cause
/// the next one.
const SCRUB_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a thread that panics waits for the lock. It may hold it itself, and would wait forever.
const PANIC_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The handle that log lines are written to. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<LogBuffer>);

/// What the handles and the writing thread share.
#[derive(Debug, Default)]
struct LogBuffer {
    pending: Mutex<PendingLines>,
    /// Notified when there is something to write, and when a flush is requested.
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
    /// When the thread cannot be started.
    pub(super) fn spawn(output: impl Write + Send + 'static, scrubber: Scrubber) -> io::Result<Self> {
        let buffer = Arc::new(LogBuffer::default());
        let writing = Arc::clone(&buffer);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.run(output, &scrubber))?;
        Ok(Self(buffer))
    }

    /// Takes `line`, which ends with its line break, or drops and counts it.
    pub(super) fn append(&self, line: &[u8]) {
        self.0.append(line);
    }

    /// Whether a line can be appended now. It cannot by a thread that panics while it holds the lock.
    pub(super) fn is_available(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Lines that were dropped since the start, because the reader was too slow or has gone.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything appended so far has been written, at most `limit`, and at most `stall_timeout` without any progress.
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
    /// The lock; `None` when the thread panics and cannot have it soon.
    fn lock(&self) -> Option<MutexGuard<'_, PendingLines>> {
        // A panic while the lock is held leaves at worst half a line behind; that is no reason to stop logging.
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

    /// Whether there is capacity for a line about dropped lines.
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
            // Only whole lines; what is left of the last one comes before the next batch.
            batch.splice(..0, partial_line.drain(..));
            let whole = memchr::memrchr(b'\n', &batch).map_or(0, |end| end + 1);
            partial_line.extend(batch.drain(whole..));
            // The thread has to go on: without it, nothing is logged any more. A panic is logged by its hook.
            let written = panic::catch_unwind(AssertUnwindSafe(|| {
                escape_control(&mut batch);
                if let Some(found) = scrubber.scrub(&mut batch)
                    && let Some(times) = scrubbed.report(scrubber.hits())
                {
                    error!(
                        secret = found.name,
                        times,
                        "a secret was about to be logged and was scrubbed: this is a bug in \
                         finicity-proxy, please report it"
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
                warn!(lines, "log lines were dropped, since nobody read them in time");
            }
            batch.clear();
            batch.shrink_to(RETAINED_BYTES);
            self.end_batch();
        }
    }

    /// Waits for something to write, and moves it to `batch`, which is empty.
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

/// A counter that is logged with a minimum interval: how much of it was reported, and when the next report may be written.
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

    /// The part of `count` to report now; `None` if there is none, or if the interval has not passed.
    fn report(&mut self, count: u64) -> Option<u64> {
        let now = Instant::now();
        if count == self.reported || self.next_report.is_some_and(|next| now < next) {
            return None;
        }
        self.next_report = Some(now + self.interval);
        Some(count - std::mem::replace(&mut self.reported, count))
    }
}

/// Escapes the control characters outside of ASCII and DEL, which the formatters leave as they are and a terminal may interpret. They
/// occur in strings only, where JSON has this escape.
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

/// Takes one formatted event; the formatter hands each over in a single `write`.
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
