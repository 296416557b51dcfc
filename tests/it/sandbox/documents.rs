//! The examples in `docs/sandbox.md` and `docs/clients.md`, run against the proxy in front of the sandbox.
//!
//! Runs each block that begins with three backticks, a language and `test=RUNNER`. If the runner or a library is not installed, the block
//! is skipped with a notice. `.ci/full` installs all of them and sets `EXAMPLES=all`, with which a skipped block is a failure.

use std::{
    env, fs, io,
    path::Path,
    process::{Command, Output},
};

use crate::support::sandbox::{SANDBOX_ID, Sandbox, notice};

struct Example<'a> {
    runner: &'a str,
    code: String,
}

fn examples(document: &str) -> Vec<Example<'_>> {
    let mut examples = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(runner) = line.strip_prefix("```").and_then(|line| line.split_once("test=")).map(|(_, runner)| runner)
        else {
            continue;
        };
        let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        examples.push(Example { runner, code: code.join("\n") + "\n" });
    }
    examples
}

/// The command of a runner, the name of the file that it runs, and the text that it prints if a library is missing.
fn runner(name: &str) -> (&'static [&'static str], &'static str, &'static str) {
    match name {
        "sh" => (&["sh", "-eu"], "recipe.sh", "not found"),
        "python" => (&["python3"], "recipe.py", "ModuleNotFoundError"),
        "node" => (&["node"], "recipe.mjs", "ERR_MODULE_NOT_FOUND"),
        "java" => (&["java"], "Recipe.java", "\0"),
        "go" => (&["go", "run"], "recipe.go", "\0"),
        other => panic!("no runner {other}"),
    }
}

fn run(example: &Example, proxy: &str, folder: &Path) -> Option<Output> {
    let (command, file, missing) = runner(example.runner);
    let file = folder.join(file);
    fs::write(&file, &example.code).unwrap();
    let mut process = Command::new(command[0]);
    process.args(&command[1..]).arg(&file).env("PROXY", proxy).current_dir(folder);
    if let Some(modules) = env::var_os("EXAMPLES_NODE_MODULES") {
        let link = folder.join("node_modules");
        let _ = std::os::unix::fs::symlink(modules, link);
    }
    match process.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", command[0]),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains(missing) => None,
        Ok(output) => Some(output),
    }
}

#[track_caller]
fn check(name: &str, document: &str) {
    let sandbox = Sandbox::start(&[]);
    let proxy = sandbox.proxy(SANDBOX_ID, &[]);
    let url = format!("http://{}", proxy.proxy[0]);
    let examples = examples(document);
    assert!(examples.len() >= 4, "{name}");
    for example in &examples {
        let folder = tempfile::tempdir().unwrap();
        match run(example, &url, folder.path()) {
            Some(output) => assert!(output.status.success(), "{name}: {}\n{output:?}", example.code),
            None => {
                let first = example.code.lines().find(|line| line.contains("import ")).unwrap_or(example.runner);
                notice(&format!(
                    "{name}: an example of {} was not run: it or a library is missing ({first})",
                    example.runner
                ));
                assert_ne!(env::var_os("EXAMPLES").as_deref(), Some("all".as_ref()), "{}", example.code);
            }
        }
    }
}

#[test]
fn the_recipes_in_sandbox_md_work() {
    check("docs/sandbox.md", include_str!("../../../docs/sandbox.md"));
}

#[test]
fn the_examples_in_clients_md_work() {
    check("docs/clients.md", include_str!("../../../docs/clients.md"));
}
