//! Browser requests never reach the upstream, whatever triggers them. Requests of other programs that send one of the same headers do.

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

/// Headers that browsers send in addition to `Host`.
const BROWSERS: [&[&str]; 12] = [
    // The address bar, a bookmark or a link in another program; then a link, a form and a frame of a page.
    &["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1", "Sec-Fetch-Dest: document"],
    &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
    &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate"],
    &["Sec-Fetch-Mode: navigate"],
    &["Sec-Fetch-Mode: nested-navigate"],
    // An image, a script or a beacon; an extension; a page of this origin; a WebSocket.
    &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
    &["Sec-Fetch-Mode: no-cors"],
    &["Sec-Fetch-Site: none", "Sec-Fetch-Mode: cors"],
    &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"],
    &["Sec-Fetch-Mode: websocket"],
    &["Origin: http://localhost:3464"],
    // A repeated field hides nothing.
    &["Sec-Fetch-Mode: cors", "Sec-Fetch-Mode: navigate"],
];

#[test]
fn browser_requests_never_reach_the_upstream() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:0,unix:{}", dir.path().join("proxy.sock").display());
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LISTEN__PROXY", &listen)]);
    for fields in BROWSERS {
        proxy.connect().call("GET", "/x", fields, b"").assert_problem(403, "origin_denied");
        proxy.connect_socket().call("GET", "/x", fields, b"").assert_problem(403, "origin_denied");
    }
    // The same for requests that get a local reply.
    let browser = ["Sec-Fetch-Mode: no-cors", "Content-Length: 0"];
    proxy.connect().call("POST", "/oauth/token", &browser, b"").assert_problem(403, "origin_denied");
    assert_eq!(upstream.requests().len(), 0);

    // Node's fetch sends this on servers.
    for fields in [&["Sec-Fetch-Mode: cors"][..], &["sec-fetch-mode: cors", "accept-language: *", "user-agent: node"]] {
        assert_eq!(proxy.connect().call("GET", "/x", fields, b"").status, 200);
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn admin_accepts_browser_navigation_but_no_cross_site_request() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    let status = |fields: &[&str]| Client::connect(proxy.admin).call("GET", "/api/status", fields, b"").status;
    for fields in [
        &["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1", "Sec-Fetch-Dest: document"][..],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate"],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        &["Sec-Fetch-Mode: navigate"],
        &["Sec-Fetch-Mode: no-cors"],
        &[],
    ] {
        assert_eq!(status(fields), 200, "{fields:?}");
    }
    for fields in [
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"][..],
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
        &["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"],
        &["Origin: http://localhost:3466"],
    ] {
        assert_eq!(status(fields), 403, "{fields:?}");
    }
}
