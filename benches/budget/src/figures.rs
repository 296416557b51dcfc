//! The figures and their measurement.
//!
//! The cost of a request is the difference between two runs of the proxy, one with twice as many requests as the other, divided by the
//! number of additional requests. Start, handshakes and shutdown are in both runs.

use std::{fs, path::Path, thread, time::Duration};

use super::{
    Result,
    calls::{Connection, LARGE, Request, SMALL, call_at_once},
    program::{Folder, Proxy, Sandbox, count},
    tool::{self, Count, Tool},
};

/// A measured figure.
pub(super) struct Figure {
    /// The name in the table of ceilings.
    pub(super) name: &'static str,
    /// The value, in the unit that the name says.
    pub(super) value: f64,
    /// The number of decimals to print.
    pub(super) decimals: usize,
}

/// The number of requests in the shorter run. It is large enough that variations between runs (the log thread wakes by the clock) are
/// below one per cent.
const REQUESTS: u32 = 500;

/// The number of connections in measurements with many.
const MANY: u32 = 32;

/// The same for large responses, which take longer, mostly in the sandbox.
const LARGE_REQUESTS: u32 = 50;

/// The number of idle connections opened to measure the memory of one, after a first batch that pays one-time costs.
const IDLE: u32 = 1000;

/// Connections are opened in batches, with a pause until they are parked (at most twice `PARK_AFTER` in `src/server/connection.rs`). Only
/// parked connections are measured then, however fast the machine opens them.
const BATCH: u32 = 100;
const PARK_TIME: Duration = Duration::from_millis(700);

/// How often the start is timed. The shortest time is the least affected by other processes.
const STARTS: u32 = 5;

/// Measures `program`, which has the sandbox where `without_sandbox` has none, and shows each figure as soon as it is known.
///
/// # Errors
///
/// If a figure cannot be measured.
pub(super) fn measure(program: &Path, without_sandbox: &Path, mut show: impl FnMut(Figure)) -> Result<()> {
    tool::check_installed()?;
    let folder = Folder::new()?;
    let sandbox = Sandbox::start(program, &folder)?;
    let runs = Runs { program, sandbox: &sandbox, folder: &folder };
    let mut show = |name, value, decimals| show(Figure { name, value, decimals });

    let (request, start) = runs.cost(Tool::Callgrind, 1, SMALL, REQUESTS)?;
    show("instructions per request", request.events, 0);
    show("instructions from exec to the end", start.events, 0);
    let (request, _) = runs.cost(Tool::Callgrind, 1, LARGE, LARGE_REQUESTS)?;
    show("instructions per request, large response", request.events, 0);
    let (request, start) = runs.cost(Tool::Dhat, 1, SMALL, REQUESTS)?;
    show("allocations per request", request.events, 1);
    show("allocated bytes per request", request.detail, 0);
    show("allocated bytes from exec to the end", start.detail, 0);
    let (request, _) = runs.cost(Tool::Strace, 1, SMALL, REQUESTS)?;
    show("system calls per request, 1 connection", request.events, 2);
    show("sends and receives per request, 1 connection", request.detail, 2);
    let (request, _) = runs.cost(Tool::Strace, MANY, SMALL, REQUESTS)?;
    show("system calls per request, 32 connections", request.events, 2);
    show("sends and receives per request, 32 connections", request.detail, 2);
    show("resident KiB of an idle connection", runs.idle_connection_kib()?, 1);
    let bytes = |program: &Path| fs::metadata(program).map(|file| file.len() as f64);
    show("bytes of the program", bytes(program)?, 0);
    show("bytes of the program, for the sandbox", bytes(program)? - bytes(without_sandbox)?, 0);
    show("milliseconds from exec to listening", runs.shortest_start_ms()?, 1);
    Ok(())
}

/// The environment of every run of the proxy.
struct Runs<'a> {
    program: &'a Path,
    sandbox: &'a Sandbox,
    folder: &'a Folder,
}

impl Runs<'_> {
    /// The cost, as counted by `tool`, of one `request` on `connections` parallel connections, and of the rest of a run. The shorter
    /// run has `requests` requests.
    fn cost(&self, tool: Tool, connections: u32, request: Request, requests: u32) -> Result<(Count, Count)> {
        let run = |requests: u32| {
            count(tool, self.program, self.sandbox, self.folder, |proxy| {
                call_at_once(proxy.address, connections, request, requests / connections)
            })
        };
        // The same number for each connection, in both runs.
        let requests = requests / connections * connections;
        let (short, long) = (run(requests)?, run(2 * requests)?);
        let each = |short: f64, long: f64| (long - short) / f64::from(requests);
        let rest = |short: f64, long: f64| 2.0 * short - long;
        Ok((
            Count { events: each(short.events, long.events), detail: each(short.detail, long.detail) },
            Count { events: rest(short.events, long.events), detail: rest(short.detail, long.detail) },
        ))
    }

    fn idle_connection_kib(&self) -> Result<f64> {
        let proxy = Proxy::start(self.program, self.sandbox, self.folder)?;
        let mut open = Vec::new();
        let mut connect = |count: u32| {
            for _ in 0..count {
                let mut connection = Connection::open(proxy.address)?;
                connection.call(SMALL, 1)?;
                open.push(connection);
            }
            thread::sleep(PARK_TIME);
            proxy.resident_kib()
        };
        let before = connect(BATCH)?;
        let mut after = before;
        for _ in 0..IDLE / BATCH {
            after = connect(BATCH)?;
        }
        let each = (after - before) / f64::from(IDLE);
        drop(open);
        proxy.end()?;
        Ok(each)
    }

    fn shortest_start_ms(&self) -> Result<f64> {
        let mut shortest = f64::INFINITY;
        for _ in 0..STARTS {
            let proxy = Proxy::start(self.program, self.sandbox, self.folder)?;
            shortest = shortest.min(proxy.started_in.as_secs_f64() * 1e3);
            proxy.end()?;
        }
        Ok(shortest)
    }
}
