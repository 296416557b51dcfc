//! The way of a log line out of the process: never blocking, never unbounded.
//!
//! A line is appended to a buffer in memory; one thread writes the buffer out. When whoever reads the output stops reading,
//! the buffer fills up to its limit, and from then on lines are dropped and counted. Requests never wait for a log.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written: several seconds of access lines at full load.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// How long a first line waits for others, so that many lines share one system call. Below what a reader can notice.
const GATHER: Duration = Duration::from_millis(5);

/// From here on the buffer is written without waiting for more.
const ENOUGH_BYTES: usize = 32 * 1024;

/// How long a flush waits for a reader that does not read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

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
    pub(super) fn spawn(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.write_out(output))?;
        Ok(Self(shared))
    }

    /// Lines that were dropped since the start, because the reader was too slow or has gone.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything written so far has left the process, at most one second.
    pub(super) fn flush(&self) {
        let mut pending = self.0.lock();
        pending.hurry = true;
        self.0.filled.notify_one();
        let busy = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        let (mut pending, _) =
            self.0.emptied.wait_timeout_while(pending, FLUSH_TIMEOUT, busy).unwrap_or_else(PoisonError::into_inner);
        pending.hurry = false;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while the lock is held leaves at worst half a line behind; that is no reason to stop logging.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() + line.len() > MAX_PENDING_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = pending.bytes.len();
        pending.bytes.extend_from_slice(line);
        if before == 0 || (before < ENOUGH_BYTES && pending.bytes.len() >= ENOUGH_BYTES) {
            self.filled.notify_one();
        }
    }

    fn write_out(&self, mut output: impl Write) {
        let mut batch = Vec::new();
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

            if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            batch.clear();

            let mut pending = self.lock();
            pending.writing = false;
            if pending.bytes.is_empty() {
                self.emptied.notify_all();
            }
        }
    }
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
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output whose every write waits for a permission.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogWriter, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (permit, open) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = LogWriter::spawn(Gate { open, written: Arc::clone(&written) }).unwrap();
        (writer, permit, written)
    }

    #[test]
    fn lines_leave_in_order_and_a_flush_waits_for_them() {
        let (writer, permit, written) = gated();
        for _ in 0..100 {
            permit.send(()).unwrap();
        }
        for n in 0..100 {
            writeln!(writer.make_writer(), "line {n}").unwrap();
        }
        writer.flush();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 99\n"), "{text}");
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn i14_a_reader_that_stops_reading_costs_lines_but_never_blocks() {
        let (writer, permit, _written) = gated();
        let line = vec![b'x'; 64 * 1024];
        for _ in 0..64 {
            writer.make_writer().write_all(&line).unwrap();
        }
        let dropped = writer.dropped();
        assert!((30..=48).contains(&dropped), "{dropped}");
        drop(permit);
        writer.flush();
        assert_eq!(writer.0.lock().bytes.len(), 0);
    }
}
