//! The costs of SyncLayer, measured on this machine through real sockets and real stores: `cargo
//! run --release -p synclayer-e2e --example figures -- [NAME…]`.
//!
//! Without a name all figures are measured; see [`FIGURES`] for the names. What is measured of a
//! process is measured in a process of its own, which is this program again. `connections` needs
//! `ulimit -n 8192`, `idle` needs strace and `change` valgrind.
#![allow(missing_docs)]

mod commits;
mod idle;
mod latency;
mod memory;
mod processes;
mod sync;
mod views;
mod world;
mod writes;

use std::pin::Pin;

use crate::world::Result;

type Running = Pin<Box<dyn Future<Output = Result<()>>>>;
type Figure = (&'static str, &'static str, fn() -> Running);

/// The figures: their names, what they tell, and how they are measured.
const FIGURES: [Figure; 9] = [
    ("latency", "from a write on A to watch() on B", || Box::pin(latency::latency())),
    ("writes", "local writes through the client API", || Box::pin(writes::writes())),
    ("connections", "a server's memory per idle connection", || Box::pin(memory::connections())),
    ("catchup", "10,000 changes that were missed", || Box::pin(sync::catch_up())),
    ("sync", "100,000 records to the server and on", || Box::pin(sync::whole())),
    ("offline", "memory of 100,000 writes that wait", || Box::pin(memory::offline())),
    ("change", "a change to one of many watched records", || Box::pin(views::change())),
    ("commits", "syncs of the disk for each acknowledgement", || Box::pin(commits::commits())),
    ("idle", "system calls of idle processes in a minute", || Box::pin(idle::idle())),
];

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, args @ ..] = &args[..]
        && first == processes::ROLE
    {
        return processes::play(role, args).await;
    }
    for (name, about, measure) in FIGURES {
        if args.is_empty() || args.iter().any(|wanted| wanted == name) {
            println!("\n{name}: {about}");
            measure().await?;
        }
    }
    Ok(())
}
