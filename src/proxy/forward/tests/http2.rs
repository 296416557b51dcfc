//! HTTP/2, and requests that are resent over the other protocol.

use super::*;

#[tokio::test(start_paused = true)]
async fn over_http2_concurrent_requests_share_one_connection() {
    let (client, opened) = client(Protocol::Http2, serve_http2);
    let started = Instant::now();
    let crowd = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { fetch(&client).await })
    });
    for fetched in crowd.collect::<Vec<_>>() {
        assert_eq!(fetched.await.unwrap(), "ok");
    }
    assert_eq!((opened.load(SeqCst), started.elapsed().as_secs()), (1, 1));
    sleep(31 * SECOND).await;
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 2, "an idle connection is closed");
}

#[tokio::test(start_paused = true)]
async fn over_http2_a_request_may_exceed_the_idle_timeout() {
    let (client, opened) = client(Protocol::Http2, |_, stream| serve_http2_after(100 * SECOND, stream));
    // Paused time does not advance while a task is busy, so this hangs if the task of the connection spins.
    assert_eq!(fetch(&client).await, "ok");
    assert_eq!(connection_metrics(&client).await, " 1", "the idle time starts after the response");
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 1);
    sleep(61 * SECOND).await;
    assert_eq!(connection_metrics(&client).await, r#""idle"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn over_http2_requests_beyond_the_stream_limit_open_connections() {
    let (client, opened) = client(Protocol::Http2, |_, stream| {
        let mut two = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        two.max_concurrent_streams(2);
        let service = service_fn(async |_| {
            sleep(SECOND).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
        });
        tokio::spawn(two.serve_connection(TokioIo::new(stream), service));
    });
    assert_eq!(fetch(&client).await, "ok", "the stream limit of the server is known after the first request");
    for _ in 0..3 {
        let started = Instant::now();
        let crowd = (0..5).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { fetch(&client).await })
        });
        for fetched in crowd.collect::<Vec<_>>() {
            assert_eq!(fetched.await.unwrap(), "ok");
        }
        assert_eq!((opened.load(SeqCst), started.elapsed().as_secs()), (3, 1), "no request waits for another");
    }
    for _ in 0..40 {
        fetch(&client).await;
        sleep(SECOND).await;
    }
    assert_eq!(connection_metrics(&client).await, r#" 1,"idle"} 2"#, "superfluous connections are closed");
}

#[tokio::test(start_paused = true)]
async fn a_resend_can_use_the_other_protocol() {
    type Serve = Box<dyn Fn(usize, DuplexStream) + Send + Sync>;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    let over_http1: Serve = Box::new(move |_, mut stream| {
        let recorder = Arc::clone(&recorder);
        drop(tokio::spawn(async move {
            while let Some(head) = read_head(&mut stream).await {
                recorder.lock().unwrap().push(String::from_utf8(head).unwrap());
                stream.write_all(OK).await.unwrap();
            }
        }));
    });
    let recorder = Arc::clone(&seen);
    let over_http2: Serve = Box::new(move |_, stream| {
        let recorder = Arc::clone(&recorder);
        serve_http2_with(stream, move |request| {
            let fields =
                request.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            let head = format!("{} {}\r\n{}", request.method(), request.uri(), fields.collect::<String>());
            recorder.lock().unwrap().push(head);
            std::future::ready(Response::new(Full::new(Bytes::from("ok"))))
        });
    });
    let (over_http1, _) = client(Protocol::Http1, over_http1);
    let (over_http2, _) = client(Protocol::Http2, over_http2);
    const OVER_HTTP1: &str = "PUT /x?y HTTP/1.1\r\na: b\r\ncontent-length: 0\r\nhost: api.finicity.com\r\n\r\n";
    const OVER_HTTP2: &str = "PUT https://api.finicity.com/x?y\r\na: b\r\ncontent-length: 0\r\n";
    for (attempts, expected) in
        [([&over_http1, &over_http2], [OVER_HTTP1, OVER_HTTP2]), ([&over_http2, &over_http1], [OVER_HTTP2, OVER_HTTP1])]
    {
        let request = Request::put("/x?y").header("a", "b").header("content-length", "0").body(Empty::new()).unwrap();
        let mut request = ReplayBuffer::wrap(request, Bytes::new(), 0);
        let buffer = request.body().buffer();
        for client in attempts {
            client.clone().call(exchange(request)).await.unwrap().into_body().collect().await.unwrap();
            request = buffer.resend().expect("the request was sent and can be resent");
        }
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    }
}
