//! System calls of idle processes.

use std::process::{Command, Stdio};

use crate::processes::{Process, arg};
use crate::world::Result;

/// The system calls in a minute of a server with one client, and of that client.
pub(crate) async fn idle() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name| dir.path().join(name);
    let mut server = Process::start("server", &[arg(&path("server"))?])?;
    let address = server.line()?;
    let mut client = Process::start("idler", &[arg(&path("client"))?, &address])?;
    client.line()?;
    let traces = [("server", &server), ("client", &client)].map(|(name, process)| {
        let mut strace = Command::new("timeout");
        strace.args(["-s", "INT", "60", "strace", "-f", "-c", "-p", &process.id().to_string()]);
        (name, strace.stderr(Stdio::piped()).spawn())
    });
    for (name, strace) in traces {
        let output = strace?.wait_with_output()?;
        let table = String::from_utf8_lossy(&output.stderr);
        println!("{name}:");
        table.lines().filter(|line| !line.starts_with("strace:")).for_each(|l| println!("  {l}"));
    }
    Ok(())
}
