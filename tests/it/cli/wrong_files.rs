//! Mixed up files and paths: a private key, a credential or a state file in place of another file. Errors show the name, the kind and
//! the line, but no content of the file in any encoding.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::KeyPair;
use rustix::process::Signal;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream},
};

/// The minimum number of consecutive bytes of a file that cannot occur by chance.
const PART: usize = 12;

/// Panics if `output` contains a part of `content`: as text, as hexadecimal or decimal bytes, or in base64.
#[track_caller]
fn scan(output: &str, content: &[u8]) {
    // Words of the error message itself.
    let output = output.replace("BEGIN CERTIFICATE", "");
    let listed = |part: &[u8], between: &str| part.iter().map(u8::to_string).collect::<Vec<_>>().join(between);
    let hex = |part: &[u8]| format!("{:x}", base16ct::HexDisplay(part));
    let lower = output.to_lowercase();
    for part in content.windows(PART).filter(|part| !part.iter().all(|byte| *byte == b'-' || *byte == b' ')) {
        let text = String::from_utf8_lossy(part);
        assert!(!output.contains(&*text), "{text:?} is in {output}");
        for form in [hex(part), listed(part, ", "), listed(part, ","), listed(part, " ")] {
            assert!(!lower.contains(&form), "{text:?} is as {form:?} in {output}");
        }
    }
    // Without the last group, which depends on the following bytes.
    let encoded = BASE64_STANDARD.encode(&content[..content.len() / 3 * 3]);
    for part in encoded.as_bytes().windows(2 * PART) {
        let part = std::str::from_utf8(part).unwrap();
        assert!(!output.contains(part), "{part:?} is in {output}");
    }
}

/// A private key in every form that editors, templates and copying produce.
fn keys() -> Vec<Vec<u8>> {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let (head, rest) = pem.split_once('\n').unwrap();
    let der = key.serialize_der();
    let body: String = rest.lines().take_while(|line| !line.starts_with('-')).collect();
    let texts = [
        pem.clone(),
        pem.replace('\n', " "),
        pem.replace('\n', "\\n"),
        pem.replace('\n', "\r"),
        format!("{head} {rest}"),
        format!("{head}{rest}"),
        format!("\"{pem}\""),
        format!("\u{feff}{pem}"),
        pem.replace("-----END", "----END"),
        pem.replace("PRIVATE KEY", "CERTIFICATE"),
        pem.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        pem.replacen("M", "!", 1),
        format!("-----BEGIN {body}"),
        format!("-----BEGIN CERTIFICATE-----\n{body}"),
        format!("-----BEGIN {body}-----\n{body}\n-----END {body}-----\n"),
        body.clone(),
        body.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    texts.into_iter().map(String::into_bytes).chain([der]).collect()
}

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];

/// Runs `command` with `variables`, which override the credentials. Checks that it fails with an error that contains `name`, and returns
/// the output.
#[track_caller]
fn assert_rejected(command: &str, variables: &[(&str, &str)], name: &str) -> String {
    let mut program = program();
    program.arg(command).envs(SECRETS).envs(variables.iter().copied());
    for (variable, _) in variables {
        program.env_remove(variable.strip_suffix("_FILE").unwrap_or(""));
    }
    let mut process = Process::start(program);
    let (code, output) = (process.wait().code(), process.output());
    assert!(matches!(code, Some(1 | 78)) && output.contains(name), "{code:?} {output}");
    output
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_private_key_used_as_the_ca_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    for content in keys() {
        fs::write(&path, &content).unwrap();
        for command in ["serve", "check"] {
            let output =
                assert_rejected(command, &[("FINICITY__UPSTREAM__CA_FILE", &path_of(&path))], "upstream.ca_file");
            assert!(output.lines().count() == 1 && output.contains(&path_of(&path)), "{output}");
            scan(&output, &content);
        }
    }
}

