//! Credentials that change while the proxy runs, and rejections that are remembered over restarts.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;

use crate::support::{
    process::{Process, Proxy, program, serve_command},
    upstream::{Gate, ReceivedRequest, Reply, Upstream},
};

/// An upstream that issues a token named after the secret, for the secrets in `good`. It accepts a token only with the App Key of the
/// same name.
fn upstream(good: &'static [&'static str]) -> Upstream {
    Upstream::start_raw(move |request| {
        if request.target() == "/oauth/token" {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let secret = body["client_secret"].as_str().unwrap().to_owned();
            assert_eq!(
                request.headers("finicity-app-key"),
                [format!("key-{secret}")],
                "id, secret and key change together"
            );
            return if good.contains(&secret.as_str()) {
                Reply::json(&format!(r#"{{"access_token":"token-{secret}","token_type":"Bearer","expires_in":3600}}"#))
            } else {
                Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#)
            };
        }
        let token = request.headers("authorization")[0].strip_prefix("Bearer token-").unwrap().to_owned();
        if request.headers("finicity-app-key") == [format!("key-{token}")] {
            Reply::json("{}")
        } else {
            Reply::status(403, "Forbidden", "{}")
        }
    })
}

/// Publishes a generation of the mounted Secret with the OAuth 2.0 secret `secret`.
fn swap(mount: &Path, generation: u32, secret: &str) {
    let key = format!("key-{secret}");
    swap_files(mount, generation, &[("client_id", "id"), ("client_secret", secret), ("app_key", &key)]);
}

/// Publishes a generation of the mounted Secret as the kubelet does.
fn swap_files(mount: &Path, generation: u32, files: &[(&str, &str)]) {
    let dir = mount.join(format!("..gen_{generation}"));
    fs::create_dir(&dir).unwrap();
    for (name, value) in files {
        fs::write(dir.join(name), format!("{value}\n")).unwrap();
        if !mount.join(name).exists() {
            let _ = symlink(Path::new("..data").join(name), mount.join(name));
        }
    }
    symlink(format!("..gen_{generation}"), mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if generation > 1 {
        fs::remove_dir_all(mount.join(format!("..gen_{}", generation - 1))).unwrap();
    }
}

fn start(upstream: &Upstream, mount: &Path) -> Proxy {
    let dir = mount.display().to_string();
    Proxy::start_with(upstream, &[("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", &dir)])
}

fn secret_of(request: &ReceivedRequest) -> String {
    String::from_utf8_lossy(&request.body).into_owned()
}

#[test]
fn p05_p08_a_secret_swapped_under_load_fails_no_request() {
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), 1, "one");
    let upstream = upstream(&["one", "two"]);
    let proxy = start(&upstream, mount.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while !done.load(Relaxed) {
                    assert_eq!(client.get("/x").status, 200);
                }
            });
        }
        swap(mount.path(), 2, "two");
        proxy.process.wait_for_log("the new credentials obtained a token and are now in use");
        proxy.connect().get("/after");
        done.store(true, Relaxed);
    });
    let after = upstream.received().into_iter().find(|request| request.target() == "/after").unwrap();
    assert_eq!(after.headers("authorization"), ["Bearer token-two"]);
    assert_eq!(upstream.token_requests(), 2);
}

#[test]
fn check_status_and_readiness_name_the_source() {
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), 1, "one");
    let upstream = upstream(&["one"]);
    let dir = mount.path().display().to_string();
    let source = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", &dir)];
    let from = format!("from the directory {dir}");

    let mut check = program();
    check.arg("check").envs(source);
    let mut check = Process::start(check);
    assert_eq!(check.wait().code(), Some(0), "{}", check.output());
    assert!(
        check.output().contains(&format!("/oauth/token by scheme oauth2, with credentials {from}")),
        "{}",
        check.output()
    );

    let proxy = start(&upstream, mount.path());
    assert!(proxy.ops().get("/readyz?verbose").text().contains(&format!("credentials: {from}\n")));
    let mut status = program();
    status.args(["status".to_owned(), format!("--set=listen.admin={}", proxy.admin)]);
    let mut status = Process::start(status);
    assert_eq!(status.wait().code(), Some(0), "{}", status.output());
    assert!(status.output().contains(&format!("credentials         {from}, scheme oauth2")), "{}", status.output());
}

