//! Responses that begin before the request body has been sent.

use http_body_util::channel::{Channel, Sender};

use super::*;

type ChannelBody = Channel<Bytes, io::Error>;

/// Sends a request, and returns the sender of its body and the response.
async fn post<F>(
    client: &Upstream<ChannelBody, MemoryConnector<F>>,
) -> (Sender<Bytes, io::Error>, Response<ResponseBody>)
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let (sender, body) = Channel::new(1);
    let request = Request::post("/x").header("content-length", PARTS * PART).body(body).unwrap();
    let response = client.clone().call(exchange(ReplayBuffer::wrap(request, Bytes::new(), 0))).await.unwrap();
    (sender, response)
}

/// A body that exceeds every buffer on the way.
const PARTS: usize = 100;
const PART: usize = 32 * 1024;

/// Responds to every request as soon as its head has arrived, with a body of the same size, and reads the request body.
fn respond_early(fields: &'static str) -> impl Fn(usize, DuplexStream) + Send + Sync {
    move |_, stream| {
        drop(tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut received = vec![0; PARTS * PART];
            while read_head(&mut reader).await.is_some() {
                let responding = async {
                    writer.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).await?;
                    for _ in 0..PARTS {
                        let is_chunked = fields.contains("chunked");
                        let line = if is_chunked { format!("{PART:x}\r\n") } else { String::new() };
                        writer.write_all(line.as_bytes()).await?;
                        writer.write_all(&[b'a'; PART]).await?;
                        writer.write_all(if is_chunked { b"\r\n" } else { b"" }).await?;
                    }
                    writer.write_all(if fields.contains("chunked") { b"0\r\n\r\n" } else { b"" }).await
                };
                let (written, read) = tokio::join!(responding, reader.read_exact(&mut received));
                if written.is_err() || read.is_err() {
                    return;
                }
                assert!(received.iter().all(|byte| *byte == b'q'));
            }
        }));
    }
}

const EARLY: [&str; 2] = ["transfer-encoding: chunked\r\n", "content-length: 3276800\r\n"];

#[tokio::test(start_paused = true)]
async fn a_client_can_send_its_body_before_reading_an_early_response() {
    for fields in EARLY {
        let (client, opened) = client_with_body(Protocol::Http1, respond_early(fields));
        for _ in 0..2 {
            let (mut sender, response) = post(&client).await;
            for _ in 0..PARTS {
                sender.send_data(Bytes::from(vec![b'q'; PART])).await.unwrap();
            }
            drop(sender);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.len() == PARTS * PART && body.iter().all(|byte| *byte == b'a'));
        }
        assert_eq!(opened.load(SeqCst), 1, "both messages were complete");
        assert_eq!(connection_metrics(&client).await, " 1,_idle 1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_response_can_be_read_before_the_request_is_sent() {
    for fields in EARLY {
        let (client, _) = client_with_body(Protocol::Http1, respond_early(fields));
        let (sender, response) = post(&client).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() == PARTS * PART && body.iter().all(|byte| *byte == b'a'));
        drop(sender);
        assert_eq!(connection_metrics(&client).await, r#""upstream"} 1"#, "the rest of the request was never sent");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_response_ends_with_its_request_or_when_dropped() {
    for fields in EARLY {
        let (client, _) = client_with_body(Protocol::Http1, respond_early(fields));
        let (mut sender, response) = post(&client).await;
        sender.send_data(Bytes::from(vec![b'q'; PART])).await.unwrap();
        sender.abort(io::ErrorKind::UnexpectedEof.into());
        response.into_body().collect().await.unwrap_err();
        assert_eq!(connection_metrics(&client).await, r#""unfinished"} 1"#);

        let (_sender, response) = post(&client).await;
        drop(response);
        assert_eq!(connection_metrics(&client).await, r#""unfinished"} 2"#);
    }
}
