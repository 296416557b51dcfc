//! Three calls through the proxy, told from every side: what the caller sent, what the upstream received, what came back.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use super::super::{
    local_client::{self, Endpoint, LocalRequest, LocalResponse, Target},
    say,
};
use crate::sandbox::{Credential, Sandbox, Seen};

/// The longest part of an answer that is shown.
const SHOWN_BYTES: usize = 160;

/// The maximum time for a response. The sandbox responds at once; above this, something is broken.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

struct Call {
    title: &'static str,
    method: Method,
    target: String,
    body: &'static str,
    expected_status: u16,
}

/// Makes the calls and shows them. Returns whether all of it was as it should be; what was not is said.
pub(super) async fn three_calls(proxy: SocketAddr, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let mut faults = Vec::new();
    say("The token call, made by the proxy before any caller came:\n");
    match sandbox.take_seen().as_slice() {
        [call] => {
            show_seen(call);
            let specified = call.method == "POST" && call.target == "/oauth/token" && call.app_key == Credential::Right;
            faults.extend((!specified).then(|| "the token call is not POST /oauth/token with the App Key".to_owned()));
        }
        calls => faults.push(format!("there were {} token calls instead of one", calls.len())),
    }

    let transactions = "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions";
    let calls = [
        Call {
            title: "List customers",
            method: Method::GET,
            target: "/aggregation/v1/customers?start=1&limit=5&username=&type=testing".to_owned(),
            body: "",
            expected_status: 200,
        },
        Call {
            title: "Add a customer",
            method: Method::POST,
            target: "/aggregation/v2/customers/testing".to_owned(),
            body: r#"{"username":"demo-customer","firstName":"Grace","lastName":"Hopper"}"#,
            expected_status: 201,
        },
        Call {
            title: "Read transactions",
            method: Method::GET,
            target: format!("{transactions}?fromDate=1700000000&toDate=1700300000&limit=2"),
            body: "",
            expected_status: 200,
        },
    ];
    for (number, call) in calls.iter().enumerate() {
        say(format_args!("\n{}. {}\n", number + 1, call.title));
        let response = send(proxy, call).await?;
        show_sent(call, proxy);
        match sandbox.take_seen().as_slice() {
            [seen] => {
                show_seen(seen);
                faults.extend(judge(call, seen).into_iter().map(|fault| format!("{}: {fault}", call.title)));
            }
            others => faults.push(format!("{}: the upstream received {} requests", call.title, others.len())),
        }
        show_answer(&response);
        if response.head.status != call.expected_status {
            faults.push(format!("{}: status {} instead of {}", call.title, response.head.status, call.expected_status));
        }
        if response.head.headers.contains_key(header::AUTHORIZATION) {
            faults.push(format!("{}: the answer has a credential", call.title));
        }
    }

    if faults.is_empty() {
        say("\nAll three calls were authenticated by the proxy; the caller sent no credential and saw none.");
    } else {
        say(format_args!("\nThis is not as it should be:\n  {}", faults.join("\n  ")));
    }
    Ok(faults.is_empty())
}

async fn send(proxy: SocketAddr, call: &Call) -> anyhow::Result<LocalResponse> {
    let mut request = LocalRequest::new(call.method.clone(), &call.target);
    request.headers.insert(header::ACCEPT, JSON);
    if !call.body.is_empty() {
        request.headers.insert(header::CONTENT_TYPE, JSON);
        request.body = Bytes::from_static(call.body.as_bytes());
    }
    let endpoint = Endpoint::open(Target::Tcp(proxy.ip().to_string(), proxy.port()));
    Ok(local_client::send(&[endpoint], &request, RESPONSE_TIMEOUT).await?)
}

/// What is wrong with what the upstream received.
fn judge(call: &Call, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    if seen.method != call.method.as_str() || seen.target != call.target {
        faults.push(format!("the upstream received {} {}", seen.method, seen.target));
    }
    if seen.app_key != Credential::Right || seen.token != Credential::Right {
        faults.push("the upstream did not receive exactly one right App Key and one right token".to_owned());
    }
    let value = |name: &str| seen.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    if value("accept") != Some("application/json") {
        faults.push("Accept did not arrive".to_owned());
    }
    if !call.body.is_empty() && value("content-type") != Some("application/json") {
        faults.push("Content-Type did not arrive".to_owned());
    }
    faults
}

fn show_sent(call: &Call, proxy: SocketAddr) {
    say("   the caller sent");
    say(format_args!("      {} http://{proxy}{}", call.method, call.target));
    say("      accept: application/json");
    if !call.body.is_empty() {
        say(format_args!("      content-type: application/json\n      {}", call.body));
    }
}

fn show_seen(seen: &Seen) {
    say("   the upstream received");
    say(format_args!("      {} {}", seen.method, seen.target));
    for (name, value) in &seen.headers {
        say(format_args!("      {name}: {value}"));
    }
}

fn show_answer(response: &LocalResponse) {
    let body = &response.text;
    let shown: String = body.chars().take(SHOWN_BYTES).collect();
    let more = if shown.len() < body.len() { " …" } else { "" };
    say("   the caller got");
    say(format_args!("      {}\n      {shown}{more}", response.head.status));
}
