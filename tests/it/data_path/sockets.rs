//! Who can connect: clients on Unix sockets, clients with the required header, and remote clients.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    client::Client,
    process::{Process, Proxy, serve_command},
    upstream::{Reply, Upstream, pattern},
};

/// An upstream, and a directory, a path and an address for a socket.
fn parts() -> (Upstream, TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.sock");
    let address = format!("unix:{}", path.display());
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/stream" => Reply::Stream(3_000_000),
        _ => Reply::json("{}"),
    });
    (upstream, dir, path, address)
}

#[test]
fn k07_the_socket_is_created_and_removed_with_the_proxy() {
    let (upstream, _dir, path, address) = parts();
    let both = format!("{address},127.0.0.1:0");
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__LISTEN__PROXY", &both)]);
    assert_eq!((proxy.sockets.as_slice(), proxy.proxy.len()), ([path.clone()].as_slice(), 1));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);

    let mut client = proxy.connect_socket();
    assert_eq!(client.call("POST", "/x", &["Content-Length: 5"], b"hello").status, 200);
    assert_eq!(upstream.wait_for("/x").body, b"hello");
    let streamed = client.get("/stream").body;
    assert!(streamed.len() == 3_000_000 && (0..).zip(&streamed).all(|(place, byte)| *byte == pattern(place)));
    assert_eq!(proxy.connect().get("/x").status, 200);

    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0), "{}", proxy.process.output());
    assert!(!path.exists());
}

#[test]
fn k07_a_socket_skips_only_the_host_check() {
    let (upstream, _dir, _path, address) = parts();
    let both = format!("{address},127.0.0.1:0");
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LISTEN__PROXY", &both)]);
    let request = "GET /x HTTP/1.1\r\nHost: any.example\r\n";
    for (head, status, code) in [
        ("GET /x HTTP/1.1\r\n".to_owned(), 400, "bad_request"),
        ("GET /x HTTP/1.0\r\nHost: localhost\r\n".to_owned(), 400, "bad_request"),
        (format!("{request}Origin: https://evil.example\r\n"), 403, "origin_denied"),
        ("TRACE /x HTTP/1.1\r\nHost: any.example\r\n".to_owned(), 405, "method_not_allowed"),
    ] {
        let mut client = proxy.connect_socket();
        client.send(format!("{head}\r\n"));
        client.read_response(false).unwrap().assert_problem(status, code);
    }
    assert_eq!(upstream.requests().len(), 0);
    let mut client = proxy.connect_socket();
    client.send(format!("{request}\r\n"));
    assert_eq!(client.read_response(false).unwrap().status, 200);
    let mut client = proxy.connect();
    client.send(format!("{request}\r\n"));
    client.read_response(false).unwrap().assert_problem(421, "host_denied");
}

#[test]
fn upstream_connections_are_shared_by_both_transports() {
    let (upstream, _dir, _path, address) = parts();
    let both = format!("{address},127.0.0.1:0");
    let variables = [("FINICITY__LISTEN__PROXY", both.as_str()), ("FINICITY__RUNTIME__WORKER_THREADS", "1")];
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
    // From now on, no new connection can be opened.
    upstream.use_untrusted_certificate();
    assert_eq!(proxy.connect_socket().get("/x").status, 200);
}

#[test]
fn k06_k07_a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let (upstream, dir, path, address) = parts();
    let admin = dir.path().join("admin.sock").display().to_string();
    let variables = [("FINICITY__LISTEN__PROXY", address.as_str()), ("FINICITY__ADMIN__SOCKET", &admin)];
    let mut killed = Proxy::start_with(&upstream, &variables);
    killed.process.signal(Signal::KILL);
    killed.process.wait();
    assert!(path.exists() && Path::new(&admin).exists());

    let proxy = Proxy::start_with(&upstream, &variables);
    for (key, path) in [("LISTEN__PROXY", &*address), ("ADMIN__SOCKET", &*admin)] {
        let mut second = Process::start(serve_command(&upstream, &[(&format!("FINICITY__{key}"), path)]));
        assert_eq!(second.wait().code(), Some(1));
        let output = second.output();
        let named = key.to_lowercase().replace("__", ".");
        assert!(output.contains(&named) && output.contains("another process listens there"), "{output}");
    }
    assert_eq!(proxy.connect_socket().get("/x").status, 200);
    assert_eq!(Client::connect_socket(Path::new(&admin)).get("/api/status").status, 200);
}

#[test]
fn an_unfinished_request_on_the_admin_socket_gets_408() {
    let (upstream, dir, _path, _address) = parts();
    let admin = dir.path().join("admin.sock");
    let variables =
        [("FINICITY__ADMIN__SOCKET", &*admin.display().to_string()), ("FINICITY__LIMITS__HEADER_TIMEOUT", "1s")];
    let _proxy = Proxy::start_with(&upstream, &variables);
    let mut client = Client::connect_socket(&admin);
    client.send("GET /api/status HTTP/1.1\r\nHo");
    assert_eq!(client.read_response(false).unwrap().status, 408);
    client.assert_closed();
}

#[test]
fn k04_the_required_header_is_checked_and_not_forwarded() {
    let (upstream, _dir, _path, address) = parts();
    let both = format!("{address},127.0.0.1:0");
    let variables =
        [("FINICITY__LISTEN__PROXY", both.as_str()), ("FINICITY__GUARD__REQUIRED_HEADER", "X-Caller: payments")];
    let proxy = Proxy::start_with(&upstream, &variables);
    for lines in [&[][..], &["X-Caller: other"]] {
        let response = proxy.connect().call("GET", "/refused", lines, b"");
        response.assert_problem(412, "header_required");
        assert!(response.text().contains("x-caller: payments"), "{}", response.text());
        proxy.connect_socket().call("GET", "/refused", lines, b"").assert_problem(412, "header_required");
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(proxy.connect().call("GET", "/x", &["x-caller: payments"], b"").status, 200);
    assert_eq!(proxy.connect_socket().call("GET", "/x", &["X-Caller: payments"], b"").status, 200);
    for request in upstream.requests() {
        assert!(request.headers("x-caller").is_empty(), "{}", request.head);
    }
}

#[test]
fn k05_widely_reachable_listeners_are_logged_at_startup() {
    // An address that counts as remotely reachable, although only this machine can reach it.
    let mapped = "[::ffff:127.0.0.1]:0";
    if TcpListener::bind(mapped).is_err() {
        return; // a machine without IPv6
    }
    let (upstream, _dir, _path, address) = parts();
    let addresses = format!("{mapped},{address}");
    let variables = [
        ("FINICITY__LISTEN__PROXY", addresses.as_str()),
        ("FINICITY__LISTEN__ALLOW_REMOTE", "true"),
        ("FINICITY__LISTEN__SOCKET_MODE", "0666"),
    ];
    let proxy = Proxy::start_with(&upstream, &variables);
    let logged = |message| {
        let line = &proxy.process.logs(message)[0];
        (line["level"].as_str().unwrap().to_owned(), line["address"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        logged("other machines can reach this address and use the credentials through it"),
        ("WARN".to_owned(), mapped.to_owned())
    );
    assert_eq!(
        logged("any user of this machine can use the credentials through it: restrict listen.socket_mode"),
        ("WARN".to_owned(), address)
    );
    // The default addresses cause no warning.
    let usual = Proxy::start(&upstream);
    assert!(!usual.process.output().contains("use the credentials through it"));
}
