//! The connections of second attempts.

use super::*;

/// Sends one request `attempts` times; `mark` records the reason of each resend. Returns the number of connections opened after each attempt.
async fn attempt<F>(
    client: &Upstream<Empty<Bytes>, MemoryConnector<F>>,
    opened: &AtomicUsize,
    mark: fn(&Record),
    attempts: usize,
) -> Vec<usize>
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let mut request = ReplayBuffer::wrap(Request::get("/x").body(Empty::new()).unwrap(), Bytes::new(), 0);
    let buffer = request.body().buffer();
    let record = Arc::new(Record::new(Method::GET, None));
    let mut opened_after = Vec::new();
    for _ in 0..attempts {
        let response = client.clone().call(Exchange { request, record: Arc::clone(&record) }).await;
        response.unwrap().into_body().collect().await.unwrap();
        opened_after.push(opened.load(SeqCst));
        mark(&record);
        request = buffer.resend().unwrap();
    }
    opened_after
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_over_http1_uses_a_fresh_connection() {
    for mark in [Record::set_retried, Record::set_replayed] {
        let (client, opened) = client(Protocol::Http1, respond_to_all);
        // Three connections are idle.
        let (a, b, c) = tokio::join!(get(&client), get(&client), get(&client));
        for response in [a, b, c] {
            response.unwrap().into_body().collect().await.unwrap();
        }
        assert_eq!(attempt(&client, &opened, mark, 3).await, [3, 4, 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_over_http2_uses_another_connection() {
    for mark in [Record::set_retried, Record::set_replayed] {
        let (client, opened) = client(Protocol::Http2, serve_http2);
        assert_eq!(attempt(&client, &opened, mark, 3).await, [1, 2, 3], "a third attempt avoids both connections");
        fetch(&client).await;
        assert_eq!(opened.load(SeqCst), 3, "a first attempt uses any connection");
    }
}

#[tokio::test(start_paused = true)]
async fn second_attempts_over_http2_share_a_fresh_connection() {
    let (client, opened) = client(Protocol::Http2, serve_http2);
    fetch(&client).await;
    let crowd = (0..50).map(|_| {
        let (client, opened) = (client.clone(), Arc::clone(&opened));
        tokio::spawn(async move { attempt(&client, &opened, Record::set_replayed, 2).await })
    });
    for attempted in crowd.collect::<Vec<_>>() {
        assert_eq!(attempted.await.unwrap(), [1, 2]);
    }
}
