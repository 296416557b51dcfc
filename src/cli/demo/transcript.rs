//! Three requests through the proxy: what the client sent, what the upstream received, and the response.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use super::super::{
    local_client::{self, Endpoint, LocalRequest, LocalResponse, Target},
    output::print,
};
use super::Scheme;
use crate::sandbox::{Credential, RecordedRequest, Sandbox};

/// The maximum number of characters of a response body to show.
const SHOWN_CHARS: usize = 160;

/// The maximum time for a response. The sandbox responds immediately, so a slower response means that something is broken.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

struct DemoRequest {
    title: &'static str,
    method: Method,
    target: String,
    body: &'static str,
    expected_status: u16,
}

/// Sends the requests and prints what each side received, then any differences from what is expected. Returns whether there were none.
pub(super) async fn three_calls(proxy: SocketAddr, sandbox: &Sandbox, scheme: Scheme) -> anyhow::Result<bool> {
    let mut faults = Vec::new();
    print("The token request, sent by the proxy before any client request:\n");
    match sandbox.take_recorded().as_slice() {
        [call] => {
            show_received(call);
            let target = match scheme {
                Scheme::Oauth2 => "/oauth/token",
                Scheme::Partner => "/aggregation/v2/partners/authentication",
            };
            let specified = call.method == "POST" && call.target == target && call.app_key == Credential::Valid;
            faults.extend((!specified).then(|| format!("the token request is not POST {target} with the App Key")));
        }
        calls => faults.push(format!("the proxy sent {} token requests instead of one", calls.len())),
    }

    for (number, call) in requests().iter().enumerate() {
        print(format_args!("\n{}. {}\n", number + 1, call.title));
        let response = send(proxy, call).await?;
        show_sent(call, proxy);
        match sandbox.take_recorded().as_slice() {
            [seen] => {
                show_received(seen);
                faults.extend(check(call, seen).into_iter().map(|fault| format!("{}: {fault}", call.title)));
            }
            others => faults.push(format!("{}: the upstream received {} requests", call.title, others.len())),
        }
        show_response(&response);
        if response.head.status != call.expected_status {
            faults.push(format!("{}: status {} instead of {}", call.title, response.head.status, call.expected_status));
        }
        if response.head.headers.contains_key(header::AUTHORIZATION) {
            faults.push(format!("{}: the response contains a credential", call.title));
        }
    }

    if faults.is_empty() {
        let injected = match scheme {
            Scheme::Oauth2 => "Finicity-App-Key and Authorization",
            Scheme::Partner => "Finicity-App-Key and Finicity-App-Token",
        };
        print(format_args!("\nThe proxy added {injected} to each request."));
        print("The proxy authenticated all three requests; the client sent no credentials and received none.");
    } else {
        print(format_args!("\nUnexpected:\n  {}", faults.join("\n  ")));
    }
    Ok(faults.is_empty())
}

/// The requests that the demo sends.
fn requests() -> [DemoRequest; 3] {
    let transactions = "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions";
    [
        DemoRequest {
            title: "List customers",
            method: Method::GET,
            target: "/aggregation/v1/customers?start=1&limit=5&username=&type=testing".to_owned(),
            body: "",
            expected_status: 200,
        },
        DemoRequest {
            title: "Add a customer",
            method: Method::POST,
            target: "/aggregation/v2/customers/testing".to_owned(),
            body: r#"{"username":"demo-customer","firstName":"Grace","lastName":"Hopper"}"#,
            expected_status: 201,
        },
        DemoRequest {
            title: "Read transactions",
            method: Method::GET,
            target: format!("{transactions}?fromDate=1700000000&toDate=4000000000&limit=2"),
            body: "",
            expected_status: 200,
        },
    ]
}

async fn send(proxy: SocketAddr, call: &DemoRequest) -> anyhow::Result<LocalResponse> {
    let mut request = LocalRequest::new(call.method.clone(), &call.target);
    request.headers.insert(header::ACCEPT, JSON);
    if !call.body.is_empty() {
        request.headers.insert(header::CONTENT_TYPE, JSON);
        request.body = Bytes::from_static(call.body.as_bytes());
    }
    let endpoint = Endpoint::open(Target::Tcp(proxy.ip().to_string(), proxy.port()));
    Ok(local_client::send(&[endpoint], &request, RESPONSE_TIMEOUT).await?)
}

/// How the request that the upstream received differs from the expected one.
fn check(call: &DemoRequest, seen: &RecordedRequest) -> Vec<String> {
    let mut faults = Vec::new();
    if seen.method != call.method.as_str() || seen.target != call.target {
        faults.push(format!("the upstream received {} {}", seen.method, seen.target));
    }
    if seen.app_key != Credential::Valid || seen.token != Credential::Valid {
        faults.push("the upstream did not receive exactly one valid App Key and one valid token".to_owned());
    }
    let value = |name: &str| seen.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    if value("accept") != Some("application/json") {
        faults.push("the upstream did not receive Accept".to_owned());
    }
    if !call.body.is_empty() && value("content-type") != Some("application/json") {
        faults.push("the upstream did not receive Content-Type".to_owned());
    }
    faults
}

fn show_sent(call: &DemoRequest, proxy: SocketAddr) {
    print("   the client sent");
    print(format_args!("      {} http://{proxy}{}", call.method, call.target));
    print("      accept: application/json");
    if !call.body.is_empty() {
        print(format_args!("      content-type: application/json\n      {}", call.body));
    }
}

fn show_received(seen: &RecordedRequest) {
    print("   the upstream received");
    print(format_args!("      {} {}", seen.method, seen.target));
    for (name, value) in &seen.headers {
        print(format_args!("      {name}: {value}"));
    }
}

fn show_response(response: &LocalResponse) {
    let body = &response.text;
    let shown: String = body.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < body.len() { " …" } else { "" };
    print("   the client received");
    print(format_args!("      {}\n      {shown}{more}", response.head.status));
}
