//! Conditions on this machine that prevent `serve` from starting. `check` reports them with the same message and exit code, and changes
//! nothing.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::Path,
};

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program},
    upstream::{Reply, Upstream},
};

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];

/// Free ports unless a test sets others, because other tests can use the default ones.
const PORTS: [(&str, &str); 3] = [
    ("FINICITY__LISTEN__PROXY", "127.0.0.1:0"),
    ("FINICITY__LISTEN__OPS", "127.0.0.1:0"),
    ("FINICITY__LISTEN__ADMIN", "127.0.0.1:0"),
];

/// Runs `command` in the directory `dir` with `variables`. Returns its exit code and its output.
fn run(command: &str, dir: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut program = program();
    program.arg(command).current_dir(dir).envs(SECRETS).envs(PORTS).envs(variables.iter().copied());
    let mut process = Process::start(program);
    (process.wait().code(), process.output())
}

/// Every path below `dir` with its inode and modification time.
fn contents(dir: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        found.insert(path.display().to_string(), (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        if metadata.is_dir() {
            found.extend(contents(&path));
        }
    }
    found
}

/// Checks that both commands reject `variables` with one line that contains `parts`, exit with 78, and change nothing.
#[track_caller]
fn assert_rejected(dir: &Path, variables: &[(&str, &str)], parts: &[&str]) {
    let before = contents(dir);
    let outputs = ["check", "serve"].map(|command| {
        let (code, output) = run(command, dir, variables);
        assert_eq!(code, Some(78), "{command} {variables:?}: {output}");
        assert!(output.starts_with("finicity-proxy: ") && output.lines().count() == 1, "{command}: {output}");
        for part in parts {
            assert!(output.contains(part), "{part:?} is not in {output}");
        }
        assert_eq!(contents(dir), before, "{command} changed something");
        output
    });
    assert_eq!(outputs[0], outputs[1]);
}

/// Checks that `check` accepts `variables`, prints `parts`, and changes nothing.
#[track_caller]
fn assert_accepted(dir: &Path, variables: &[(&str, &str)], parts: &[&str]) {
    let before = contents(dir);
    let (code, output) = run("check", dir, variables);
    assert_eq!(code, Some(0), "{variables:?}: {output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in {output}");
    }
    assert_eq!(contents(dir), before, "check changed something");
}

#[test]
fn check_and_serve_reject_an_unusable_state_dir() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
    for name in ["damaged", "newer", "attempts", "large", "locked", "temporary"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("damaged/lockout.json"), "{ damaged").unwrap();
    fs::write(root.join("newer/lockout.json"), r#"{"version": 2}"#).unwrap();
    fs::write(root.join("large/lockout.json"), " ".repeat(300 * 1024)).unwrap();
    fs::create_dir(root.join("locked/lockout.lock")).unwrap();
    fs::create_dir(root.join("temporary/lockout.json.tmp")).unwrap();
    let key = "0".repeat(64);
    let state = format!(r#"{{"version": 1, "key": "{key}", "ids": []}}"#);
    fs::write(root.join("attempts/lockout.json"), state).unwrap();
    fs::write(root.join("attempts/attempts.json"), "{ damaged").unwrap();
    for (name, parts) in [
        ("file", &["file", "set auth.state_dir"][..]),
        ("file/state", &["set auth.state_dir"]),
        ("link", &["link", "set auth.state_dir"]),
        ("damaged", &["damaged/lockout.json", "damaged at line 1"]),
        ("newer", &["newer/lockout.json", "version 2"]),
        ("large", &["large/lockout.json", "larger than"]),
        ("locked", &["locked/lockout.json", "lock file"]),
        ("attempts", &["attempts/attempts.json", "damaged at line 1"]),
    ] {
        let path = root.join(name).display().to_string();
        for state_dir in [path.as_str(), name] {
            assert_rejected(
                root,
                &[("FINICITY__AUTH__STATE_DIR", state_dir)],
                &[&["auth.state_dir: "], parts].concat(),
            );
        }
    }
    let path = root.join("temporary").display().to_string();
    assert_rejected(
        root,
        &[("FINICITY__AUTH__STATE_DIR", &path)],
        &["temporary/lockout.json", "make its directory writable"],
    );
}

#[test]
fn check_reports_but_does_not_create_the_state_dir() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let state = root.join("state").display().to_string();
    for state_dir in ["state", &state] {
        let note = format!("auth.state_dir: {state} has no lock-out state yet; startup creates it");
        assert_accepted(
            &root,
            &[("FINICITY__AUTH__STATE_DIR", state_dir)],
            &[&format!("state      in {state}"), &note],
        );
    }
    assert_accepted(&root, &[], &["state      in memory only"]);
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    drop(Proxy::start_with(&upstream, &[("FINICITY__AUTH__STATE_DIR", &state)]));
    let (code, output) = run("check", &root, &[("FINICITY__AUTH__STATE_DIR", &state)]);
    assert!(code == Some(0) && !output.contains("auth.state_dir"), "{output}");
}

