//! The tools that the program runs under, and their reports.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use super::Result;

/// The system calls that transfer bytes on connections. The log uses none of them.
const TRANSFERS: [&str; 6] = ["readv", "recvfrom", "recvmsg", "sendmsg", "sendto", "writev"];

/// A tool that counts while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// valgrind's callgrind: instructions.
    Callgrind,
    /// valgrind's dhat: allocations and their bytes.
    Dhat,
    /// strace: system calls.
    Strace,
}

/// The count of a complete run of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    /// Instructions, allocations or system calls.
    pub(super) events: f64,
    /// For allocations, their bytes; for system calls, those that transfer bytes on connections; for instructions, 0.
    pub(super) detail: f64,
}

impl Tool {
    /// The command that runs `program` under this tool. The tool writes its report to `report`.
    pub(super) fn command(self, program: &Path, report: &Path) -> Command {
        let (name, fixed): (_, &[&str]) = match self {
            Self::Callgrind => ("valgrind", &["--tool=callgrind", "--callgrind-out-file=/dev/null"]),
            Self::Dhat => ("valgrind", &["--tool=dhat", "--dhat-out-file=/dev/null"]),
            Self::Strace => ("strace", &["-f", "-c", "-o"]),
        };
        let mut command = Command::new(name);
        command.args(fixed);
        match self {
            Self::Strace => command.arg(report),
            Self::Callgrind | Self::Dhat => {
                let mut log = OsStr::new("--log-file=").to_owned();
                log.push(report);
                command.arg(log)
            }
        };
        command.arg(program);
        command
    }

    /// Parses the report of a finished run.
    ///
    /// # Errors
    ///
    /// If the report contains no count.
    pub(super) fn read(self, report: &str) -> Result<Count> {
        let count = match self {
            Self::Callgrind => callgrind(report),
            Self::Dhat => dhat(report),
            Self::Strace => strace(report),
        };
        count.ok_or_else(|| format!("{self:?} reports no count:\n{report}").into())
    }
}

/// Checks that the tools are installed.
///
/// # Errors
///
/// If one is missing.
pub(super) fn check_installed() -> Result<()> {
    for name in ["valgrind", "strace"] {
        let found = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        found.map_err(|error| format!("cannot run {name} ({error}); .ci/budget installs it"))?;
    }
    Ok(())
}

/// Parses `==1== Collected : 12345`.
fn callgrind(report: &str) -> Option<Count> {
    let (_, collected) = report.rsplit_once("Collected :")?;
    Some(Count { events: collected.split_whitespace().next()?.parse().ok()?, detail: 0.0 })
}

/// Parses `==1== Total:     1,234 bytes in 56 blocks`.
fn dhat(report: &str) -> Option<Count> {
    let (_, total) = report.rsplit_once(" Total:")?;
    let [bytes, "bytes", "in", blocks, ..] = total.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let number = |text: &str| text.replace(',', "").parse().ok();
    Some(Count { events: number(blocks)?, detail: number(bytes)? })
}

/// Parses lines such as `51.33    0.100000          12      8000        12 recvfrom`, and the one for the `total`. The column of errors
/// may be empty.
fn strace(report: &str) -> Option<Count> {
    let calls = |wanted: &[&str]| {
        let lines = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let lines =
            lines.filter(|columns| columns.len() >= 5 && columns.last().is_some_and(|name| wanted.contains(name)));
        lines.map(|columns| columns[3].parse::<f64>().ok()).sum::<Option<f64>>()
    };
    let events = calls(&["total"]).filter(|total| *total > 0.0)?;
    Some(Count { events, detail: calls(&TRANSFERS)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tool: Tool, report: &str, events: f64, detail: f64) {
        assert_eq!(tool.read(report).expect("the count is found"), Count { events, detail });
        assert!(tool.read(&report.replace("otal", "").replace("Collected", "")).is_err());
    }

    #[test]
    fn counts_are_found_in_reports() {
        check(Tool::Callgrind, "==7== Events    : Ir\n==7== Collected : 123456789\n==7== \n", 123_456_789.0, 0.0);
        check(
            Tool::Dhat,
            "==7== Total:     6,226,417 bytes in 66,026 blocks\n==7== At t-gmax: 1 bytes in 2 blocks\n",
            66026.0,
            6_226_417.0,
        );
        let calls = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     51.33    0.123456          12      8000        12 recvfrom\n \
                     40.00    0.090000          12      7000           writev\n  \
                     0.01    0.000006           6         9           write\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.213462          12     15009        12 total\n";
        check(Tool::Strace, calls, 15009.0, 15000.0);
    }
}
