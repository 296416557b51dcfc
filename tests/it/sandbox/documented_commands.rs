//! Every command in a `console` block of `README.md`, `CONTRIBUTING.md` and `docs/` is run by these tests or by a script in `.ci`, unless it
//! needs an account or a cluster. `ELSEWHERE` lists the commands that these tests do not run. TOML blocks are loaded as configuration files.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
};

use super::documents::{fenced_blocks, report_not_run};
use crate::support::{
    ADMIN_TOKEN,
    process::{Process, Proxy, program},
    sandbox::{SANDBOX_APP_KEY, SANDBOX_ID, SANDBOX_SECRET, Sandbox},
    service::sign,
};

/// The coverage of a command that these tests do not run.
enum Coverage {
    /// This script runs it, and contains this text.
    Script(&'static str, &'static str),
    /// It needs this, which is not available on a test machine.
    Needs(&'static str),
}
use Coverage::{Needs, Script};

/// The coverage of commands by the text that they begin with.
const ELSEWHERE: &[(&str, Coverage)] = &[
    ("cargo run -- demo", Script(".ci/run", "cargo run -- demo --once")),
    ("cargo test --release --test it ", Script(".ci/full", "cargo test --locked --all-features --test it")),
    ("cargo test", Script(".ci/run", "step cargo test\n")),
    ("CROWD=10000 cargo test --release --test it crowd", Script(".ci/full", "CROWD=10000 cargo test")),
    ("cargo build --release", Script(".ci/full", "cargo build --locked --release")),
    ("cargo build --locked --release", Script(".ci/full", "cargo build --locked --release")),
    ("cargo bench --bench load", Script(".ci/full", "--bench load")),
    ("cargo bench --bench observe", Script(".ci/full", "--bench observe")),
    ("cargo bench --bench layers", Script(".ci/full", "--bench layers")),
    (".ci/run", Script(".ci/full", ".ci/run")),
    (".ci/full", Needs("hours: it is the long run")),
    (".ci/tidy", Script(".ci/run", ".ci/tidy")),
    (".ci/alerts", Script(".ci/run", ".ci/alerts")),
    (".ci/budget", Script(".ci/run", ".ci/budget")),
    (".ci/fuzz", Script(".ci/run", ".ci/fuzz")),
    (".ci/manifests", Script(".ci/run", ".ci/manifests")),
    (".ci/stores", Script(".ci/run", ".ci/stores")),
    (".ci/sandbox", Script(".ci/full", ".ci/sandbox")),
    (".ci/pid1", Script(".ci/full", ".ci/pid1")),
    (".ci/systemd", Script(".ci/full", ".ci/systemd")),
    (".ci/supply", Script(".ci/full", ".ci/supply")),
    (".ci/image", Script(".ci/full", ".ci/image")),
    ("tools/peers/compare", Script(".ci/full", "tools/peers/compare")),
    ("tools/peers/scale", Script(".ci/full", "tools/peers/scale")),
    ("tools/peers/start", Script(".ci/full", "tools/peers/start")),
    ("tools/peers/plot", Script(".ci/tidy", "tools/peers/plot")),
    ("docker buildx build", Needs("a registry")),
    ("docker build", Script(".ci/image", "docker build")),
    ("docker compose", Script(".ci/image", "deploy/compose.yaml")),
    (
        "docker create --name sbom",
        Script(".ci/image", "docker cp \"$pod-copy:/usr/share/sbom/finicity-proxy.cdx.json\""),
    ),
    ("cat >kustomization.yaml", Script(".ci/manifests", "README.md")),
    ("kubectl apply -k deploy/kubernetes/gateway", Script(".ci/manifests", "deploy/kubernetes")),
    ("kubectl create secret", Needs("a cluster")),
    ("kubectl -n finicity create secret", Needs("a cluster")),
    ("kubectl apply -k .", Needs("a cluster")),
    ("kubectl logs", Needs("a cluster")),
    ("kubectl scale", Needs("a cluster")),
    ("kubectl exec deployment/bank-report -c app -- wget", Needs("a cluster")),
    ("aws ", Needs("an AWS account")),
    ("az ", Needs("an Azure subscription")),
    ("gcloud ", Needs("a Google Cloud project")),
    ("vault ", Needs("a Vault server, whose API tests/it/stores/vault uses in the same way")),
    ("export GOOGLE_APPLICATION_CREDENTIALS", Needs("a Google Cloud project")),
    ("openssl s_client", Needs("a server on the network")),
    ("install ", Script(".ci/systemd", "finicity-proxy.service")),
    ("systemctl ", Needs("systemd as process 1")),
];

/// The documents, by their paths from the root.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read_to_string(root.join(&name)).unwrap())).collect()
}

/// The blocks of `text` in `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    fenced_blocks(text).into_iter().filter(|(info, _)| *info == language).map(|(_, code)| code).collect()
}

