//! A loopback upstream without TLS.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use crate::support::{
    TIMEOUT,
    process::{Process, Proxy, serve_command},
    upstream::{Reply, Upstream, token, token_response},
};

/// Responds to requests in clear text, and sends their heads to `heads`.
fn serve_plaintext(stream: &TcpStream, heads: &mpsc::Sender<String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        let body = if head.starts_with("POST /oauth/token ") { token_response(1, 3600) } else { "plain".to_owned() };
        heads.send(head).unwrap();
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        (&mut &*stream).write_all(response.as_bytes())?;
    }
}

/// A mock upstream on a loopback address: its port, and the heads that it receives.
fn mock_upstream() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || serve_plaintext(&stream, &sender));
        }
    });
    (port, heads)
}

#[test]
fn j05_a_plaintext_upstream_serves_requests_and_token_requests() {
    // Only provides the environment of the child process.
    let unused = Upstream::start(3600, |_| Reply::json("{}"));
    for host in ["127.0.0.1", "localhost"] {
        let (port, heads) = mock_upstream();
        let url = format!("http://{host}:{port}");
        let variables = [("FINICITY__UPSTREAM__URL", url.as_str()), ("FINICITY__UPSTREAM__ALLOW_PLAINTEXT", "true")];
        let proxy = Proxy::start_with(&unused, &variables);
        assert_eq!(proxy.connect().get("/x?y=%2F").text(), "plain");
        let token_request = heads.recv_timeout(TIMEOUT).unwrap();
        assert!(token_request.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{token_request}");
        let request = heads.recv_timeout(TIMEOUT).unwrap();
        assert!(request.starts_with("GET /x?y=%2F HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("authorization: Bearer {}\r\n", token(1))), "{request}");
        assert!(request.contains(&format!("host: {host}:{port}\r\n")), "{request}");
    }
    assert_eq!(unused.received().len(), 0);
}

#[test]
fn j05_plaintext_needs_allow_plaintext_and_a_loopback_host() {
    let unused = Upstream::start(3600, |_| Reply::json("{}"));
    for (url, allow_plaintext, expected) in [
        ("http://localhost:1", "false", "upstream.allow_plaintext"),
        ("http://api.finicity.com", "true", "verified TLS"),
        ("http://localhost.example.com", "true", "verified TLS"),
    ] {
        let variables = [("FINICITY__UPSTREAM__URL", url), ("FINICITY__UPSTREAM__ALLOW_PLAINTEXT", allow_plaintext)];
        let mut process = Process::start(serve_command(&unused, &variables));
        assert_eq!(process.wait().code(), Some(78));
        let output = process.output();
        assert!(output.contains("upstream.url") && output.contains(expected), "{output}");
    }
}
