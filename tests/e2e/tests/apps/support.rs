//! Processes of the apps and of the server, and how to wait for what they show.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use synclayer_e2e::wait::TIMEOUT;

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A process that prints a line of JSON for each thing that it shows.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    printed: Receiver<String>,
    errors: Receiver<String>,
    /// The last view that it showed.
    shown: Value,
}

impl Process {
    /// Starts a program, undisturbed by the environment of the tests.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        for name in ["DATA", "SERVER", "SERVER_DATA", "TOKEN", "TOKENS", "CA"] {
            command.env_remove(format!("SYNCLAYER_{name}"));
        }
        for name in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let printed = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        Self { input: child.stdin.take().unwrap(), child, printed, errors, shown: Value::Null }
    }

    /// Enters a line.
    pub(crate) fn enter(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until it shows what is wanted, if it does not do so already. Returns that.
    #[track_caller]
    pub(crate) fn shows(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + TIMEOUT;
        while self.shown.is_null() || !wanted(&self.shown) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.printed.recv_timeout(left) else {
                let errors: Vec<_> = self.errors.try_iter().collect();
                panic!("it never showed that; the last was {:#}; errors: {errors:?}", self.shown);
            };
            self.shown = serde_json::from_str(&line).unwrap();
        }
        self.shown.clone()
    }

    /// Ends it as a loss of power would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Enters `/quit` and waits for the end.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.enter("/quit");
        // its output ends with it
        let end = Instant::now() + TIMEOUT;
        while self.printed.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < end, "it does not end");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
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

/// The program `synclayer` that serves, with its data in a directory.
pub(crate) struct Server {
    pub(crate) url: String,
    _process: Process,
}

impl Server {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        let serve = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", data];
        let mut process =
            Process::start(env!("CARGO_BIN_EXE_program"), &[&serve, arguments].concat());
        let listening = process.shows(|line| line["url"].is_string());
        Self { url: listening["url"].as_str().unwrap().to_owned(), _process: process }
    }
}
