use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An output on which every write waits for a permit.
struct GatedOutput {
    permits: mpsc::Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for GatedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gated_writer() -> (LogWriter, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
    let (permit, permits) = mpsc::channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let writer = LogWriter::spawn(GatedOutput { permits, written: Arc::clone(&written) }, scrubber()).unwrap();
    (writer, permit, written)
}

const SECRET: &str = "s3cr3t\"+/value";

fn scrubber() -> Scrubber {
    let scrubber = Scrubber::default();
    scrubber.register("test", vec![Secret::new(SECRET.into())]);
    scrubber
}

/// The output after writing each of `parts` in a separate call. `cuts` states after which of them to flush.
fn written_in(parts: &[&[u8]], cuts: &[bool]) -> String {
    let (writer, permit, written) = gated_writer();
    for (part, cut) in parts.iter().zip(cuts.iter().cycle()) {
        permit.send(()).unwrap();
        writer.make_writer().write_all(part).unwrap();
        if *cut {
            writer.flush(TIMEOUT, TIMEOUT);
        }
    }
    permit.send(()).unwrap();
    writer.flush(TIMEOUT, TIMEOUT);
    let bytes = written.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn a_secret_split_between_writes_is_scrubbed(
        lines in proptest::collection::vec(("[ a-z]{0,9}", any::<bool>(), "[ a-z]{0,9}"), 1..9),
        splits in proptest::collection::vec(1_usize..20, 1..9),
        cuts in proptest::collection::vec(any::<bool>(), 1..9),
    ) {
        let json = serde_json::to_string(SECRET).unwrap();
        let text: String = lines
            .iter()
            .map(|(before, escaped, after)| format!("{before}{}{after}\n", if *escaped { &json } else { SECRET }))
            .collect();
        let (mut parts, mut rest) = (Vec::new(), text.as_bytes());
        for split in splits.iter().cycle() {
            let (part, others) = rest.split_at(rest.len().min(*split));
            parts.push(part);
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        let expected = text.replace(&json, "\"[scrubbed]\"").replace(SECRET, "[scrubbed]");
        prop_assert_eq!(written_in(&parts, &cuts), expected);
    }
}

#[test]
fn l08_only_control_characters_are_escaped() {
    let line = "{\"a\":\"\u{7f}\u{9b}31m\u{2028}\u{202e}gr\u{fc}n\"}\n";
    let text = written_in(&[line.as_bytes()], &[true]);
    assert_eq!(text, "{\"a\":\"\\u007f\\u009b31m\\u2028\\u202egr\u{fc}n\"}\n");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    );
}

#[test]
fn l08_too_long_lines_are_dropped_and_counted() {
    let (writer, permit, written) = gated_writer();
    permit.send(()).unwrap();
    writer.append(&vec![b'x'; MAX_LINE_BYTES + 1]);
    writer.append(b"next\n");
    writer.flush(TIMEOUT, TIMEOUT);
    assert_eq!((written.lock().unwrap().as_slice(), writer.dropped()), (&b"next\n"[..], 1));
}

#[test]
fn a_count_is_reported_at_intervals() {
    let mut unreported = Unreported::new(Duration::from_secs(3600));
    assert_eq!((unreported.report(0), unreported.report(2), unreported.report(5)), (None, Some(2), None));
    unreported.next_report = None;
    assert_eq!((unreported.report(5), unreported.report(6)), (Some(3), None));
}

#[test]
fn a_flush_waits_until_all_lines_are_written_in_order() {
    let (writer, permit, written) = gated_writer();
    for _ in 0..100 {
        permit.send(()).unwrap();
    }
    for n in 0..100 {
        writeln!(writer.make_writer(), "line {n}").unwrap();
    }
    writer.flush(TIMEOUT, TIMEOUT);
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 99\n"), "{text}");
    assert_eq!(writer.dropped(), 0);
}

#[test]
fn i14_a_stopped_reader_costs_lines_but_never_blocks() {
    let (writer, permit, _written) = gated_writer();
    let mut line = vec![b'x'; 64 * 1024];
    line[64 * 1024 - 1] = b'\n';
    for _ in 0..64 {
        writer.make_writer().write_all(&line).unwrap();
    }
    let dropped = writer.dropped();
    assert!((30..=48).contains(&dropped), "{dropped}");
    drop(permit);
    writer.flush(TIMEOUT, TIMEOUT);
    assert_eq!(writer.0.lock().unwrap().bytes.len(), 0);
}

/// An output on which each write takes `interval`, until the sender of `released` is dropped.
struct SlowOutput {
    interval: Duration,
    released: mpsc::Receiver<()>,
    written: Arc<AtomicU64>,
}

impl Write for SlowOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.released.recv_timeout(self.interval) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many of ten writes are complete after a flush, if each takes `interval`.
fn writes_after_flush(interval: Duration, stall_timeout: Duration, limit: Duration) -> u64 {
    let (written, (_release, released)) = (Arc::new(AtomicU64::new(0)), mpsc::channel());
    let output = SlowOutput { interval, released, written: Arc::clone(&written) };
    let writer = LogWriter::spawn(output, scrubber()).unwrap();
    let mut line = vec![b'x'; MAX_WRITE_BYTES];
    line[MAX_WRITE_BYTES - 1] = b'\n';
    for _ in 0..10 {
        writer.append(&line);
    }
    writer.flush(stall_timeout, limit);
    written.load(Ordering::Relaxed) / MAX_WRITE_BYTES as u64
}

#[test]
fn a_flush_waits_while_the_output_makes_progress() {
    let second = Duration::from_secs(1);
    // All writes together exceed the stall timeout, but each one restarts it.
    assert_eq!(writes_after_flush(second / 4, 2 * second, TIMEOUT), 10);
    // No progress, and then progress that exceeds the limit.
    assert_eq!(writes_after_flush(TIMEOUT, second / 10, TIMEOUT), 0);
    assert!(writes_after_flush(second / 4, 2 * second, second / 2) < 10);
}

/// An output that panics on the first write.
struct PanickingOutput {
    has_panicked: bool,
    written: mpsc::Sender<Vec<u8>>,
}

impl Write for PanickingOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(std::mem::replace(&mut self.has_panicked, true), "the first write");
        self.written.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_of_the_writer_thread_loses_only_one_batch() {
    let (sender, written) = mpsc::channel();
    let writer = LogWriter::spawn(PanickingOutput { has_panicked: false, written: sender }, scrubber()).unwrap();
    writer.append(b"lost\nlost\n");
    writer.flush(TIMEOUT, TIMEOUT);
    assert_eq!(writer.dropped(), 2);
    writer.append(b"kept\n");
    assert_eq!(written.recv_timeout(TIMEOUT).unwrap(), b"kept\n");
}
