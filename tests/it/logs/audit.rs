//! The audit log: every decision is logged once, with a documented message.

use std::{fs, os::unix::net::UnixStream, path::Path};

use serde_json::Value;

use crate::support::{
    ADMIN_TOKEN,
    client::Client,
    process::{Process, Proxy},
    upstream::{Reply, Upstream},
};

/// The messages of the events with the target `AUDIT` in `code`: the last string of each.
fn audit_messages(code: &str) -> Vec<String> {
    let mut messages = Vec::new();
    for event in code.split("target: AUDIT").skip(1) {
        let mut last = None;
        let mut text: Option<String> = None;
        let (mut depth, mut characters) = (0, event.chars().peekable());
        while let Some(character) = characters.next() {
            match (&mut text, character) {
                (Some(text), '\\') if characters.peek() == Some(&'\n') => {
                    characters.next();
                    while characters.next_if(|character| character.is_whitespace()).is_some() {}
                    text.push_str("");
                }
                (Some(_), '"') => last = text.take(),
                (Some(text), other) => text.push(other),
                (None, '"') => text = Some(String::new()),
                (None, '(' | '{') => depth += 1,
                (None, ')') if depth == 0 => break,
                (None, ')' | '}') => depth -= 1,
                (None, _) => {}
            }
        }
        messages.extend(last);
    }
    messages
}

fn collect_messages(folder: &Path, messages: &mut Vec<String>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect_messages(&path, messages);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(&path).unwrap();
            // `enabled!` has a target but no message.
            messages.extend(audit_messages(&code.replace("enabled!(target: AUDIT", "")));
        }
    }
}

#[test]
fn every_audit_message_is_documented_exactly_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut messages = Vec::new();
    collect_messages(&root.join("src"), &mut messages);
    messages.sort_unstable();
    let docs = fs::read_to_string(root.join("docs/logging.md")).unwrap();
    let (_, table) = docs.split_once("\n## Audit\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut documented: Vec<_> = rows.map(|(message, _)| message.to_owned()).collect();
    documented.sort_unstable();
    assert!(messages.len() > 20, "{messages:?}");
    assert_eq!(messages, documented);
}

#[test]
fn audit_messages_are_extracted_from_code() {
    let code = "warn!(target: AUDIT, a = \"no\", b = f(x), \"one \\\n    line\");\ninfo!(target: AUDIT, { c.d = 1 }, \"two; (2)\");";
    assert_eq!(audit_messages(code), ["one line", "two; (2)"]);
}

fn audit(process: &Process) -> Vec<Value> {
    let lines = process.output();
    let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["target"] == "finicity_proxy::audit").collect()
}

#[test]
fn a_run_is_audited_from_credentials_to_shutdown() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__LOG__LEVEL", "info")]);
    proxy.process.signal(rustix::process::Signal::TERM);
    proxy.process.wait();
    let lines = audit(&proxy.process);
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["credentials were loaded", "token obtained", "draining", "drained"]);
    assert_eq!((&lines[0]["source"], &lines[0]["scheme"]), (&"environment".into(), &"oauth2".into()));
    assert_eq!(lines[2]["reason"], "SIGTERM");
}

#[test]
fn actions_are_logged_with_their_actor_and_result() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let variables = [("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN), ("FINICITY__ADMIN__SOCKET", &socket.display().to_string())];
    let proxy = Proxy::start_with(&upstream, &variables);
    let nothing = "Content-Length: 0";
    let mut over_socket = Client::connect_socket(&socket);
    assert_eq!(over_socket.call("POST", "/api/quarantine", &[nothing], b"").status, 200);
    assert_eq!(over_socket.call("POST", "/private-1", &[nothing], b"").status, 404);
    let mut over_port = Client::connect(proxy.admin);
    let own_address = over_port.writer().local_addr().unwrap().to_string();
    assert_eq!(
        over_port.call("POST", "/api/quarantine/lift", &[nothing, "Authorization: Bearer private-2"], b"").status,
        401
    );
    let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
    assert_eq!(over_port.call("POST", "/api/quarantine/lift", &[nothing, &authorization], b"").status, 200);
    proxy.process.wait_for_log("the quarantine was lifted");
    proxy.process.wait_for_lines(4, |line| line.contains("admin request"));

    let uid = format!("uid {}", rustix::process::geteuid().as_raw());
    let logged = |message: &str| {
        let lines = proxy.process.logs(message).into_iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let fields =
            lines.map(|line| (text(&line["action"]), text(&line["actor"]), line["http.response.status_code"].as_u64()));
        fields.collect::<Vec<_>>()
    };
    let line = |action: &str, actor: &str, status| (action.to_owned(), actor.to_owned(), Some(status));
    assert_eq!(
        logged("admin request"),
        [line("/api/quarantine", &uid, 200), line("other", &uid, 404), line("/api/quarantine/lift", &own_address, 200)]
    );
    assert_eq!(logged("admin request rejected"), [line("/api/quarantine/lift", &own_address, 401)]);
    assert!(!proxy.process.output().contains("private"));
    drop::<UnixStream>(UnixStream::connect(&socket).unwrap());
}
