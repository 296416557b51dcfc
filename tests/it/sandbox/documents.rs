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

/// The fenced code blocks of `document`: the text after the opening backticks, and the code.
pub(super) fn fenced_blocks(document: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let code: Vec<&str> = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
        blocks.push((info, code.join("\n")));
    }
    blocks
}

/// Reports that a part of a document was not run. With `EXAMPLES=all`, that fails the test.
#[track_caller]
pub(super) fn report_not_run(text: &str) {
    notice(text);
    assert_ne!(env::var_os("EXAMPLES").as_deref(), Some("all".as_ref()), "{text}");
}

fn examples(document: &str) -> Vec<Example<'_>> {
    let blocks = fenced_blocks(document).into_iter();
    blocks.filter_map(|(info, code)| Some(Example { runner: info.split_once("test=")?.1, code: code + "\n" })).collect()
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
                report_not_run(&format!(
                    "{name}: an example of {} was not run: it or a library is missing ({first})",
                    example.runner
                ));
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
