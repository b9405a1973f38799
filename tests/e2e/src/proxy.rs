//! A way to the server that counts what goes over it, and goes wrong where a test wants it to: by a
//! rule for each request, and one for each frame of a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wait::soon;

/// The server's address; while there is none, connections wait for it.
#[derive(Clone)]
pub struct Target(watch::Sender<Option<SocketAddr>>);

impl Default for Target {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl Target {
    pub fn get(&self) -> Option<SocketAddr> {
        *self.0.borrow()
    }

    pub fn set(&self, address: Option<SocketAddr>) {
        self.0.send_replace(address);
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(watch::channel(Some(address)).0)
    }
}

/// A request as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The line and the headers, with the empty line at their end.
    pub head: String,
    pub path: String,
    /// True if it opens a WebSocket.
    pub upgrade: bool,
    /// Length of its body.
    pub body: usize,
}

impl Request {
    fn of(head: String) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let upgrade = header(&head, "upgrade").is_some();
        let body = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        Self { head, path, upgrade, body }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The fate of a request.
#[derive(Clone, Debug)]
pub enum Passage {
    Pass,
    /// It is never answered.
    Stall,
    /// The connection breaks.
    Break,
    /// The server gets it, and its answer is lost.
    LoseAnswer,
    /// Something before the server answers with this status, these headers and this body.
    Answer(u16, &'static str, &'static str),
    /// It goes on with another head, and its answer comes back changed.
    Rewrite(String, Change),
}

/// A request that has passed, and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: Request,
    /// All bytes, heads included, of both directions; of a WebSocket only the heads'.
    pub bytes: usize,
}

/// A text frame that came to the proxy.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The number of its connection, counted from 0.
    pub conn: usize,
    /// True if it goes to the server.
    pub up: bool,
    /// Its length on the wire.
    pub bytes: usize,
    pub text: String,
}

impl Frame {
    /// Its messages; batches come apart.
    pub fn messages(&self) -> Vec<Value> {
        messages(&self.text)
    }

    /// Those of its messages that are of this type.
    pub fn of_type(&self, kind: &str) -> Vec<Value> {
        let mut messages = self.messages();
        messages.retain(|message| message["type"] == kind);
        messages
    }

    /// The writes in a frame to the server.
    pub fn writes(&self) -> usize {
        let is_write = |message: &Value| self.up && message["metadata"]["mutation"].is_u64();
        self.messages().iter().filter(|message| is_write(message)).count()
    }
}

/// The messages in a frame.
pub fn messages(text: &str) -> Vec<Value> {
    let message: Value = serde_json::from_str(text).unwrap();
    match message["messages"].as_array() {
        Some(messages) => messages.clone(),
        None => vec![message],
    }
}

/// The fate of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    /// It waits for another rule, and what comes behind it in its direction too.
    Hold,
    /// It is lost alone.
    Drop,
    /// It is lost with the connection.
    Cut,
    /// The connection breaks behind it.
    PassAndCut,
}

/// A way to the server. Its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

type Rule<T, F> = Mutex<Box<dyn FnMut(&T) -> F + Send>>;

/// Changes an answer on its way.
type Change = fn(Vec<u8>) -> Vec<u8>;

struct Shared {
    target: Target,
    requests: Rule<Request, Passage>,
    frames: Rule<Frame, Fate>,
    /// Counts the rules for frames: those who hold a frame ask again.
    rules: watch::Sender<u64>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    /// Counts how often the connections were forgotten.
    deaths: watch::Sender<u64>,
    exchanges: Mutex<Vec<Exchange>>,
    passed: watch::Sender<Vec<Frame>>,
    bytes: AtomicU64,
}

