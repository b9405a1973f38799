//! Processes of their own, whose memory and system calls are theirs alone.

use std::future::pending;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use synclayer_fjall::Durability;

use crate::world::{Result, client, serve};
use crate::{memory, sync, views};

/// The first argument of such a process. The second is its role.
pub(crate) const ROLE: &str = "as";

/// Does what a role does.
pub(crate) async fn play(role: &str, args: &[String]) -> Result<()> {
    match (role, args) {
        ("server", [dir]) => {
            let (server, _) = serve(Path::new(dir), Durability::Synced).await?;
            println!("{}", server.local_addr());
            pending().await
        }
        ("idler", [dir, server]) => {
            let sync = client(Path::new(dir), server.parse()?).await?;
            println!("{}", sync.status().await?.client_id);
            pending().await
        }
        ("writer", [dir, server]) => sync::write_all(Path::new(dir), server.parse()?).await,
        ("reader", [dir, server]) => sync::read_all(Path::new(dir), server.parse()?).await,
        ("offline", [dir, writes]) => memory::queue(Path::new(dir), writes.parse()?).await,
        ("changer", [from, records, changes]) => {
            views::make(from, records.parse()?, changes.parse()?)
        }
        _ => Err(format!("there is no role {role} with {} arguments", args.len()).into()),
    }
}

/// A process in a role. It ends when it is dropped, at the latest.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(role: &str, args: &[&str]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg(ROLE).arg(role).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().ok_or("the process has ended")??)
    }

    /// Shows everything that it still says.
    pub(crate) fn show(mut self) -> Result<()> {
        for line in self.lines.by_ref() {
            println!("{}", line?);
        }
        let ended = self.child.wait()?;
        if ended.success() { Ok(()) } else { Err(format!("it ended with {ended}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}
