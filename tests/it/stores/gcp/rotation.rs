//! New versions while the proxy runs, and what is logged.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    IN_USE, SECRET, Source, UNUSABLE, assert_serves, secret,
    server::{ACCESS, Google, key_file, private_key},
    start, upstream,
};
use crate::support::{
    TOKEN_PREFIX,
    canary::encodings,
    process::{Process, program},
};

#[test]
fn a_new_version_under_load_fails_no_request() {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    let proxy = start(&upstream, &google, &[]);
    google.tls.wait_for_requests(3, |request| request.target().ends_with("/versions/latest"));
    assert_eq!(google.calls(":access"), 1, "an unchanged secret is read again");
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
        google.add(&secret(2));
        proxy.process.wait_for_log(IN_USE);
        proxy.connect().get("/after");
        done.store(true, Relaxed);
    });
    let after = upstream.received().into_iter().find(|request| request.target() == "/after").unwrap();
    assert_eq!(after.headers("authorization"), [format!("Bearer {TOKEN_PREFIX}2")]);
    assert_eq!((upstream.token_requests(), google.calls(":access")), (2, 2));
    assert!(google.calls("/versions/2:access") == 1, "the described version is the one that is read");
    assert_eq!(google.issued("metadata"), 1);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
}

#[test]
fn the_secret_accessor_role_is_enough() {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    google.permit(&[ACCESS]);
    let proxy = start(&upstream, &google, &[]);
    google.tls.wait_for_requests(3, |request| request.target().ends_with("/versions/latest:access"));
    assert_eq!(google.calls("/versions/latest"), 1, "a denied request is repeated");
    proxy
        .process
        .wait_for_log("secretmanager.versions.get is not permitted; polling with secretmanager.versions.access");
    google.add(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
    assert_eq!(upstream.token_requests(), 2);
}

#[test]
fn sighup_polls_immediately_and_a_wrong_secret_is_tried_once() {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    let proxy = start(&upstream, &google, &[("FINICITY__CREDENTIALS__POLL_INTERVAL", "24h")]);
    google.add(&secret(9));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(
        "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new credentials",
    );
    proxy.process.signal(Signal::HUP);
    google.tls.wait_for_requests(3, |request| request.target().ends_with(":access"));
    assert_serves(&proxy);
    google.add(&secret(2));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(upstream.token_requests(), 3);
}

#[test]
fn a_secret_recreated_at_version_1_is_a_change() {
    for permissions in [&["secretmanager.versions.get", ACCESS][..], &[ACCESS]] {
        let google = Google::start(&secret(1));
        google.permit(permissions);
        let mut source = Source::new(&google, google.ambient());
        source.assert_loads(1);
        google.state().versions.clear();
        google.state().created = 2;
        google.add(&secret(2));
        source.changed().unwrap();
        source.assert_loads(2);
    }
}

#[test]
fn a_version_given_by_number_is_pinned() {
    let google = Google::start(&secret(1));
    google.add(&secret(2));
    let mut source = Source::with(&google, google.ambient(), |_, gcp| gcp.version = "1".to_owned());
    source.assert_loads(1);
    assert_eq!((google.calls("/versions/1"), google.calls("/versions/1:access")), (1, 1));
}

#[test]
fn no_key_or_token_is_logged_at_trace() {
    let (upstream, google, dir) = (upstream(), Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let file = dir.path().join("key.json");
    fs::write(&file, key_file().to_string()).unwrap();
    let file = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())];
    let mut signed = start(&upstream, &google, &file);
    google.add(&secret(2));
    signed.process.wait_for_log(IN_USE);
    signed.process.signal(Signal::TERM);
    signed.process.wait();
    let output = signed.process.output();
    assert!(output.contains(r#""level":"TRACE""#) && output.contains("hyper_util"), "all crates log at TRACE");
    assert!(!output.contains("eyJ"), "the log contains a JSON Web Token");
    let key = private_key();
    for part in key.as_bytes().chunks(24).filter_map(|part| std::str::from_utf8(part).ok()) {
        assert!(!output.contains(part), "the log contains a part of the key");
    }
    assert!(google.state().issued.is_empty());

    // Issued tokens are canaries. The output of a process is scanned for them when it is dropped.
    let impersonation = google.federation(&json!({"file": google.subject_file(dir.path())}), true);
    let path = dir.path().join("federation.json");
    fs::write(&path, impersonation.to_string()).unwrap();
    let federated = start(&upstream, &google, &[("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())]);
    google.add(&secret(3));
    federated.process.wait_for_log(IN_USE);
    assert_eq!((google.issued("sts"), google.issued("iam")), (1, 1));
    for form in encodings(&format!("{TOKEN_PREFIX}.iam.1..")) {
        assert!(!federated.process.output().contains(&form), "the log contains {form}");
    }
}

#[test]
fn check_contacts_no_server() {
    let run = |secret: &str| {
        let mut command = program();
        command
            .arg("check")
            .env("FINICITY__UPSTREAM__URL", "https://localhost:1")
            .env("FINICITY__CREDENTIALS__SOURCE", "gcp")
            .env("FINICITY__CREDENTIALS__GCP__SECRET", secret)
            .env("FINICITY__CREDENTIALS__GCP__ENDPOINT", "https://localhost:1")
            .env("GCE_METADATA_HOST", "127.0.0.1:1");
        let mut check = Process::start(command);
        (check.wait().code(), check.output())
    };
    let (code, output) = run(SECRET);
    assert!(code == Some(0) && output.contains(&format!("secret {SECRET} in Google Secret Manager")), "{output}");
    for (name, expected) in
        [("", "must be set when credentials.source is \"gcp\""), ("finicity", "the resource name of a secret")]
    {
        let (code, output) = run(name);
        assert!(code == Some(78) && output.contains("credentials.gcp.secret") && output.contains(expected), "{output}");
    }
}
