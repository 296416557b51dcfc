//! Clients that read a response slowly, and one that stops reading.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    TIMEOUT,
    process::Proxy,
    upstream::{Reply, Upstream, pattern},
};

const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The minimum that a client must read in each [`IDLE_TIMEOUT`].
const MIN_BYTES: u64 = 128 * 1024;

/// The maximum delay of a read. A longer delay, on a busy machine, would make the client slower than the minimum.
const MAX_LATE: Duration = Duration::from_secs(1);

/// Far more than the kernel buffers.
const BODY_BYTES: u64 = 48 * 1024 * 1024;

/// Reads `bytes_per_timeout` in each [`IDLE_TIMEOUT`] at a constant rate, for three of them. Returns the bytes read, or `None` if the
/// machine was too busy to keep the rate.
fn read_steadily(stream: &mut impl Read, bytes_per_timeout: u64) -> io::Result<Option<u64>> {
    let (start, mut last, mut read) = (Instant::now(), Instant::now(), 0);
    let mut buffer = vec![0; 64 * 1024];
    while start.elapsed() < 3 * IDLE_TIMEOUT {
        if last.elapsed() > MAX_LATE {
            return Ok(None);
        }
        last = Instant::now();
        let due = u64::try_from(start.elapsed().as_millis() * u128::from(bytes_per_timeout) / IDLE_TIMEOUT.as_millis())
            .unwrap();
        if read < due {
            let length = buffer.len().min(usize::try_from(due - read).unwrap());
            match stream.read(&mut buffer[..length])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => read += length as u64,
            }
        }
        // This sets the rate.
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(Some(read))
}

/// Sends a request on a connection from `connect`, reads the response at a constant rate for a while, and then the rest at full speed.
/// Returns the length of the response and its last byte.
fn read_response<S: Read + Write>(connect: impl Fn() -> S, bytes_per_timeout: u64) -> io::Result<(u64, u8)> {
    loop {
        let mut stream = connect();
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let Some(read) = read_steadily(&mut stream, bytes_per_timeout)? else { continue };
        let (mut buffer, mut read, mut last) = (vec![0; 64 * 1024], read, 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((read, last)),
                length => (read, last) = (read + length as u64, buffer[length - 1]),
            }
        }
    }
}

#[test]
fn a_steady_slow_reader_is_served_and_a_stalled_one_aborted() {
    let upstream = Upstream::start(3600, |_| Reply::Stream(BODY_BYTES));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let both = format!("127.0.0.1:0,unix:{}", socket.display());
    let timeout = format!("{}s", IDLE_TIMEOUT.as_secs());
    let proxy = Proxy::start_with(
        &upstream,
        &[("FINICITY__LISTEN__PROXY", both.as_str()), ("FINICITY__UPSTREAM__IDLE_TIMEOUT", &timeout)],
    );
    let tcp = || {
        let stream = TcpStream::connect(proxy.proxy[0]).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    };
    let unix = || UnixStream::connect(&socket).unwrap();
    thread::scope(|scope| {
        let steady = [2 * MIN_BYTES, 5 * MIN_BYTES].map(|rate| {
            [scope.spawn(move || read_response(tcp, rate)), scope.spawn(move || read_response(unix, rate))]
        });
        let mut stopped = tcp();
        stopped.write_all(b"POST /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        proxy.process.wait_for_line(|line| line.contains("POST") && line.contains(r#""outcome":"aborted""#));
        assert_eq!(stopped.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        for client in steady.into_iter().flatten() {
            let (length, last) = client.join().unwrap().unwrap();
            // The head accounts for the difference.
            assert!(length > BODY_BYTES && length < BODY_BYTES + 1000, "{length}");
            assert_eq!(last, pattern(BODY_BYTES - 1));
        }
    });
}
