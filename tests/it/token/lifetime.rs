//! The lifetime of tokens, in real time. Unit tests cover what can be tested with paused time.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    APP_KEY,
    process::Proxy,
    upstream::{Reply, Upstream, token, token_response},
};

/// Short enough for a refresh within a test, and long enough for a refresh before the expiry.
const LIFETIME_S: u64 = 12;

/// An upstream that refuses expired and unknown tokens, as the vendor does.
fn strict_upstream() -> Upstream {
    let issued: Mutex<Vec<Instant>> = Mutex::default();
    Upstream::start_raw(move |request| {
        let mut issued = issued.lock().unwrap();
        if request.target() == "/oauth/token" {
            issued.push(Instant::now());
            return Reply::json(&token_response(issued.len() as u64, LIFETIME_S));
        }
        let good = issued.iter().enumerate().any(|(index, at)| {
            at.elapsed() < Duration::from_secs(LIFETIME_S)
                && request.headers("authorization") == [format!("Bearer {}", token(index as u64 + 1))]
                && request.headers("finicity-app-key") == [APP_KEY]
        });
        if good { Reply::json("{}") } else { Reply::status(401, "Unauthorized", r#"{"code":"10023"}"#) }
    })
}

#[test]
fn a_refresh_under_load_fails_no_request() {
    const READERS: usize = 8;
    let upstream = strict_upstream();
    let proxy = Proxy::start(&upstream);
    let refreshed = AtomicBool::new(false);
    let count: Vec<usize> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.connect();
                    let mut count = 0;
                    // Until some requests after the refresh.
                    let mut left = 50;
                    while left > 0 {
                        let response = client.get("/aggregation/v1/customers");
                        assert_eq!(response.status, 200, "{response:?}");
                        count += 1;
                        left -= usize::from(refreshed.load(Ordering::Relaxed));
                    }
                    count
                })
            })
            .collect();
        proxy.process.wait_for_line(|line| line.contains("token obtained") && line.contains(r#""token.version":2"#));
        refreshed.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });

    let requests = upstream.requests();
    assert_eq!(requests.len(), count.iter().sum::<usize>());
    let tokens: BTreeSet<&str> = requests.iter().flat_map(|request| request.headers("authorization")).collect();
    assert_eq!(
        tokens.into_iter().collect::<Vec<_>>(),
        [format!("Bearer {}", token(1)), format!("Bearer {}", token(2))]
    );
    let last: BTreeSet<&str> =
        requests[requests.len() - READERS..].iter().flat_map(|r| r.headers("authorization")).collect();
    assert_eq!(last.into_iter().collect::<Vec<_>>(), [format!("Bearer {}", token(2))]);
    assert_eq!(upstream.token_requests(), 2);
}

#[test]
fn n01_concurrent_requests_at_startup_share_a_token_request() {
    let gate = crate::support::upstream::Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start_raw(move |request| {
        if request.target() != "/oauth/token" {
            return Reply::json("{}");
        }
        let response = token_response(1, 3600);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", response.len());
        Reply::Held(held.clone(), (head + &response).into_bytes())
    });
    let proxy = Proxy::launch(&upstream, &[("FINICITY__AUTH__TOKEN_WAIT", "30s")]);
    upstream.wait_for("/oauth/token");
    let mut clients: Vec<_> = (0..100).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    assert_eq!(upstream.token_requests(), 1);
}

#[test]
fn m15_a_hanging_token_endpoint_delays_no_request() {
    let gate = crate::support::upstream::Gate::new();
    let first = AtomicBool::new(true);
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/oauth/token" if first.swap(false, Ordering::SeqCst) => Reply::json(&token_response(1, 3600)),
        "/oauth/token" => Reply::Held(gate.clone(), Vec::new()),
        "/refused" => Reply::status(401, "Unauthorized", r#"{"code":"10023"}"#),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start(&upstream);
    // A refused token triggers a token request, which hangs.
    let mut refused = proxy.connect();
    refused.send("GET /refused HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.process.wait_for_line(|line| line.contains("the upstream refused the token"));
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert_eq!(refused.read_response(false).unwrap().status, 401);
    assert_eq!(upstream.token_requests(), 2);
}

#[test]
fn o07_a_503_is_relayed_without_a_retry() {
    let upstream = Upstream::start(3600, |_| Reply::status(503, "Service Unavailable", "{}"));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/aggregation/v1/customers").status, 503);
    }
    assert_eq!((upstream.requests().len(), upstream.token_requests()), (20, 1));
}

#[test]
fn m14_a_redirect_of_the_token_request_is_not_followed() {
    let elsewhere = Upstream::start(3600, |_| Reply::json("{}"));
    let location = format!("{}/oauth/token", elsewhere.url());
    let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let upstream = Upstream::start_raw(move |_| Reply::Bytes(head.clone().into_bytes()));
    let proxy = Proxy::launch(&upstream, &[]);
    let line = proxy.process.wait_for_log("token refresh failed");
    assert_eq!(line["class"], "redirect");
    assert_eq!(elsewhere.received().len(), 0);
}

#[test]
fn m13_an_endless_token_response_is_cut_off_at_its_limit() {
    let upstream = Upstream::start_raw(|_| Reply::Stream(u64::MAX / 2));
    let proxy = Proxy::launch(&upstream, &[]);
    let line = proxy.process.wait_for_line(|line| line.contains("token refresh failed"));
    assert!(
        line.contains("\"class\":\"malformed\"") && line.contains("returned 200: the token response is too large"),
        "{line}"
    );
}

#[test]
fn m17_a_rejection_with_a_truncated_body_is_a_rejection() {
    for head in
        ["HTTP/1.1 401 Unauthorized\r\ncontent-length: 100\r\n\r\n{", "HTTP/1.1 500 Oops\r\n\r\n{\"code\":24302}"]
    {
        let upstream = Upstream::start_raw(move |_| Reply::Cut(head.as_bytes().to_vec()));
        let proxy = Proxy::launch(&upstream, &[]);
        proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
        proxy.connect().get("/x").assert_problem(503, "credentials_rejected");
        assert_eq!(upstream.received().len(), 1);
    }
}

#[test]
fn proxy_environment_variables_are_ignored() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let nowhere = "http://127.0.0.1:9";
    let variables: Vec<(&str, &str)> =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
            .map(|n| (n, nowhere))
            .into();
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
}
