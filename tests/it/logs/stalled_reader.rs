//! If the reader of the log stops reading or closes the pipe, requests, shutdown and error messages do not block.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Write as _, pipe},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    TIMEOUT,
    client::Client,
    process::{program, serve_command},
    upstream::{Reply, Upstream},
};

/// The capacity of a pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// A proxy on a Unix socket, with its output in a pipe that is not read.
struct UnreadProxy {
    child: Child,
    reader: Option<PipeReader>,
    proxy: PathBuf,
    _upstream: Upstream,
    _dir: TempDir,
}

impl UnreadProxy {
    /// Starts it with `prefilled` bytes in the pipe.
    fn start(prefilled: usize) -> Self {
        let upstream = Upstream::start(3600, |_| Reply::json("{}"));
        let dir = tempfile::tempdir().unwrap();
        let proxy = dir.path().join("proxy.sock");
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(&vec![b'\n'; prefilled]).unwrap();
        let mut command = serve_command(&upstream, &[]);
        command.env("FINICITY__LISTEN__PROXY", format!("unix:{}", proxy.display()));
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        // The command holds the other ends of the pipe.
        drop(command);
        Self { child, reader: Some(reader), proxy, _upstream: upstream, _dir: dir }
    }

    /// Makes `count` requests, which must succeed.
    fn make_requests(&self, count: usize) {
        wait_for_socket(&self.proxy);
        let mut client = Client::connect_socket(&self.proxy);
        for _ in 0..count {
            assert_eq!(client.get("/aggregation/v1/customers").status, 200);
        }
    }

    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        wait(&mut self.child)
    }
}

impl Drop for UnreadProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_socket(path: &Path) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        assert!(std::time::Instant::now() < deadline, "the proxy does not listen");
        thread::yield_now();
    }
}

/// Waits until `child` exits, and kills it after [`TIMEOUT`].
fn wait(child: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let (exited, exit) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if exit.recv_timeout(TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let status = child.wait().unwrap();
    drop(exited);
    guard.join().unwrap();
    status
}

#[test]
fn i14_a_full_pipe_blocks_neither_requests_nor_the_shutdown() {
    let mut unread = UnreadProxy::start(PIPE_BYTES);
    unread.make_requests(50);
    assert!(unread.stop().success());
}

#[test]
fn i14_a_closed_pipe_blocks_neither_requests_nor_the_shutdown() {
    let mut unread = UnreadProxy::start(0);
    drop(unread.reader.take());
    unread.make_requests(50);
    assert!(unread.stop().success());
}

#[test]
fn i14_dropped_lines_are_reported_when_the_reader_is_back() {
    let mut unread = UnreadProxy::start(PIPE_BYTES);
    // At TRACE, this is several times the size of the log buffer.
    unread.make_requests(3000);
    let reader = BufReader::new(unread.reader.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = reader.split(b'\n').map_while(Result::ok).map(|line| String::from_utf8(line).unwrap());
        for line in lines.filter(|line| line.contains("log lines dropped")) {
            let _ = sender.send(line);
        }
    });
    let line: serde_json::Value = serde_json::from_str(&receiver.recv_timeout(TIMEOUT).unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(line["lines"].as_u64().unwrap() > 0, "{line}");
}

#[test]
fn i14_error_messages_do_not_wait_for_a_stalled_reader() {
    let (_reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
    let run = |arguments: &[&str]| {
        let mut command: Command = program();
        command.args(arguments).stdout(Stdio::null()).stderr(writer.try_clone().unwrap());
        wait(&mut command.spawn().unwrap()).code()
    };
    assert_eq!(run(&["check"]), Some(78));
    assert_eq!(run(&["--nonsense"]), Some(2));
}
