use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

const PATIENCE: Duration = Duration::from_secs(60);

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
    let writer = LogWriter::spawn(Gate { open, written: Arc::clone(&written) }, scrubber()).unwrap();
    (writer, permit, written)
}

const SECRET: &str = "s3cr3t\"+/value";

fn scrubber() -> Scrubber {
    let scrubber = Scrubber::default();
    scrubber.know("test", vec![Secret::new(SECRET.into())]);
    scrubber
}

/// What comes out of the process after each of `parts` was written in a call of its own, and let out of the process at `cuts`.
fn written_in(parts: &[&[u8]], cuts: &[bool]) -> String {
    let (writer, permit, written) = gated();
    for (part, cut) in parts.iter().zip(cuts.iter().cycle()) {
        permit.send(()).unwrap();
        writer.make_writer().write_all(part).unwrap();
        if *cut {
            writer.flush(PATIENCE, PATIENCE);
        }
    }
    permit.send(()).unwrap();
    writer.flush(PATIENCE, PATIENCE);
    let bytes = written.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn no_secret_leaves_in_parts(
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
fn l08_what_a_terminal_may_obey_is_escaped_and_other_text_is_not() {
    let line = "{\"a\":\"\u{7f}\u{9b}31m\u{2028}\u{202e}gr\u{fc}n\"}\n";
    let text = written_in(&[line.as_bytes()], &[true]);
    assert_eq!(text, "{\"a\":\"\\u007f\\u009b31m\\u2028\\u202egr\u{fc}n\"}\n");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    );
}

#[test]
fn l08_a_line_that_is_too_long_is_dropped_and_counted() {
    let (writer, permit, written) = gated();
    permit.send(()).unwrap();
    writer.append(&vec![b'x'; MAX_LINE_BYTES + 1]);
    writer.append(b"next\n");
    writer.flush(PATIENCE, PATIENCE);
    assert_eq!((written.lock().unwrap().as_slice(), writer.dropped()), (&b"next\n"[..], 1));
}

#[test]
fn what_is_untold_is_told_with_pauses() {
    let mut untold = Untold::new(Duration::from_secs(3600));
    assert_eq!((untold.tell(0), untold.tell(2), untold.tell(5)), (None, Some(2), None));
    untold.next = None;
    assert_eq!((untold.tell(5), untold.tell(6)), (Some(3), None));
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
    writer.flush(PATIENCE, PATIENCE);
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 99\n"), "{text}");
    assert_eq!(writer.dropped(), 0);
}

#[test]
fn i14_a_reader_that_stops_reading_costs_lines_but_never_blocks() {
    let (writer, permit, _written) = gated();
    let mut line = vec![b'x'; 64 * 1024];
    line[64 * 1024 - 1] = b'\n';
    for _ in 0..64 {
        writer.make_writer().write_all(&line).unwrap();
    }
    let dropped = writer.dropped();
    assert!((30..=48).contains(&dropped), "{dropped}");
    drop(permit);
    writer.flush(PATIENCE, PATIENCE);
    assert_eq!(writer.0.lock().bytes.len(), 0);
}

/// An output that takes one write in a while, until nobody is to be waited for.
struct Slow {
    pace: Duration,
    hurry: mpsc::Receiver<()>,
    taken: Arc<AtomicU64>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hurry.recv_timeout(self.pace) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much of ten writes an output that takes one in each `pace` has taken after a flush.
fn taken_slowly(pace: Duration, patience: Duration, limit: Duration) -> u64 {
    let (taken, (_hurry, hurried)) = (Arc::new(AtomicU64::new(0)), mpsc::channel());
    let output = Slow { pace, hurry: hurried, taken: Arc::clone(&taken) };
    let writer = LogWriter::spawn(output, scrubber()).unwrap();
    let mut line = vec![b'x'; WRITE_BYTES];
    line[WRITE_BYTES - 1] = b'\n';
    for _ in 0..10 {
        writer.append(&line);
    }
    writer.flush(patience, limit);
    taken.load(Ordering::Relaxed) / WRITE_BYTES as u64
}

#[test]
fn the_end_waits_for_a_reader_as_long_as_it_takes_something() {
    let second = Duration::from_secs(1);
    // Longer in all than the patience is, which each of them renews.
    assert_eq!(taken_slowly(second / 4, 2 * second, PATIENCE), 10);
    // One that takes nothing, and one that would take its time.
    assert_eq!(taken_slowly(PATIENCE, second / 10, PATIENCE), 0);
    assert!(taken_slowly(second / 4, 2 * second, second / 2) < 10);
}
