//! Host names: which ones a listener accepts, and which one is sent to the upstream.

use crate::support::{
    process::Proxy,
    upstream::{Reply, Upstream},
};

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn hosts_are_compared_in_normalized_form() {
    let upstream = upstream();
    let hosts = "finicity-proxy.finicity, Finicity-Proxy.finicity.svc., finicity-proxy.finicity.svc.cluster.local,\
                 10.0.0.7, [2001:db8::5], 2001:DB8:0:0::6, ::ffff:10.0.0.8";
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__GUARD__HOSTS", hosts)]);
    let mut client = proxy.connect();
    let mut get = |host: &str| {
        client.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.read_response(false).unwrap()
    };
    let names = [
        "localhost",
        "localhost.",
        "LOCALHOST.",
        "127.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "finicity-proxy.finicity",
        "finicity-proxy.finicity.",
        "finicity-proxy.finicity.svc",
        "FINICITY-PROXY.finicity.svc.",
        "finicity-proxy.finicity.svc.cluster.local",
        "finicity-proxy.finicity.svc.cluster.local.",
        "10.0.0.7",
        "[::ffff:10.0.0.7]",
        "[2001:db8::5]",
        "[2001:DB8:0:0:0:0:0:5]",
        "[2001:db8::6]",
        "10.0.0.8",
    ];
    for name in names {
        for host in [name.to_owned(), format!("{name}:3464")] {
            assert_eq!(get(&host).status, 200, "{host}");
        }
    }
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2 * names.len());
    assert!(seen.iter().all(|request| request.headers("host") == [upstream.authority()]));

    for host in [
        "attacker.example",
        "localhost.attacker.example",
        "finicity-proxy",
        "finicity-proxy.finicity.attacker.example",
        "10.0.0.9",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::]",
        "[2001:db8::7]",
        "[::ffff:10.0.0.9]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
    ] {
        get(host).assert_problem(421, "host_denied");
    }
    for host in
        ["localhost..", ".", ".localhost", "a..b", "[127.0.0.1]", "[localhost]", "[::1].", "[::1", "::1", "[::1%25lo]"]
    {
        let mut client = proxy.connect();
        client.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.read_response(false).unwrap().assert_problem(400, "bad_request");
    }
    assert_eq!(upstream.requests().len(), 2 * names.len());
}

#[test]
fn token_and_api_requests_send_the_same_normalized_host() {
    for host in ["LocalHost", "localhost.", "LOCALHOST."] {
        let upstream = upstream();
        let url = format!("HTTPS://{host}:0{}", upstream.port());
        let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__URL", &url)]);
        assert_eq!(proxy.connect().get("/x").status, 200);
        let received = upstream.received();
        assert_eq!(received.len(), 2);
        for request in received {
            assert_eq!(request.headers("host"), [upstream.authority()], "{url}: {}", request.head);
        }
    }
}
