//! The client: sends requests on persistent connections.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use super::Result;

/// The maximum time for a response: valgrind is slow, and a busy machine slower.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// A request, as bytes.
pub(super) type Request = &'static [u8];

/// A typical request: a few fields, a small JSON response.
pub(super) const SMALL: Request = b"GET /aggregation/v1/customers?limit=5 HTTP/1.1\r\nHost: localhost\r\n\
    User-Agent: budget/1\r\nAccept: application/json\r\n\r\n";

/// A request with a large response: a page of the sandbox's transactions, about 140 KB.
pub(super) const LARGE: Request = b"GET /aggregation/v4/customers/1005061234/accounts/5011648377/transactions\
    ?fromDate=1420092061&toDate=1900000000&limit=280 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: budget/1\r\n\
    Accept: application/json\r\n\r\n";

/// A persistent connection.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects to `address`.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, RESPONSE_TIMEOUT)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), body: Vec::new() })
    }

    /// Sends `count` requests, each after the response to the previous one.
    ///
    /// # Errors
    ///
    /// If a response is not 200, or is incomplete.
    pub(super) fn call(&mut self, request: Request, count: u32) -> Result<()> {
        for _ in 0..count {
            self.call_once(request)?;
        }
        Ok(())
    }

    fn call_once(&mut self, request: Request) -> Result<()> {
        self.stream.get_mut().write_all(request)?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(format!("a response is not 200: {line}").into());
        }
        while line != "\r\n" {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("a response is incomplete".into());
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        Ok(self.stream.read_exact(&mut self.body)?)
    }
}

/// Sends `each` requests on each of `connections` new connections in parallel.
///
/// # Errors
///
/// Those of [`Connection::call`].
pub(super) fn call_at_once(address: SocketAddr, connections: u32, request: Request, each: u32) -> Result<()> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| scope.spawn(move || Connection::open(address).and_then(|mut open| open.call(request, each))))
            .collect();
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    })
}