#[test]
fn check_and_serve_reject_duplicate_listen_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("p.sock").display().to_string();
    let unix = format!("unix:{socket}");
    for (variables, key, parts) in [
        (
            &[("FINICITY__LISTEN__PROXY", "127.0.0.1:34643"), ("FINICITY__LISTEN__OPS", "127.0.0.1:34643")][..],
            "listen.ops",
            &["127.0.0.1:34643", "listen.proxy"][..],
        ),
        (
            &[("FINICITY__LISTEN__OPS", "[::]:34643"), ("FINICITY__LISTEN__ADMIN", "127.0.0.1:34643")],
            "listen.admin",
            &["[::]:34643", "listen.ops"],
        ),
        (&[("FINICITY__LISTEN__PROXY", "[::1]:34643,[::1]:34643")], "listen.proxy", &["[::1]:34643"]),
        (
            &[("FINICITY__LISTEN__PROXY", &unix), ("FINICITY__ADMIN__SOCKET", &socket)],
            "admin.socket",
            &["listen.proxy"],
        ),
        (
            &[("FINICITY__LISTEN__PROXY", &unix), ("FINICITY__ADMIN__SOCKET", "p.sock")],
            "admin.socket",
            &["listen.proxy"],
        ),
    ] {
        let origin = format!("finicity-proxy: {key} (set by FINICITY__");
        assert_rejected(dir.path(), variables, &[&[origin.as_str(), "is already used by"], parts].concat());
    }
}

#[test]
fn check_and_serve_reject_an_unusable_listen_address() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("file"), "x").unwrap();
    let long = root.join("x".repeat(120)).display().to_string();
    let [missing, file, inside] =
        ["missing/p.sock", "file", "file/p.sock"].map(|name| root.join(name).display().to_string());
    for (path, part) in [
        (&missing, "the directory does not exist"),
        (&file, "the file there is not a socket"),
        (&inside, "not a directory"),
        (&long, "choose a shorter one"),
    ] {
        assert_rejected(root, &[("FINICITY__ADMIN__SOCKET", path)], &["admin.socket: cannot listen on", path, part]);
        let unix = format!("unix:{path}");
        assert_rejected(root, &[("FINICITY__LISTEN__PROXY", &unix)], &["listen.proxy: cannot listen on", &unix, part]);
    }
    // Shown as an absolute path.
    let shown = fs::canonicalize(root).unwrap().join("missing/p.sock").display().to_string();
    assert_rejected(root, &[("FINICITY__ADMIN__SOCKET", "missing/p.sock")], &[&shown]);
    // An address of TEST-NET-1 (RFC 5737), which no machine has.
    let remote = [("FINICITY__LISTEN__OPS", "192.0.2.1:3465")];
    assert_rejected(root, &remote, &["listen.ops: cannot listen on 192.0.2.1:3465", "does not have that address"]);
}

#[test]
fn all_preflight_problems_are_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let variables = [
        ("FINICITY__AUTH__STATE_DIR", "file"),
        ("FINICITY__ADMIN__SOCKET", "missing/p.sock"),
        ("FINICITY_APP_KEY", "changeme"),
    ];
    for command in ["check", "serve"] {
        let (code, output) = run(command, dir.path(), &variables);
        assert_eq!((code, output.lines().count()), (Some(78), 3), "{output}");
    }
}

#[test]
fn check_notes_problems_that_may_be_temporary() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let socket = root.join("live.sock");
    let _live = UnixListener::bind(&socket).unwrap();
    let stale = root.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let unix = format!("unix:{}", socket.display());
    assert_accepted(
        root,
        &[("FINICITY__LISTEN__OPS", &address)],
        &["note       listen.ops: cannot listen on", "another process"],
    );
    assert_accepted(root, &[("FINICITY__LISTEN__PROXY", &unix)], &["note       listen.proxy: cannot listen on", &unix]);
    assert_accepted(root, &[("FINICITY__ADMIN__SOCKET", &stale.display().to_string())], &["stale.sock"]);
    assert_accepted(root, &[], &["note       listen.proxy: 127.0.0.1:0 has port 0", "note       listen.admin"]);
    // The default socket of the image is skipped if it cannot be created.
    let image = [("FINICITY_IMAGE__ADMIN__SOCKET", "/missing-directory/admin.sock")];
    assert_accepted(root, &image, &["note       admin.socket: cannot listen on", "startup skips this socket"]);
}

#[test]
fn check_shows_where_credentials_were_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir(root.join("secrets")).unwrap();
    for (name, value) in [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("app_key", APP_KEY)] {
        fs::write(root.join("secrets").join(name), value).unwrap();
    }
    let from_file = format!("found      FINICITY_APP_KEY: [redacted], from {}/secrets/app_key", root.display());
    let variables = [("FINICITY_APP_KEY", ""), ("FINICITY_APP_KEY_FILE", "secrets/app_key")];
    assert_accepted(&root, &variables, &["found      FINICITY_CLIENT_ID: [redacted]", &from_file]);
    assert_accepted(
        &root,
        &[("FINICITY_ADMIN_TOKEN", "canaryadmintoken")],
        &["found      FINICITY_ADMIN_TOKEN: [redacted]"],
    );

    let source = format!("from the directory {}/secrets", root.display());
    let variables = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", "secrets")];
    assert_accepted(
        &root,
        &variables,
        &[&source, "found      client_id: [redacted]", "found      app_key: [redacted]"],
    );
    fs::remove_file(root.join("secrets/app_key")).unwrap();
    let missing = format!("{}/secrets/app_key is not set", root.display());
    assert_rejected(&root, &variables, &[&missing]);
}