impl Proxy {
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            requests: Mutex::new(Box::new(|_| Passage::Pass)),
            frames: Mutex::new(Box::new(|_| Fate::Pass)),
            rules: watch::channel(0).0,
            cuts: watch::channel(0).0,
            deaths: watch::channel(0).0,
            exchanges: Mutex::default(),
            passed: watch::channel(Vec::new()).0,
            bytes: AtomicU64::new(0),
        });
        let of_connections = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            for conn in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&of_connections).carry(conn, client));
            }
        });
        Self { address, shared, listening }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the rule for each request from now on.
    pub fn rule_requests(&self, rule: impl FnMut(&Request) -> Passage + Send + 'static) {
        *self.shared.requests.lock().unwrap() = Box::new(rule);
    }

    /// Sets the rule for each frame from now on.
    pub fn rule(&self, rule: impl FnMut(&Frame) -> Fate + Send + 'static) {
        *self.shared.frames.lock().unwrap() = Box::new(rule);
        self.shared.rules.send_modify(|rules| *rules += 1);
    }

    /// Everything passes again.
    pub fn free(&self) {
        self.rule_requests(|_| Passage::Pass);
        self.rule(|_| Fate::Pass);
    }

    /// Breaks the connections that there are.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing more through the connections that there are, and tells nobody.
    pub fn forget(&self) {
        self.shared.deaths.send_modify(|deaths| *deaths += 1);
    }

    /// Returns the requests that have passed so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// Takes the frames that have passed since they were last taken.
    pub fn take(&self) -> Vec<Frame> {
        self.shared.passed.send_replace(Vec::new())
    }

    /// Returns the frames that have passed since they were last taken.
    pub fn passed(&self) -> Vec<Frame> {
        self.shared.passed.borrow().clone()
    }

    /// Returns the number of all bytes so far, of both directions.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Waits until the frames that have passed are as wanted.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&[Frame]) -> bool) {
        let mut passed = self.shared.passed.subscribe();
        soon(what, passed.wait_for(|frames| wanted(frames))).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Shared {
    /// Carries a connection until it ends, is cut or forgotten.
    async fn carry(self: Arc<Self>, conn: usize, client: TcpStream) {
        let (mut cut, mut death) = (self.cuts.subscribe(), self.deaths.subscribe());
        client.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.into_split();
        let (mut client, mut server) = (Ends::new(from_client, to_client), None);
        tokio::select! {
            // a connection that breaks is what this proxy is for
            _ = self.exchange(conn, &mut client, &mut server) => return,
            _ = cut.changed() => return,
            _ = death.changed() => {}
        }
        // both ends stay open until the connection is cut
        let _ = cut.changed().await;
    }

    /// Carries requests and their answers, until one of them opens a WebSocket.
    async fn exchange(
        &self,
        conn: usize,
        client: &mut Ends,
        server: &mut Option<Ends>,
    ) -> io::Result<()> {
        loop {
            let request = Request::of(client.head().await?);
            let passage = (self.requests.lock().unwrap())(&request);
            let (head, change): (_, Change) = match &passage {
                Passage::Break => return Ok(()),
                // until the client gives up
                Passage::Stall => {
                    tokio::io::copy(&mut client.from, &mut tokio::io::sink()).await?;
                    return Ok(());
                }
                Passage::Answer(status, headers, text) => {
                    let body = client.body(request.body).await?;
                    let answer = format!(
                        "HTTP/1.1 {status} Made up\r\ncontent-length: {}\r\n\
                         connection: close\r\n{headers}\r\n{text}",
                        text.len()
                    );
                    let bytes = request.head.len() + body.len();
                    self.note(request, bytes);
                    return client.to.write_all(answer.as_bytes()).await;
                }
                Passage::Rewrite(head, change) => (head.clone(), *change),
                Passage::Pass | Passage::LoseAnswer => (request.head.clone(), |answer| answer),
            };
            if server.is_none() {
                *server = Some(self.connect().await?);
            }
            let server = server.as_mut().expect("it was just connected");
            server.to.write_all(head.as_bytes()).await?;
            let body = client.body(request.body).await?;
            server.to.write_all(&body).await?;
            let answer = server.answer().await?;
            let (bytes, closes) = (head.len() + body.len() + answer.len(), server.is_closed);
            self.note(request, bytes);
            if matches!(passage, Passage::LoseAnswer) {
                return Ok(());
            }
            let switches = answer.starts_with(b"HTTP/1.1 101");
            client.to.write_all(&change(answer)).await?;
            if switches {
                return self.splice(conn, client, server).await;
            }
            if closes {
                return Ok(());
            }
        }
    }

    async fn connect(&self) -> io::Result<Ends> {
        let mut target = self.target.0.subscribe();
        let address = target.wait_for(Option::is_some).await.map_err(io::Error::other)?.unwrap();
        let server = TcpStream::connect(address).await?;
        server.set_nodelay(true)?;
        let (from, to) = server.into_split();
        Ok(Ends::new(from, to))
    }

    fn note(&self, request: Request, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        self.exchanges.lock().unwrap().push(Exchange { request, bytes });
    }

    /// Carries a WebSocket, frame by frame.
    async fn splice(&self, conn: usize, client: &mut Ends, server: &mut Ends) -> io::Result<()> {
        tokio::select! {
            ended = self.pump(conn, true, &mut client.from, &mut client.read, &mut server.to) => ended,
            ended = self.pump(conn, false, &mut server.from, &mut server.read, &mut client.to) => ended,
        }
    }

    /// Carries in one direction what the rule lets through.
    async fn pump(
        &self,
        conn: usize,
        up: bool,
        from: &mut OwnedReadHalf,
        buffer: &mut Vec<u8>,
        to: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut rules = self.rules.subscribe();
        loop {
            let Some((bytes, text)) = parse(buffer) else {
                fill(from, buffer).await?;
                continue;
            };
            let mut fate = Fate::Pass;
            if let Some(text) = text {
                let frame = Frame { conn, up, bytes, text };
                fate = self.ask(&frame, &mut rules).await;
                match fate {
                    Fate::Cut => return Ok(()),
                    Fate::Drop => {
                        buffer.drain(..bytes);
                        continue;
                    }
                    Fate::Pass | Fate::Hold | Fate::PassAndCut => {}
                }
                self.passed.send_modify(|passed| passed.push(frame));
            }
            self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
            to.write_all(&buffer[..bytes]).await?;
            buffer.drain(..bytes);
            if fate == Fate::PassAndCut {
                return Ok(());
            }
        }
    }

    async fn ask(&self, frame: &Frame, rules: &mut watch::Receiver<u64>) -> Fate {
        loop {
            rules.mark_unchanged();
            let fate = (self.frames.lock().unwrap())(frame);
            if fate != Fate::Hold {
                return fate;
            }
            rules.changed().await.map_err(io::Error::other).unwrap();
        }
    }
}

