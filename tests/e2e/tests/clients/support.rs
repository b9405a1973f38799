//! A server, and a way to it that goes wrong as real networks do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use synclayer_core::UserId;
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_server::{MemoryServerStore, Server, ServerConfig, StaticTokens};
use synclayer_tokio::{Store, SyncConfig};
use tokio::runtime::Runtime;

/// Time limit of each wait in a test.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The collection of all tests.
pub const TODOS: &str = "todos";

/// Returns the runtime of the server and the tokio client.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A server that may go away and come back with what it holds.
pub struct Host {
    store: Arc<MemoryServerStore>,
    config: ServerConfig,
    running: Option<Server>,
    address: Arc<Mutex<Option<SocketAddr>>>,
}

impl Host {
    pub fn start() -> Self {
        Self::with(ServerConfig::default())
    }

    /// One that knows a user `ann` by these tokens.
    pub fn with_tokens(tokens: &[&str]) -> Self {
        let ann = || UserId::new("ann").unwrap();
        let tokens = StaticTokens::new(tokens.iter().map(|token| (ann(), *token)));
        Self::with(ServerConfig::new().authenticator(Arc::new(tokens)))
    }

    pub fn with(config: ServerConfig) -> Self {
        let store = Arc::new(MemoryServerStore::new());
        let mut host = Self { store, config, running: None, address: Arc::default() };
        host.run();
        host
    }

    pub fn run(&mut self) {
        let server = Server::bind(self.config.clone(), Arc::clone(&self.store) as _);
        let server = runtime().block_on(server).unwrap();
        *self.address.lock().unwrap() = Some(server.local_addr());
        self.running = Some(server);
    }

    pub fn stop(&mut self) {
        *self.address.lock().unwrap() = None;
        runtime().block_on(self.running.take().unwrap().shutdown());
    }

    /// A way to the server.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(Arc::clone(&self.address))
    }
}

/// The fate of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Pass,
    /// It is never answered.
    Stall,
    /// The connection breaks.
    Break,
    /// The server gets it, and its answer is lost.
    LoseAnswer,
    /// Something before the server answers with this status, these headers and this body.
    Answer(u16, &'static str, &'static str),
}

/// A request's head as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub upgrade: bool,
    /// Length of its body.
    pub body: usize,
}

type Rule = Box<dyn FnMut(&Request) -> Fate + Send>;

/// One request and its answer, or one WebSocket, as it went over the wire.
#[derive(Clone, Debug)]
pub struct Passed {
    pub request: Request,
    /// All bytes, heads included, of both directions; of a WebSocket only the heads'.
    pub bytes: usize,
}

/// A way to the server.
pub struct Proxy {
    address: SocketAddr,
    road: Arc<Road>,
}

struct Road {
    server: Arc<Mutex<Option<SocketAddr>>>,
    rule: Mutex<Rule>,
    passed: Mutex<Vec<Passed>>,
    /// The connections that there are.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    fn start(server: Arc<Mutex<Option<SocketAddr>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let road = Arc::new(Road {
            server,
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            passed: Mutex::default(),
            open: Mutex::default(),
        });
        let shared = Arc::downgrade(&road);
        thread::spawn(move || accept(&listener, &shared));
        Self { address, road }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the rule for each request from now on.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Fate + Send + 'static) {
        *self.road.rule.lock().unwrap() = Box::new(rule);
    }

    /// Everything passes again.
    pub fn free(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// Breaks the connections that there are.
    pub fn cut(&self) {
        for stream in self.road.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Returns the requests that have passed so far.
    pub fn passed(&self) -> Vec<Passed> {
        self.road.passed.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        // lets the listener see that nobody is left
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, road: &Weak<Road>) {
    for client in listener.incoming() {
        let (Ok(client), Some(road)) = (client, road.upgrade()) else { return };
        road.open.lock().unwrap().push(client.try_clone().unwrap());
        thread::spawn(move || {
            // a connection that broke is what this proxy is for
            let _ = road.carry(&client);
            let _ = client.shutdown(std::net::Shutdown::Both);
        });
    }
}

impl Road {
    /// One request, and its answer or the WebSocket that it opens.
    fn carry(&self, mut client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (head, mut rest) = head(&mut client)?;
        let request = Request::parse(&head);
        let fate = (self.rule.lock().unwrap())(&request);
        match fate {
            Fate::Break => return Ok(()),
            Fate::Stall => {
                // until the client gives up
                io::copy(&mut client, &mut io::sink())?;
                return Ok(());
            }
            Fate::Answer(status, headers, body) => {
                while rest.len() < request.body {
                    fill(&mut client, &mut rest)?;
                }
                let length = body.len();
                write!(
                    client,
                    "HTTP/1.1 {status} Made up\r\ncontent-length: {length}\r\n\
                     connection: close\r\n{headers}\r\n{body}"
                )?;
                self.note(request, head.len() + rest.len());
                return Ok(());
            }
            Fate::Pass | Fate::LoseAnswer => {}
        }
        let Some(address) = *self.server.lock().unwrap() else { return Ok(()) };
        let mut server = TcpStream::connect(address)?;
        server.set_nodelay(true)?;
        self.open.lock().unwrap().push(server.try_clone()?);
        if request.upgrade {
            server.write_all(head.as_bytes())?;
            server.write_all(&rest)?;
            self.note(request, head.len());
            return splice(client, &server);
        }
        while rest.len() < request.body {
            fill(&mut client, &mut rest)?;
        }
        // one request a connection, so that every one meets the rule
        let close = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        server.write_all(close.as_bytes())?;
        server.write_all(&rest)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        self.note(request, head.len() + rest.len() + answer.len());
        if matches!(fate, Fate::Pass) {
            client.write_all(&answer)?;
        }
        Ok(())
    }

    fn note(&self, request: Request, bytes: usize) {
        self.passed.lock().unwrap().push(Passed { request, bytes });
    }
}

impl Request {
    fn parse(head: &str) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let body = header("content-length").map_or(0, |length| length.parse().unwrap());
        Self { path, upgrade: header("upgrade").is_some(), body }
    }
}

/// Carries bytes in both directions until one side has enough.
fn splice(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let down = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut &*client, &mut &*server);
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = down.join();
    Ok(())
}

fn head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes).map_err(io::Error::other)?, rest));
        }
        fill(stream, &mut bytes)?;
    }
}

fn fill(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            bytes.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}

/// A client's configuration: in memory, quick to try again.
pub fn config(proxy: &Proxy) -> SyncConfig {
    SyncConfig::new(proxy.url())
        .collections([TODOS])
        .reconnect_delay(Duration::from_millis(20))
        .request_timeout(Duration::from_secs(5))
}

/// A store in a directory.
pub fn on_disk(dir: &Path) -> Store {
    let dir = dir.to_owned();
    Store::opened_by(move |_on_durable| {
        Ok(Box::new(FjallClientStore::open(&dir, ClientOptions::default())?))
    })
}
