//! Processes, and how to wait for what they say.

use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The time limit of each wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Tells that a test is skipped, on a line that `.ci/run` counts.
pub(crate) fn skipped(why: &str) {
    // not `eprintln!`, whose output a test that passes does not show
    let _ = stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

/// A place for the directories of servers and replicas.
pub(crate) struct HomeDir(TempDir);

impl HomeDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A replica for the shell.
    pub(crate) fn shell(&self, name: &str, server: &str) -> Shell {
        Shell { data: self.dir(name), server: server.to_owned() }
    }
}

/// The exit code and output of a process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The output, parsed as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only line.
    pub(crate) fn json(&self) -> Value {
        let [line] = &self.lines()[..] else { panic!("not one line: {self:?}") };
        line.clone()
    }

    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// Runs the program to its end.
pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Ended {
    finish(command().args(args))
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Ended {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (done, ended) = channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    let Ok(output) = ended.recv_timeout(TIMEOUT) else {
        signal(pid, "KILL");
        panic!("{command:?} did not end");
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The program, undisturbed by the environment of the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synclayer"));
    for name in ["DATA", "SERVER", "SERVER_DATA", "TOKEN", "TOKENS", "CA"] {
        command.env_remove(format!("SYNCLAYER_{name}"));
    }
    for name in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.stdin(Stdio::null());
    command
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}

/// A process that goes on.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        let errors = read_lines(child.stderr.take().unwrap());
        Self { child, lines, errors }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> Value {
        match self.lines.recv_timeout(TIMEOUT) {
            Ok(line) => serde_json::from_str(&line).unwrap(),
            Err(_) => panic!("no line; it said {:?}", self.errors.try_iter().collect::<Vec<_>>()),
        }
    }

    /// Waits until it has told people something. Returns the line.
    #[track_caller]
    pub(crate) fn tells(&self, wanted: &str) -> String {
        loop {
            match self.errors.recv_timeout(TIMEOUT) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(_) => {}
                Err(_) => panic!("it never said {wanted:?}"),
            }
        }
    }

    /// The remaining lines on standard error, up to its end.
    pub(crate) fn told(&self) -> Vec<String> {
        self.errors.iter().collect()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // its output ends with it
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        self.child.wait().unwrap()
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Lets every connection be talked to on a thread of its own, for as long as the test runs.
pub(crate) fn listen(talk: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream.unwrap()));
        }
    });
    address
}

/// A server's process.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, "127.0.0.1:0", &[])
    }

    pub(crate) fn start_with(data: &Path, listen: &str, more: &[&str]) -> Self {
        let mut command = command();
        command.args(["serve", "--json", "--listen", listen, "--data"]).arg(data).args(more);
        Self::run(command)
    }

    /// One that may open no more than so many descriptors.
    pub(crate) fn with_descriptors(data: &Path, descriptors: usize, more: &[&str]) -> Self {
        let program = command();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$@\""), "sh"]);
        command.arg(program.get_program());
        command.args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(more);
        command.env_remove("SYNCLAYER_TOKENS").stdin(Stdio::null());
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let process = Process::start(&mut command);
        let line = process.line();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let (url, address) = (text("url"), text("listening"));
        Self { process, url, address }
    }
}

/// A replica for the shell, whose server may be there or not.
pub(crate) struct Shell {
    pub(crate) data: PathBuf,
    pub(crate) server: String,
}

impl Shell {
    /// Runs a command with the server at hand.
    pub(crate) fn online(&self, args: &[&str]) -> Ended {
        finish(self.command(args).args(["--server", &self.server, "--timeout", "30"]))
    }

    /// Runs a command without the server.
    pub(crate) fn offline(&self, args: &[&str]) -> Ended {
        finish(&mut self.command(args))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command();
        command.arg("--json").args(args).arg("--data").arg(&self.data);
        command
    }

    /// Starts to watch. It prints for people, so that what it tells them can be waited for.
    pub(crate) fn watch(&self, collection: &str) -> Process {
        let mut command = command();
        command.args(["watch", collection, "--server", &self.server, "--data"]).arg(&self.data);
        let watch = Process::start(&mut command);
        watch.tells("in sync");
        watch
    }

    /// The data of a record.
    #[track_caller]
    pub(crate) fn data(&self, collection: &str, id: &str) -> Value {
        self.online(&["get", collection, id]).ends_with(0).json()["data"].clone()
    }

    /// The count and the checksum of a collection, once it is in sync.
    #[track_caller]
    pub(crate) fn standing(&self, collection: &str) -> (Value, Value) {
        let status = self.online(&["status"]).ends_with(0).json();
        assert_eq!(status["apart"], Value::Null, "{status}");
        assert_eq!(status["waiting"], 0);
        let of = &status["collections"][collection];
        (of["count"].clone(), of["checksum"].clone())
    }
}