/// One side of a connection.
struct Ends {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// The bytes that were read and not used yet.
    read: Vec<u8>,
    /// True if nothing more comes from it.
    is_closed: bool,
}

impl Ends {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf) -> Self {
        Self { from, to, read: Vec::new(), is_closed: false }
    }

    async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                let head = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(head).map_err(io::Error::other);
            }
            fill(&mut self.from, &mut self.read).await?;
        }
    }

    async fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            fill(&mut self.from, &mut self.read).await?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    /// An answer; one that does not tell its length ends with the connection.
    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        let head = self.head().await?;
        let closes = header(&head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        self.is_closed = closes;
        let mut answer = head.clone().into_bytes();
        match header(&head, "content-length") {
            Some(length) => answer.extend(self.body(length.parse().unwrap()).await?),
            None if head.starts_with("HTTP/1.1 101") => {}
            None => {
                self.is_closed = true;
                answer.append(&mut self.read);
                self.from.read_to_end(&mut answer).await?;
            }
        }
        Ok(answer)
    }
}

async fn fill(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> io::Result<()> {
    match from.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The length of the first frame, and its text where it is one.
fn parse(bytes: &[u8]) -> Option<(usize, Option<String>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize, 10),
        length => (length as usize, 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + length)?;
    let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let text = (first == 0x81).then(|| String::from_utf8(unmasked.collect()).unwrap());
    Some((at + length, text))
}
