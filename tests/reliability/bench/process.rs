//! Processes of their own, whose CPU time and memory are theirs alone.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::pending;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;

use synclayer_fjall::{Durability, FjallServerStore};

use crate::usage::Threads;
use crate::world::{Result, serve};
use crate::{local, peer, query, scopes, sync, usage};

/// The first argument of such a process. The second is its role.
pub(crate) const ROLE: &str = "as";

/// The line by which a process says that what is measured begins; it then waits for an answer.
const BEGIN: &str = "begin";
/// The line by which it says that it has ended.
const END: &str = "end";

/// Does what a role does.
pub(crate) async fn play(role: &str, args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (role, &args[..]) {
        ("server", [dir]) => {
            let (server, store) = serve(Path::new(dir), Durability::Synced).await?;
            println!("{}", server.local_addr());
            thread::spawn(move || answer(&store));
            pending().await
        }
        ("rooms", [dir, parts @ ..]) => {
            let (server, store) = scopes::serve(Path::new(dir), parts).await?;
            println!("{}", server.local_addr());
            thread::spawn(move || answer(&store));
            pending().await
        }
        ("crowd", [server, subscribers, changes]) => {
            peer::crowd(server, subscribers.parse()?, changes.parse()?).await
        }
        ("saver", [dir, records, at_once]) => {
            local::save(Path::new(dir), records.parse()?, at_once.parse()?).await
        }
        ("unit-saver", [dir, records]) => local::save_units(Path::new(dir), records.parse()?).await,
        ("many", [dir, collections]) => local::many(Path::new(dir), collections.parse()?).await,
        ("getter", [dir, reads]) => local::get(Path::new(dir), reads.parse()?).await,
        ("waiter", [dir, reads]) => local::get_blocking(Path::new(dir), reads.parse()?),
        ("watcher", [dir]) => local::watch(Path::new(dir)).await,
        ("asker", [dir]) => query::ask(Path::new(dir)).await,
        ("onlooker", [dir]) => query::look_on(Path::new(dir)).await,
        ("queue", [dir, writes]) => local::queue(Path::new(dir), writes.parse()?).await,
        ("writer", [dir, server, first, records]) => {
            sync::write(Path::new(dir), server, first.parse()?, records.parse()?).await
        }
        ("changer", [dir, server, records, how]) => {
            sync::change(Path::new(dir), server, records.parse()?, how).await
        }
        ("reader", [dir, server]) => sync::read_all(Path::new(dir), server).await,
        ("returner", [dir, server]) => sync::come_back(Path::new(dir), server).await,
        ("starter", [dir, server]) => sync::start_up(Path::new(dir), server).await,
        _ => Err(format!("there is no role {role} with {} arguments", args.len()).into()),
    }
}

/// Answers each line with what the server has used, and which threads since the line before.
fn answer(store: &Arc<FjallServerStore>) {
    let mut before = Threads::default();
    for _ in stdin().lines() {
        let now = Threads::now().unwrap_or_default();
        let threads = now.since(&before, 1);
        println!("{} {} {threads}", usage::cpu().as_nanos(), store.stats().syncs);
        before = now;
    }
}

/// Says that what is measured begins now, and waits until that is heard.
pub(crate) fn begin() -> Result<()> {
    println!("{BEGIN}");
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Says that it has ended.
pub(crate) fn end() -> Result<()> {
    println!("{END}");
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Tells a figure.
pub(crate) fn tell(name: &str, figure: impl Display) {
    println!("{name} {figure}");
}

/// The figures of a process.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<String, String>);

impl Told {
    pub(crate) fn number(&self, name: &str) -> Result<f64> {
        Ok(self.text(name)?.parse()?)
    }

    pub(crate) fn add(&mut self, name: &str, figure: f64) {
        self.0.insert(name.into(), figure.to_string());
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("{name} was not told").into())
    }
}

/// The resources that a server has used so far.
#[derive(Default)]
pub(crate) struct Used {
    /// Microseconds of CPU time.
    pub(crate) cpu: f64,
    /// Syncs of the disk.
    pub(crate) syncs: f64,
    /// The threads that used most since it was asked before.
    threads: String,
}

/// A process in a role. It ends when it is dropped, at the latest.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
}

impl Process {
    pub(crate) fn start(role: &str, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).arg(role).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let stdin = child.stdin.take().ok_or("no input")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines(), stdin })
    }

    /// Starts a server on this directory. It says where it is.
    pub(crate) fn server(dir: &Path) -> Result<(Self, String)> {
        let mut server = Self::start("server", &[arg(dir)?])?;
        let address = server.line()?;
        Ok((server, address))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().ok_or("the process has ended")??)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Asks a server for the resources that it has used so far.
    pub(crate) fn used(&mut self) -> Result<Used> {
        self.say("?")?;
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().ok_or("half an answer");
        let cpu = word()?.parse::<f64>()? / 1e3;
        Ok(Used { cpu, syncs: word()?.parse()?, threads: word()?.to_owned() })
    }

    /// Hears everything that it tells until it ends. What the server uses between its beginning and
    /// its end is told as `server`, and by which threads, as `server-threads`.
    pub(crate) fn measure(self, server: Option<&mut Self>) -> Result<Told> {
        self.measure_after(|| Ok(()), server)
    }

    /// The same, with something else to happen before its beginning.
    pub(crate) fn measure_after(
        mut self,
        mut meanwhile: impl FnMut() -> Result<()>,
        mut server: Option<&mut Self>,
    ) -> Result<Told> {
        let mut told = Told::default();
        let mut before = Used::default();
        let mut used = || server.as_mut().map_or(Ok(Used::default()), |server| server.used());
        while let Some(line) = self.lines.next() {
            let line = line?;
            match line.as_str() {
                BEGIN => {
                    meanwhile()?;
                    before = used()?;
                    self.say("go")?;
                }
                END => {
                    let after = used()?;
                    told.add("server", after.cpu - before.cpu);
                    told.0.insert("server-threads".into(), after.threads);
                    self.say("go")?;
                }
                line => {
                    let (name, figure) = line.split_once(' ').ok_or("half a figure")?;
                    told.0.insert(name.into(), figure.into());
                }
            }
        }
        let ended = self.child.wait()?;
        if ended.success() { Ok(told) } else { Err(format!("it ended with {ended}").into()) }
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
