//! An HTTP/1.1 client that sends arbitrary bytes and parses responses by itself.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{TIMEOUT, canary};

/// One connection, over TCP unless it is said otherwise.
pub struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the one field `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs twice in {self:?}");
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is an error of the proxy's own, of kind `code`.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("x-finicity-proxy-error")), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())));
        assert_eq!(problem["type"], format!("/docs/errors.md#{code}"));
        let executed = self.header("x-finicity-proxy-executed");
        assert!(matches!(executed, Some("no" | "unknown")), "{self:?}");
        assert_eq!(problem["executed"].as_str(), executed);
        canary::scan("an error", &format!("{:?} {}", self.headers, self.text()));
    }

    /// The same, for a request of which it says whether the upstream may have executed it.
    #[track_caller]
    pub fn assert_executed(&self, status: u16, code: &str, executed: &str) {
        self.assert_problem(status, code);
        assert_eq!(self.header("x-finicity-proxy-executed"), Some(executed), "{self:?}");
        if executed == "unknown" {
            assert_eq!(self.header("retry-after"), None, "{self:?}");
            assert!(!self.text().contains("nothing was sent"), "{self:?}");
        } else {
            assert!(!self.text().contains("may "), "{self:?}");
        }
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_within(address, TIMEOUT)
    }

    /// A connection whose connect and reads time out after `timeout`.
    pub fn connect_within(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Checks that nothing arrives for `time`, and that the connection stays open.
    #[track_caller]
    pub fn assert_silent_for(&mut self, time: Duration) {
        self.stream.get_ref().set_read_timeout(Some(time)).unwrap();
        match self.stream.fill_buf() {
            Ok(bytes) => panic!("{:?}", String::from_utf8_lossy(bytes)),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        self.stream.get_ref().set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// A second handle on the connection, to write from another thread.
    pub fn writer(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }
}

impl Client<UnixStream> {
    pub fn connect_socket(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl<S: Read + Write> Client<S> {
    /// A client on a connection of any kind.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request with a `Host` and the given further head lines, and reads the answer.
    pub fn call(&mut self, method: &str, target: &str, lines: &[&str], body: &[u8]) -> Response {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        self.send(body);
        self.read_response(method == "HEAD").unwrap()
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.call("GET", target, &[], b"")
    }

    /// Reads one answer. Errors when the connection ends before the answer does.
    pub fn read_response(&mut self, is_head: bool) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if is_head || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).unwrap();
                let start = response.body.len();
                response.body.resize(start + size, 0);
                self.stream.read_exact(&mut response.body[start..])?;
                assert_eq!(self.line()?, "");
                if size == 0 {
                    return Ok(response);
                }
            }
        }
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        response.body.resize(length, 0);
        self.stream.read_exact(&mut response.body)?;
        if response.header("x-finicity-proxy-error").is_some() {
            canary::scan("an error", &format!("{:?} {}", response.headers, response.text()));
        }
        Ok(response)
    }

    /// Reads until the other side closes. Errors when it resets the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Waits for the other side to close; there must be nothing more to read.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
