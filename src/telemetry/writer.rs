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
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{error, warn};
use tracing_subscriber::fmt::MakeWriter;

use super::{Scrubber, text_format::is_wild};

/// How much may wait to be written: several seconds of access lines at full load.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// How long a first line waits for others, so that many lines share one system call. Each call wakes
/// a thread and costs as much as a fifth of a request; and this is below what a reader can notice.
const GATHER: Duration = Duration::from_millis(20);

/// From here on the buffer is written without waiting for more. With the line that brings it there, it fits into one write as a rule.
const ENOUGH_BYTES: usize = 56 * 1024;

/// The longest line. Longer ones come from crates that log what they read, byte by byte, and are dropped whole: a part of a JSON
/// object is none.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// How much is written at once: what a pipe takes while nobody reads it. A larger write would return only when all of it was taken,
/// so that nobody could tell a slow reader from one that has stopped.
const WRITE_BYTES: usize = 64 * 1024;

/// How much of a buffer is kept when it has been written. It grows beyond only when the thread does not keep up, or nobody reads.
const KEPT_BYTES: usize = 128 * 1024;

/// The shortest time between two lines of this module about the same thing. A secret that is a word of such a line would make it
/// the reason for the next.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
const TELL_CAUGHT_INTERVAL: Duration = Duration::from_secs(60);

/// The handle that log lines are written to. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Told when there is something to write, or when nobody waits for more.
    filled: Condvar,
    /// Told when everything has been written.
    emptied: Condvar,
    dropped: AtomicU64,
    /// How many writes the reader has taken.
    taken: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    writing: bool,
    hurry: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. It lives as long as the process.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(super) fn spawn(output: impl Write + Send + 'static, scrubber: Scrubber) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.write_out(output, &scrubber))?;
        Ok(Self(shared))
    }

    /// Takes `line`, which ends with its line break, or drops and counts it.
    pub(super) fn append(&self, line: &[u8]) {
        self.0.append(line);
    }

    /// Lines that were dropped since the start, because the reader was too slow or has gone.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything written so far has left the process. A reader that takes nothing is given up after `patience`, a slow
    /// one after `limit`.
    pub(super) fn flush(&self, patience: Duration, limit: Duration) {
        let end = Instant::now() + limit;
        let busy = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        let mut pending = self.0.lock();
        pending.hurry = true;
        self.0.filled.notify_one();
        loop {
            let before = self.0.taken.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.0.emptied.wait_timeout_while(pending, patience.min(left), busy);
            let (still_pending, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            pending = still_pending;
            let has_stopped = self.0.taken.load(Ordering::Relaxed) == before;
            if !waited.timed_out() || has_stopped || left <= patience {
                break;
            }
        }
        pending.hurry = false;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while the lock is held leaves at worst half a line behind; that is no reason to stop logging.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line about lines that were dropped would not be dropped itself.
    fn has_room(&self) -> bool {
        self.lock().bytes.len() < MAX_PENDING_BYTES / 2
    }

    fn append(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() + line.len() > MAX_PENDING_BYTES || line.len() > MAX_LINE_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = pending.bytes.len();
        pending.bytes.extend_from_slice(line);
        if before == 0 || (before < ENOUGH_BYTES && pending.bytes.len() >= ENOUGH_BYTES) {
            self.filled.notify_one();
        }
    }

    fn write(&self, output: &mut impl Write, batch: &[u8]) -> io::Result<()> {
        for part in batch.chunks(WRITE_BYTES) {
            output.write_all(part)?;
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        output.flush()
    }

    fn write_out(&self, mut output: impl Write, scrubber: &Scrubber) {
        let (mut batch, mut unfinished) = (Vec::new(), Vec::new());
        let (mut caught, mut dropped) = (Untold::new(TELL_CAUGHT_INTERVAL), Untold::new(TELL_INTERVAL));
        loop {
            let pending = self.lock();
            let pending = self
                .filled
                .wait_while(pending, |pending| pending.bytes.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let (mut pending, _) = self
                .filled
                .wait_timeout_while(pending, GATHER, |pending| pending.bytes.len() < ENOUGH_BYTES && !pending.hurry)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut pending.bytes, &mut batch);
            pending.writing = true;
            drop(pending);

            // Only whole lines; what is left of the last one comes before the next batch.
            batch.splice(..0, unfinished.drain(..));
            let whole = memchr::memrchr(b'\n', &batch).map_or(0, |end| end + 1);
            unfinished.extend(batch.drain(whole..));
            tame(&mut batch);
            if let Some(found) = scrubber.scrub(&mut batch)
                && let Some(times) = caught.tell(scrubber.catches())
            {
                error!(
                    secret = found.holder,
                    times,
                    "a secret was about to be logged and was scrubbed: this is a bug in \
                     finicity-proxy, please report it"
                );
            }
            if self.write(&mut output, &batch).is_err() {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            } else if self.has_room()
                && let Some(lines) = dropped.tell(self.dropped.load(Ordering::Relaxed))
            {
                warn!(lines, "log lines were dropped, since nobody read them in time");
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);

            let mut pending = self.lock();
            pending.writing = false;
            if pending.bytes.is_empty() {
                self.emptied.notify_all();
            }
        }
    }
}

/// What has been counted, how much of it the log was told of, and when it may be told of more.
#[derive(Debug)]
struct Untold {
    told: u64,
    next: Option<Instant>,
    interval: Duration,
}

impl Untold {
    fn new(interval: Duration) -> Self {
        Self { told: 0, next: None, interval }
    }

    /// How many of `count` are to be told of now, if any are.
    fn tell(&mut self, count: u64) -> Option<u64> {
        let now = Instant::now();
        if count == self.told || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + self.interval);
        Some(count - std::mem::replace(&mut self.told, count))
    }
}

/// Escapes what JSON and colours leave as it is, and a terminal may obey: all but ASCII, which has nothing of the kind after the
/// formatters. Such characters stand in strings only, where JSON knows this escape.
fn tame(batch: &mut Vec<u8>) {
    if batch.is_ascii() && memchr::memchr(0x7f, batch).is_none() {
        return;
    }
    let text = String::from_utf8_lossy(batch);
    let mut tamed = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if is_wild(character) && !matches!(character, '\n' | '\u{1b}') {
            let _ = fmt::Write::write_fmt(&mut tamed, format_args!("\\u{:04x}", u32::from(character)));
        } else {
            tamed.push(character);
        }
    }
    *batch = tamed.into_bytes();
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(&self.0)
    }
}

/// Takes one formatted event; the formatter hands each over in a single `write`.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