#[test]
fn d01_a_resent_request_has_credentials_of_one_scheme_only() {
    const OAUTH2: [(&str, &str); 3] = [("client_id", "id"), ("client_secret", "one-secret"), ("app_key", "key-oauth2")];
    const PARTNER: [(&str, &str); 3] =
        [("partner_id", "id"), ("partner_secret", "two-secret"), ("app_key", "key-partner")];
    let credentials = |request: &ReceivedRequest| {
        ["finicity-app-key", "authorization", "finicity-app-token"].map(|name| request.headers(name).join(", "))
    };
    let sent = |key: &str, bearer: &str, token: &str| [key, bearer, token].map(str::to_owned);
    let with_oauth2 = sent("key-oauth2", "Bearer oauth2-token", "");
    let with_partner = sent("key-partner", "", "partner-token");
    for (files, expected) in
        [([OAUTH2, PARTNER], [&with_oauth2, &with_partner]), ([PARTNER, OAUTH2], [&with_partner, &with_oauth2])]
    {
        let gate = Gate::new();
        let (held, refused) = (gate.clone(), AtomicBool::new(false));
        let upstream = Upstream::start_raw(move |request| match request.target() {
            "/oauth/token" => Reply::json(r#"{"access_token":"oauth2-token","token_type":"Bearer","expires_in":3600}"#),
            "/aggregation/v2/partners/authentication" => Reply::json(r#"{"token":"partner-token"}"#),
            _ if refused.swap(true, Relaxed) => Reply::json("{}"),
            _ => Reply::status(401, "Unauthorized", r#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#)
                .held(&held),
        });
        let mount = tempfile::tempdir().unwrap();
        swap_files(mount.path(), 1, &files[0]);
        let proxy = start(&upstream, mount.path());
        thread::scope(|scope| {
            let response = scope.spawn(|| proxy.connect().get("/x"));
            upstream.wait_for("/x");
            swap_files(mount.path(), 2, &files[1]);
            proxy.process.wait_for_log("the new credentials obtained a token and are now in use");
            gate.open();
            assert_eq!(response.join().unwrap().status, 200);
        });
        let received = upstream.received();
        let tries: Vec<_> = received.iter().filter(|request| request.target() == "/x").map(credentials).collect();
        assert_eq!(tries.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn p06_a_wrong_new_secret_is_tried_once_and_the_old_one_kept() {
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), 1, "one");
    let upstream = upstream(&["one"]);
    let proxy = start(&upstream, mount.path());
    swap(mount.path(), 2, "wrong");
    proxy.process.wait_for_line(|line| line.contains("new credentials rejected"));
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert!(proxy.ops().get("/readyz?verbose").text().contains("new credentials: rejected"));
    // Rereading unchanged files changes nothing.
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("SIGHUP: reloading the credentials");
    assert_eq!(proxy.connect().get("/x").status, 200);
    let wrong = upstream.received().iter().filter(|request| secret_of(request).contains("wrong")).count();
    assert_eq!(wrong, 1);
}

#[test]
fn p02_an_unusable_new_secret_is_logged_and_the_old_one_kept() {
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), 1, "one");
    let upstream = upstream(&["one"]);
    let proxy = start(&upstream, mount.path());
    swap(mount.path(), 2, "changeme");
    let line = proxy.process.wait_for_log("cannot load the credentials; keeping the current ones");
    assert!(line["problem"].as_str().unwrap().contains("client_secret is a placeholder"), "{line}");
    assert_eq!((proxy.connect().get("/x").status, upstream.token_requests()), (200, 1));
    let metrics = proxy.ops().get("/metrics").text();
    for line in [
        r#"finicity_proxy_reload_last_successful{subject="credentials"} 0"#,
        r#"finicity_proxy_reload_last_successful{subject="ca_file"} 1"#,
        r#"finicity_proxy_reloads_total{outcome="failure",subject="credentials"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn p09_sighup_rereads_files_named_by_variables() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let key = dir.path().join("key");
    let write = |value: &str| {
        fs::write(&key, format!("key-{value}")).unwrap();
        fs::write(&secret, value).unwrap();
    };
    write("one");
    let upstream = upstream(&["one", "two"]);
    let mut command = serve_command(&upstream, &[]);
    command.env_remove("FINICITY_CLIENT_SECRET").env_remove("FINICITY_APP_KEY");
    command.env("FINICITY_CLIENT_SECRET_FILE", &secret).env("FINICITY_APP_KEY_FILE", &key);
    let process = Process::start(command);
    process.wait_for_log("token obtained");
    write("two");
    process.signal(Signal::HUP);
    process.wait_for_log("the new credentials obtained a token and are now in use");
    assert_eq!(upstream.token_requests(), 2);
}

#[test]
fn n18_a_rejection_survives_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("state").display().to_string();
    let upstream = Upstream::start_raw(|_| Reply::status(500, "Internal Server Error", r#"{"code":24302}"#));
    for run in 0..4 {
        let mut proxy = Proxy::launch(&upstream, &[("FINICITY__AUTH__STATE_DIR", &dir)]);
        let expected = if run == 0 { "credentials rejected" } else { "token requests suspended" };
        proxy.process.wait_for_line(|line| line.contains(expected));
        proxy.connect().get("/x").assert_problem(503, "credentials_rejected");
        assert_eq!((proxy.ops().get("/readyz").status, proxy.ops().get("/startupz").status), (503, 200));
        assert!(proxy.ops().get("/readyz?verbose").text().contains("credentials latched: true"));
        // As an orchestrator does.
        proxy.process.signal(if run % 2 == 0 { Signal::KILL } else { Signal::TERM });
        proxy.process.wait();
    }
    assert_eq!(upstream.received().len(), 1);
    for entry in fs::read_dir(state.path().join("state")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn n18_a_rejection_during_shutdown_is_recorded() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().display().to_string();
    let gate = Gate::new();
    let held = gate.clone();
    let rejection = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::start_raw(move |_| Reply::Held(held.clone(), rejection.to_vec()));
    let variables = [("FINICITY__AUTH__STATE_DIR", dir.as_str())];
    let mut proxy = Proxy::launch(&upstream, &variables);
    upstream.wait_for("/oauth/token");
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    gate.open();
    assert_eq!(proxy.process.wait().code(), Some(0));
    let proxy = Proxy::launch(&upstream, &variables);
    proxy.process.wait_for_line(|line| line.contains("token requests suspended"));
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_unusable_state_file_fails_startup() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("lockout.json"), "{ damaged").unwrap();
    let upstream = upstream(&[]);
    let dir = state.path().display().to_string();
    let mut process = Process::start(serve_command(&upstream, &[("FINICITY__AUTH__STATE_DIR", &dir)]));
    assert_eq!(process.wait().code(), Some(78));
    assert!(process.output().contains("lockout.json"), "{}", process.output());
    assert_eq!(upstream.received().len(), 0);
}