#[test]
fn a_private_key_that_replaces_the_ca_file_is_not_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    fs::copy(upstream.ca_file(), &path).unwrap();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__CA_FILE", &path_of(&path))]);
    let keys = keys();
    for (count, content) in (1..).zip(&keys) {
        fs::write(&path, content).unwrap();
        proxy.process.signal(Signal::HUP);
        proxy.process.wait_for_lines(count, |line| {
            line.contains("cannot load upstream.ca_file; keeping the previous trust store") && line.contains("ca.pem")
        });
    }
    fs::copy(upstream.ca_file(), &path).unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_line(|line| line.contains("upstream.ca_file reloaded"));
    let output = proxy.process.output();
    let lines = output.lines().filter(|line| line.contains("ca_file")).collect::<String>();
    for content in &keys {
        scan(&lines, content);
    }
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn a_private_key_used_as_any_other_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (path, state) = (dir.path().join("key.pem"), dir.path().join("state"));
    fs::create_dir(&state).unwrap();
    for content in keys() {
        fs::write(&path, &content).unwrap();
        let file = path_of(&path);
        let output = assert_rejected("check", &[("FINICITY_CONFIG", &file)], &file);
        scan(&output, &content);
        for name in ["FINICITY_CLIENT_ID_FILE", "FINICITY_APP_KEY_FILE", "FINICITY_ADMIN_TOKEN_FILE"] {
            let mut program = program();
            program.arg("check").envs(SECRETS).env(name, &file).env_remove(name.strip_suffix("_FILE").unwrap());
            let mut process = Process::start(program);
            process.wait();
            scan(&process.output(), &content);
        }
        fs::write(state.join("lockout.json"), &content).unwrap();
        let upstream = Upstream::start(3600, |_| Reply::json("{}"));
        let mut process = Process::start(serve_command(&upstream, &[("FINICITY__AUTH__STATE_DIR", &path_of(&state))]));
        assert_eq!(process.wait().code(), Some(78));
        assert!(process.output().contains("lockout.json cannot be used"), "{}", process.output());
        scan(&process.output(), &content);
    }
}

#[test]
fn a_credential_in_a_damaged_state_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "a-private-value-of-the-state-file";
    for content in [
        format!(r#""{secret}""#),
        format!(r#"{{"version": "{secret}"}}"#),
        format!(r#"{{"version": 1, "{secret}": 1}}"#),
        format!(r#"{{"version": 1, "key": "{secret}", "ids": []}}"#),
        format!(r#"{{"version": 1, "key": "00", "ids": "{secret}"}}"#),
        secret.to_owned(),
    ] {
        fs::write(dir.path().join("lockout.json"), &content).unwrap();
        let upstream = Upstream::start(3600, |_| Reply::json("{}"));
        let mut process =
            Process::start(serve_command(&upstream, &[("FINICITY__AUTH__STATE_DIR", &path_of(dir.path()))]));
        assert_eq!(process.wait().code(), Some(78));
        assert!(process.output().contains("lockout.json cannot be used"), "{}", process.output());
        scan(&process.output(), secret.as_bytes());
    }
}

#[test]
fn a_secret_used_as_a_path_is_not_shown() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    for secret in [key.as_str(), &key.replace('\n', ""), "private+value/of-this/key+9b=", "/private+value-of-this-key="]
    {
        for name in
            ["FINICITY__UPSTREAM__CA_FILE", "FINICITY_CONFIG", "FINICITY_CLIENT_SECRET_FILE", "FINICITY_APP_KEY_FILE"]
        {
            let shown = if name.ends_with("CA_FILE") { "upstream.ca_file" } else { name };
            for command in ["serve", "check"] {
                scan(&assert_rejected(command, &[(name, secret)], shown), secret.as_bytes());
            }
        }
        let variables = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", secret)];
        scan(&assert_rejected("check", &variables, "credentials.dir"), secret.as_bytes());
    }
}

#[test]
fn a_secret_used_as_a_key_or_value_is_not_shown() {
    let secret = "private+value/of-this/key+9b=e!";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    let files = [
        format!("[upstream]\nurl = {secret}\n"),
        format!("[upstream]\nurl = \"{secret}\"\n"),
        format!("[policy]\nallow = [\"{secret}\"]\nmode = \"{secret}\"\n"),
        format!("[log]\nlevel = \"{secret}\"\nformat = \"{secret}\"\n"),
        format!("[listen]\nproxy = \"{secret}\"\nsocket_mode = \"{secret}\"\n"),
        format!("[headers]\nforward = [\"{secret}\"]\n"),
        format!("[upstream]\npinned_keys = [\"{secret}\"]\nidle_timeout = \"{secret}\"\n"),
        format!("[credentials]\nclient_secret = \"{secret}\"\n"),
        format!("FINICITY_CLIENT_SECRET={secret}\n"),
        format!("{secret}\n"),
    ];
    for file in files {
        fs::write(&path, &file).unwrap();
        scan(&assert_rejected("check", &[("FINICITY_CONFIG", &path_of(&path))], &path_of(&path)), secret.as_bytes());
    }
    let arguments: [&[&str]; 6] = [
        &["check", "--set", secret],
        &["check", "--set", "private+value of this key"],
        &["check", "--set", "upstream.url=private+value/of-this/key+9b=e!"],
        &["health", secret],
        &["health", "--url", "http://private+value/of-this/key+9b=e!"],
        &["wait", "--timeout", secret],
    ];
    for arguments in arguments {
        let mut command = program();
        command.args(arguments).envs(SECRETS);
        let mut process = Process::start(command);
        assert!(matches!(process.wait().code(), Some(2 | 78)), "{arguments:?} {}", process.output());
        scan(&process.output(), secret.as_bytes());
        scan(&process.output(), b"private+value of this key");
    }
}
