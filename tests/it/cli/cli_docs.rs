//! `completions` and `man` cover all commands.

use std::{
    fs,
    process::{Command, Output},
};

use crate::support::process::program;

/// Runs the program, which must succeed, and returns its output.
fn output(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = program().args(arguments).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The commands listed in the help.
fn commands() -> Vec<String> {
    let help = output(&["--help"]);
    let listed = help.split_once("Commands:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
    // Continuation lines are indented further.
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn completions_of_each_shell_include_every_command() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = output(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell} lacks {command}");
        }
        assert!(script.contains("changed") && script.contains("explain"), "{shell}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let ask = |words: &str, word: &str, before: &str| {
        format!(
            "COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); $complete finicity-proxy {word} {before}; echo \"${{COMPREPLY[*]}}\"\n"
        )
    };
    let commands = commands();
    let mut script = output(&["completions", "bash"]);
    script += "\ncomplete=$(complete -p finicity-proxy | grep -o -- '-F [^ ]*' | cut -c4-)\n";
    script += &ask("finicity-proxy con", "con", "finicity-proxy");
    script += &ask("finicity-proxy config --ch", "--ch", "config");
    for command in &commands {
        script += &ask(&format!("finicity-proxy {command} --hel"), "--hel", command);
    }
    let Output { status, stdout, stderr } = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let expected = format!("config\n--changed\n{}", "--help\n".repeat(commands.len()));
    assert_eq!(String::from_utf8(stdout).unwrap(), expected);
}

#[test]
fn man_pages_cover_every_command() {
    let page = output(&["man"]);
    assert!(
        page.contains(concat!("\"finicity-proxy ", env!("CARGO_PKG_VERSION"), "\"")) && page.contains("Exit codes"),
        "{page}"
    );
    let dir = tempfile::tempdir().unwrap();
    output(&["man", dir.path().to_str().unwrap()]);
    for command in commands() {
        // Dashes are escaped in roff.
        assert!(page.contains(&command.replace('-', "\\-")), "{command} is not in the page");
        let file = dir.path().join(format!("finicity-proxy-{command}.1"));
        let own = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(own.contains(".TH") && own.contains("SYNOPSIS"), "{own}");
    }
    assert!(dir.path().join("finicity-proxy-config-explain.1").is_file());
}
