//! The figures, and how each is measured.
//!
//! What is counted of a request is the difference of two lives of the proxy, one with twice as many requests as the other, by the
//! number of requests: start, handshakes and end are in both.

use std::{fs, path::Path, thread, time::Duration};

use super::{
    Result,
    calls::{Connection, LARGE, Request, SMALL, call_at_once},
    program::{Folder, Proxy, Sandbox, count},
    tool::{self, Count, Tool},
};

/// One figure, measured.
pub(super) struct Figure {
    /// Its name in the table of ceilings.
    pub(super) name: &'static str,
    /// Its value, in the unit that the name says.
    pub(super) value: f64,
    /// With how many decimals it is shown.
    pub(super) decimals: usize,
}

/// How many requests the shorter life has. With as many, what differs from run to run by itself (the log's thread wakes by the
/// clock) is less than a hundredth.
const REQUESTS: u32 = 500;

/// How many connections make many.
const MANY: u32 = 32;

/// The same for large answers, which take longer, in the sandbox above all.
const LARGE_REQUESTS: u32 = 50;

/// How many idle connections are opened to weigh one, after some with which grows what grows once.
const IDLE: u32 = 1000;

/// So many at a time, and then no more until these rest (`PARK_AFTER` in `src/server/connection.rs`, which takes twice its time at
/// most), so that what is weighed is what rests, however fast the machine opens them.
const AT_A_TIME: u32 = 100;
const REST: Duration = Duration::from_millis(700);

/// How often the start is timed. The shortest time has the least of other processes in it.
const STARTS: u32 = 5;

/// Measures all of `program`, which has the sandbox where `without_sandbox` has none, and shows each figure when it is known.
///
/// # Errors
///
/// When one cannot be measured.
pub(super) fn measure(program: &Path, without_sandbox: &Path, mut show: impl FnMut(Figure)) -> Result<()> {
    tool::all_there()?;
    let folder = Folder::new()?;
    let sandbox = Sandbox::start(program, &folder)?;
    let lives = Lives { program, sandbox: &sandbox, folder: &folder };
    let mut show = |name, value, decimals| show(Figure { name, value, decimals });

    let (request, start) = lives.cost(Tool::Callgrind, 1, SMALL, REQUESTS)?;
    show("instructions a request", request.events, 0);
    show("instructions from exec to the end", start.events, 0);
    let (request, _) = lives.cost(Tool::Callgrind, 1, LARGE, LARGE_REQUESTS)?;
    show("instructions a request, large answer", request.events, 0);
    let (request, start) = lives.cost(Tool::Dhat, 1, SMALL, REQUESTS)?;
    show("allocations a request", request.events, 1);
    show("allocated bytes a request", request.detail, 0);
    show("allocated bytes from exec to the end", start.detail, 0);
    let (request, _) = lives.cost(Tool::Strace, 1, SMALL, REQUESTS)?;
    show("system calls a request, 1 connection", request.events, 2);
    show("sends and receives a request, 1 connection", request.detail, 2);
    let (request, _) = lives.cost(Tool::Strace, MANY, SMALL, REQUESTS)?;
    show("system calls a request, 32 connections", request.events, 2);
    show("sends and receives a request, 32 connections", request.detail, 2);
    show("resident KiB of an idle connection", lives.idle_connection_kib()?, 1);
    let bytes = |program: &Path| fs::metadata(program).map(|file| file.len() as f64);
    show("bytes of the program", bytes(program)?, 0);
    show("bytes of the program, for the sandbox", bytes(program)? - bytes(without_sandbox)?, 0);
    show("milliseconds from exec to listening", lives.shortest_start_ms()?, 1);
    Ok(())
}

/// Where the proxy lives.
struct Lives<'a> {
    program: &'a Path,
    sandbox: &'a Sandbox,
    folder: &'a Folder,
}

impl Lives<'_> {
    /// What `tool` counts of one `request` on so many connections at once, and of all else in the life of a proxy. The shorter
    /// life has `requests` of them.
    fn cost(&self, tool: Tool, connections: u32, request: Request, requests: u32) -> Result<(Count, Count)> {
        let life = |requests: u32| {
            count(tool, self.program, self.sandbox, self.folder, |proxy| {
                call_at_once(proxy.address, connections, request, requests / connections)
            })
        };
        // A whole number for each connection, in both lives.
        let requests = requests / connections * connections;
        let (short, long) = (life(requests)?, life(2 * requests)?);
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
            thread::sleep(REST);
            proxy.resident_kib()
        };
        let before = connect(AT_A_TIME)?;
        let mut after = before;
        for _ in 0..IDLE / AT_A_TIME {
            after = connect(AT_A_TIME)?;
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