/// The commands of a `console` block, with continuation lines and without prompts and comments.
fn commands(block: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = block.lines();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) else { continue };
        let mut command = command.split(" # ").next().unwrap().trim_end().to_owned();
        while command.ends_with('\\') {
            command = format!("{}{}", command.trim_end_matches('\\'), lines.next().unwrap().trim_start());
        }
        if let Some(word) = command.split("<<").nth(1) {
            let word = word.trim().to_owned();
            for line in lines.by_ref().take_while(|line| *line != word) {
                command.push('\n');
                command.push_str(line);
            }
        }
        commands.push(command);
    }
    commands
}

/// The arguments, if `command` runs the program against a running proxy.
fn arguments(command: &str) -> Option<Vec<&str>> {
    let command = command.strip_prefix("kubectl exec POD -c finicity-proxy -- ").unwrap_or(command);
    let arguments = command.strip_prefix("finicity-proxy ")?;
    Some(arguments.split_whitespace().collect())
}

/// A proxy in front of the sandbox, with everything that the documented commands refer to.
struct Setting {
    sandbox: Sandbox,
    proxy: Proxy,
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Setting {
    fn start() -> Self {
        let sandbox = Sandbox::start(&[]);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock").display().to_string();
        let proxy = sandbox
            .proxy(SANDBOX_ID, &[("FINICITY__ADMIN__SOCKET", socket.as_str()), ("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)]);
        let body = r#"{"eventType":"ping"}"#;
        fs::write(folder.path().join("webhook.json"), body).unwrap();
        fs::create_dir(folder.path().join("new")).unwrap();
        for (name, value) in
            [("partner_id", SANDBOX_ID), ("partner_secret", SANDBOX_SECRET), ("app_key", SANDBOX_APP_KEY)]
        {
            fs::write(folder.path().join("new").join(name), value).unwrap();
        }
        let policy = &blocks(include_str!("../../../docs/policy.md"), "toml")[0];
        fs::write(folder.path().join("finicity-proxy.toml"), policy).unwrap();
        let variables = vec![
            ("FINICITY__ADMIN__SOCKET", socket),
            ("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
            ("FINICITY__LISTEN__OPS", proxy.ops.to_string()),
            ("signature", sign(SANDBOX_SECRET, body.as_bytes())),
        ];
        Self { sandbox, proxy, folder, variables }
    }

    /// Runs the program with the configuration of the proxy. Returns its exit code and its output.
    fn run_program(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.sandbox.command(arguments, SANDBOX_ID, &[]);
        command.current_dir(self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        let mut process = Process::start(command);
        (process.wait().code(), process.output())
    }

    /// Runs `command` in a shell, with the documented addresses replaced by those of this proxy. `None` if a program is missing.
    fn run_shell(&self, command: &str) -> Option<Output> {
        let socket = self.folder.path().join("admin.sock");
        let command = command
            .replace("curl ", "curl --silent --show-error --fail-with-body ")
            .replace("/run/finicity-proxy/admin.sock", &socket.display().to_string())
            .replace("localhost:3466", &self.proxy.admin.to_string())
            .replace("localhost:3464", &self.proxy.proxy[0].to_string())
            .replace("127.0.0.1:3464", &self.proxy.proxy[0].to_string());
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", &command]).current_dir(self.folder.path());
        shell.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        match shell.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("sh: {error}"),
            Ok(output) if output.status.code() == Some(127) => None,
            Ok(output) => Some(output),
        }
    }

    /// Runs `command`, which must succeed.
    fn check(&self, name: &str, command: &str) {
        if let Some(arguments) = arguments(command) {
            let (code, output) = self.run_program(&arguments);
            assert_eq!(code, Some(0), "{name}: {command}\n{output}");
        } else if let Some(output) = self.run_shell(command) {
            assert!(output.status.success(), "{name}: {command}\n{output:?}");
        } else {
            report_not_run(&format!("{name}: `{command}` was not run: a program is missing"));
        }
    }
}

/// Whether `command` is run by [`every_command_that_needs_a_running_proxy_works`].
fn is_run_here(command: &str) -> bool {
    let is_server = |arguments: Vec<&str>| matches!(arguments[0], "sandbox" | "serve");
    arguments(command).is_some_and(|arguments| !is_server(arguments)) || command.starts_with("curl ")
}

/// Whether `command` is run by [`the_readme_starts_sandbox_and_proxy`].
fn is_of_the_readme(name: &str, command: &str) -> bool {
    let starts = ["export FINICITY", "target/release/finicity-proxy "].iter().any(|start| command.starts_with(start));
    name == "README.md" && starts || command == "finicity-proxy sandbox"
}

#[test]
fn every_documented_command_is_run_or_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for (name, text) in documents() {
        for command in blocks(&text, "console").iter().flat_map(|block| commands(block)) {
            count += 1;
            if is_run_here(&command) || is_of_the_readme(&name, &command) {
                continue;
            }
            let coverage = ELSEWHERE.iter().find(|(start, _)| command.starts_with(start));
            let (_, coverage) = coverage.unwrap_or_else(|| panic!("{name}: nothing runs `{command}`"));
            match coverage {
                Script(script, part) => {
                    let text = fs::read_to_string(root.join(script)).unwrap();
                    assert!(text.contains(part), "{name}: {script} does not run `{command}`: it lacks {part:?}");
                }
                Needs(reason) => assert!(!reason.is_empty()),
            }
        }
    }
    assert!(count > 90, "{count}");
}

#[test]
fn every_command_that_needs_a_running_proxy_works() {
    let mut count = 0;
    for (name, text) in documents() {
        for block in blocks(&text, "console") {
            let commands: Vec<_> = commands(&block).into_iter().filter(|command| is_run_here(command)).collect();
            if commands.is_empty() {
                continue;
            }
            // A new proxy for each block, because the last command can be `shutdown`.
            let setting = Setting::start();
            for command in &commands {
                setting.check(&name, command);
                count += 1;
            }
        }
    }
    assert!(count >= 20, "{count}");
}

#[test]
fn the_readme_starts_sandbox_and_proxy() {
    let sandbox = Sandbox::start(&[]);
    let mut variables = Vec::new();
    for block in blocks(include_str!("../../../README.md"), "console") {
        for command in commands(&block) {
            let Some(assignments) = command.strip_prefix("export ") else { continue };
            // The block for the API has placeholders.
            for (name, value) in assignments.split(' ').filter_map(|part| part.split_once('=')) {
                let value = value.trim_matches(['\'', '"']);
                if value != "..." {
                    let value = value.replace(":3443", &format!(":{}", sandbox.port));
                    let value = value.replace("$PWD/sandbox-ca.pem", &sandbox.ca_file.display().to_string());
                    variables.push((name.to_owned(), value));
                }
            }
        }
    }
    assert_eq!(variables.len(), 5, "{variables:?}");
    let with_variables = |argument: &str| {
        let mut command = program();
        command.arg(argument).envs(variables.iter().map(|(name, value)| (name, value)));
        for listener in ["PROXY", "OPS", "ADMIN"] {
            command.env(format!("FINICITY__LISTEN__{listener}"), "127.0.0.1:0");
        }
        command
    };
    assert_eq!(Process::start(with_variables("check")).wait().code(), Some(0));
    let proxy = Proxy::run(with_variables("serve"));
    proxy.process.wait_for_log("token obtained");
}

#[test]
fn the_readme_quotes_the_demo() {
    let mut command = program();
    command.arg("demo");
    for listener in ["proxy", "ops", "admin"] {
        command.arg(format!("--set=listen.{listener}=127.0.0.1:0"));
    }
    let process = Process::start(command);
    process.wait_for_line(|line| line.contains("Ctrl-C"));
    let output = process.output();
    let port = output.split("curl http://127.0.0.1:").nth(1).unwrap().split('/').next().unwrap();
    let quoted = &blocks(include_str!("../../../README.md"), "text")[0];
    for line in quoted.replace("127.0.0.1:3464", &format!("127.0.0.1:{port}")).lines() {
        assert!(output.contains(line), "the demo does not print {line:?}:\n{output}");
    }
}

#[test]
fn docs_commands_lists_every_command() {
    let page = include_str!("../../../docs/commands.md");
    let mut command = program();
    command.arg("--help");
    let mut process = Process::start(command);
    process.wait();
    let help = process.output();
    let listed = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let names: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.len() > 10 && names.contains(&"serve"), "{help}");
    for name in names.into_iter().filter(|name| !name.is_empty() && *name != "help") {
        assert!(page.contains(&format!("`{name}")), "docs/commands.md lacks {name}");
    }
}

#[test]
fn documented_configuration_files_are_valid() {
    let mut count = 0;
    for (name, text) in documents() {
        for block in blocks(&text, "toml") {
            let stores = ["aws", "azure", "gcp", "vault"];
            let needs_store = stores.iter().any(|store| block.contains(&format!("source = \"{store}\"")));
            if needs_store && !cfg!(feature = "stores") {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("finicity-proxy.toml");
            fs::write(&file, &block).unwrap();
            let mut command = program();
            command.args(["config", "--changed", "--config"]).arg(&file);
            let mut process = Process::start(command);
            assert_eq!(process.wait().code(), Some(0), "{name}:\n{block}\n{}", process.output());
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn commands_are_extracted_from_blocks() {
    let block = "$ one --a    # comment\noutput\n$ two \\\n    three\n$ cat >x <<END\na: b\nEND\n# root";
    assert_eq!(commands(block), ["one --a", "two three", "cat >x <<END\na: b", "root"]);
    assert_eq!(blocks("```console\na\n```\n```toml\nb\n```\n", "toml"), ["b"]);
}
