//! The costs of SyncLayer on this machine, each beside what a bare loop of the same work costs:
//! `tests/reliability/run bench` runs it and keeps what it says in `tests/PERFORMANCE.md`.
//!
//! Clients and the server are processes of their own, which are this program again, with real sockets
//! and real stores. CPU time is that of all threads of a process. Nothing is asserted: compare the
//! ratios of one run. The names of parts as arguments choose them; `cold` runs only where it is named.
//!
//! | variable | what it sets | default |
//! | --- | --- | --- |
//! | `BENCH_RECORDS` | records that are saved, sent, changed, deleted | 20,000 |
//! | `BENCH_HELD` | records that a large collection holds | 100,000 |
//! | `BENCH_SUBSCRIBERS` | connections that a change goes out to | 100 |
//! | `BENCH_IDLE` | idle connections whose memory is measured; mind `ulimit -n` | 500 |
//! | `BENCH_PROGRAM` | the program `synclayer`; without one its rows are left out | |
#![allow(missing_docs)]

mod bare;
mod latency;
mod local;
mod peer;
mod process;
mod query;
mod report;
mod scopes;
mod server;
mod shell;
mod sync;
mod usage;
mod world;

use crate::report::Report;
use crate::world::{Result, Sizes};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, args @ ..] = &args[..]
        && first == process::ROLE
    {
        return process::play(role, args).await;
    }
    let sizes = Sizes::from_environment()?;
    let mut report = Report::new(&sizes);
    let wanted = |part: &str| args.is_empty() || args.iter().any(|wanted| wanted == part);
    if wanted("local") {
        local::measure(&sizes, &mut report).await?;
    }
    if wanted("sync") {
        sync::measure(&sizes, &mut report).await?;
    }
    // on its own, for stores of which the other rows would take an hour
    if args.iter().any(|wanted| wanted == "cold") {
        sync::cold_alone(&sizes, &mut report).await?;
    }
    if wanted("latency") {
        latency::measure(&sizes, &mut report).await?;
    }
    if wanted("server") {
        server::measure(&sizes, &mut report).await?;
    }
    if let Ok(program) = std::env::var("BENCH_PROGRAM")
        && wanted("shell")
    {
        shell::measure(&program, &sizes, &mut report)?;
    }
    if wanted("scopes") {
        scopes::measure(&sizes, &mut report).await?;
    }
    print!("{report}");
    Ok(())
}
