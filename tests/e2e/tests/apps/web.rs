//! The web page, in a real browser.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::Proxy;
use synclayer_e2e::skip::skipped;
use synclayer_e2e::wait::until;
use synclayer_server::ServerConfig;
use tungstenite::{Message, WebSocket};

use crate::support::project;

const PAGE: &str = "adapters/server/examples/web";

/// A browser without a window, which is told what to do by its DevTools.
struct Browser {
    process: Child,
    devtools: SocketAddr,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it; `None` if there is none on this machine.
    fn start() -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.args(["--remote-debugging-port=0", "about:blank"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut told = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listens = |line: String| {
            let (_, url) = line.split_once("DevTools listening on ws://")?;
            url.split('/').next()?.parse().ok()
        };
        let devtools = told.find_map(listens).expect("it tells where it listens");
        // what it says later has to go somewhere
        thread::spawn(move || told.for_each(drop));
        Some(Self { process, devtools, _profile: profile })
    }

    fn open(&self, url: &str) -> Tab {
        let opened = http(self.devtools, &format!("PUT /json/new?{url}"));
        let debugger = opened["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(self.devtools).unwrap();
        let (socket, _) = tungstenite::client(debugger, stream).unwrap();
        Tab { socket, calls: 0 }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A page that is open.
struct Tab {
    socket: WebSocket<TcpStream>,
    calls: u64,
}

impl Tab {
    /// Evaluates an expression on the page.
    fn evaluate(&mut self, expression: &str) -> Value {
        self.calls += 1;
        let parameters = json!({"expression": expression, "returnByValue": true});
        let call = json!({"id": self.calls, "method": "Runtime.evaluate", "params": parameters});
        self.socket.send(Message::text(call.to_string())).unwrap();
        loop {
            let answer = self.socket.read().unwrap().into_text().unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            if answer["id"] == self.calls {
                return answer["result"]["result"]["value"].clone();
            }
        }
    }

    fn add(&mut self, text: &str) {
        let add = "document.forms[0].requestSubmit()";
        self.evaluate(&format!("document.getElementById('text').value = {text:?}; {add}"));
    }

    /// Waits until the page shows these todos, an `x` before those that are done.
    fn shows(&mut self, state: &str, wanted: &[&str]) {
        let todos = "[document.getElementById('state').textContent, \
            ...[...document.querySelectorAll('li')].map((li) => \
                (li.querySelector('input').checked ? 'x ' : '') + li.textContent.replace('Delete', '').trim())]";
        let wanted = json!([&[state], wanted].concat());
        until(&format!("{wanted} on the page"), || self.evaluate(todos) == wanted);
    }
}

/// Makes a request. Returns the answer's body as JSON.
fn http(address: SocketAddr, call: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{call} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(found) = line.to_lowercase().strip_prefix("content-length:") {
            length = found.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// Serves the folder of the page.
fn web_site() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            lines.read_line(&mut request).unwrap();
            let path = request.split([' ', '?']).nth(1).unwrap_or("/");
            let (file, kind) = match path {
                "/sync.js" => ("sync.js", "text/javascript"),
                _ => ("index.html", "text/html"),
            };
            let body = fs::read_to_string(project(PAGE).join(file)).unwrap();
            let head = format!(
                "Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close",
                body.len()
            );
            // a browser may look for what it does not need, and leave
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
        }
    });
    address
}

async fn host(site: SocketAddr) -> (Host, Proxy) {
    let origins = [format!("http://{site}")];
    let host = Host::in_memory(ServerConfig::default().allow_origins(origins)).await;
    let proxy = host.proxy().await;
    (host, proxy)
}

#[test]
fn two_pages_share_todos_and_one_is_offline_in_the_middle() {
    let Some(browser) = Browser::start() else {
        return skipped("there is no chromium to open the web page");
    };
    let site = web_site();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (host, proxy) = runtime.block_on(host(site));
    let url = |server: SocketAddr| format!("http://{site}/?server=ws://{server}/ws");
    let mut ann = browser.open(&url(proxy.address()));
    let mut bob = browser.open(&url(host.address()));
    ann.shows("online", &[]);
    bob.shows("online", &[]);
    ann.add("Milk");
    bob.shows("online", &["Milk"]);

    let address = host.address();
    host.target.set(None);
    proxy.cut();
    ann.shows("offline", &["Milk"]);
    ann.add("Bread");
    ann.shows("offline", &["Milk", "Bread"]);
    bob.evaluate("document.querySelector('li input').click()");
    bob.shows("online", &["x Milk"]);

    host.target.set(Some(address));
    ann.shows("online", &["x Milk", "Bread"]);
    bob.shows("online", &["x Milk", "Bread"]);
    bob.evaluate("document.querySelector('li button').click()");
    ann.shows("online", &["Bread"]);
}
