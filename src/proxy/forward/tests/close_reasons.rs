//! The close reasons in the connection metrics.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_for_idleness_or_age() {
    let (client, _) = client(Protocol::Http1, respond_to_all);
    fetch(&client).await;
    assert_eq!(connection_metrics(&client).await, " 1,_idle 1");
    let (first, second) = tokio::join!(get(&client), get(&client));
    assert_eq!(connection_metrics(&client).await, " 2");
    drop((first.unwrap().into_body().collect().await, second.unwrap().into_body().collect().await));
    assert_eq!(connection_metrics(&client).await, " 2,_idle 2");
    sleep(31 * SECOND).await;
    assert_eq!(connection_metrics(&client).await, r#""idle"} 2"#);
    for _ in 0..40 {
        sleep(10 * SECOND).await;
        fetch(&client).await;
    }
    assert_eq!(connection_metrics(&client).await, r#" 1,"age"} 1,"idle"} 2,_idle 1"#);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_an_abandoned_request_closes_as_unfinished() {
    let (abandoned, _) = client(Protocol::Http1, server_streams().1);
    assert!(timeout(SECOND, get(&abandoned)).await.is_err());
    assert_eq!(connection_metrics(&abandoned).await, r#""unfinished"} 1"#);

    let (streams, collect) = server_streams();
    let (half_read, _) = client(Protocol::Http1, collect);
    let act = async {
        sleep(SECOND).await;
        let mut stream = streams.lock().unwrap().remove(0);
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").await.unwrap();
        stream
    };
    let (_, _end) = tokio::join!(async { drop(get(&half_read).await.unwrap()) }, act);
    assert_eq!(connection_metrics(&half_read).await, r#""unfinished"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_upstream_closes_is_attributed_to_it() {
    let (closed, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
        }));
    });
    fetch(&closed).await;
    assert_eq!(connection_metrics(&closed).await, r#""upstream"} 1"#);

    let (broken, _) = client(Protocol::Http1, respond_to_some(0, b""));
    disposition(&broken).await;
    assert_eq!(connection_metrics(&broken).await, r#""upstream"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn unsolicited_bytes_on_an_idle_connection_close_it_as_failed() {
    let (noisy, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            sleep(SECOND).await;
            stream.write_all(b"an unsolicited response").await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection must be closed");
        }));
    });
    fetch(&noisy).await;
    sleep(2 * SECOND).await;
    assert_eq!(connection_metrics(&noisy).await, r#""failed"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_attributed_to_its_cause() {
    for (broken, reason) in [(&b"nonsense"[..], "failed"), (b"", "upstream")] {
        let (broken_body, _) = client(Protocol::Http1, move |_, mut stream| {
            drop(tokio::spawn(async move {
                read_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
                sleep(SECOND).await;
                stream.write_all(broken).await.unwrap();
            }));
        });
        get(&broken_body).await.unwrap().into_body().collect().await.unwrap_err();
        assert_eq!(connection_metrics(&broken_body).await, format!(r#""{reason}"}} 1"#));
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_outlives_an_abandoned_stream() {
    let (shared, _) = client(Protocol::Http2, serve_http2);
    assert!(timeout(SECOND / 2, get(&shared)).await.is_err());
    fetch(&shared).await;
    assert_eq!(connection_metrics(&shared).await, " 1", "the stream ends, the connection stays");
    sleep(31 * SECOND).await;
    assert_eq!(connection_metrics(&shared).await, r#""idle"} 1"#);
}
