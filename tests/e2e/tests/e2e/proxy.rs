//! A way to the server that counts what goes over it, and breaks where a test wants it to.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{messages, soon};

/// Where the server is; while there is none, connections wait for it.
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

/// A text frame that came to the proxy.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which connection of the proxy's it belongs to, counted from 0.
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

type Rule = Box<dyn FnMut(&Frame) -> Fate + Send>;

#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    road: Arc<Road>,
}

struct Road {
    target: Target,
    rule: Mutex<Rule>,
    /// Counts the rules: those who hold a frame ask again.
    rules: watch::Sender<u64>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    passed: watch::Sender<Vec<Frame>>,
}

impl Proxy {
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let road = Arc::new(Road {
            target,
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            rules: watch::channel(0).0,
            cuts: watch::channel(0).0,
            passed: watch::channel(Vec::new()).0,
        });
        let shared = Arc::clone(&road);
        tokio::spawn(async move {
            for conn in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&shared).carry(conn, client));
            }
        });
        Self { address, road }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the rule for each frame from now on.
    pub fn rule(&self, rule: impl FnMut(&Frame) -> Fate + Send + 'static) {
        *self.road.rule.lock().unwrap() = Box::new(rule);
        self.road.rules.send_modify(|rules| *rules += 1);
    }

    /// Everything passes again.
    pub fn free(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// Breaks the connections that there are.
    pub fn cut(&self) {
        self.road.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The frames that have passed since they were last taken.
    pub fn take(&self) -> Vec<Frame> {
        self.road.passed.send_replace(Vec::new())
    }

    /// The frames that have passed since they were last taken.
    pub fn passed(&self) -> Vec<Frame> {
        self.road.passed.borrow().clone()
    }

    /// Waits until the frames that have passed are as wanted.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&[Frame]) -> bool) {
        let mut passed = self.road.passed.subscribe();
        soon(what, passed.wait_for(|frames| wanted(frames))).await.unwrap();
    }
}

impl Road {
    async fn carry(self: Arc<Self>, conn: usize, client: TcpStream) {
        let mut cut = self.cuts.subscribe();
        let (mut target, mut rules) = (self.target.0.subscribe(), self.rules.subscribe());
        let address = tokio::select! {
            address = target.wait_for(Option::is_some) => address.unwrap().unwrap(),
            _ = cut.changed() => return,
        };
        // a server that has gone by now is one that can't be reached
        let Ok(server) = TcpStream::connect(address).await else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let mut down_rules = rules.clone();
        tokio::select! {
            _ = self.pump(conn, true, from_client, to_server, &mut rules) => {}
            _ = self.pump(conn, false, from_server, to_client, &mut down_rules) => {}
            _ = cut.changed() => {}
        }
    }

    /// Carries the handshake, and then frame by frame what the rule lets through.
    async fn pump(
        &self,
        conn: usize,
        up: bool,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        rules: &mut watch::Receiver<u64>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            fill(&mut from, &mut buffer).await?;
        };
        to.write_all(&buffer[..head]).await?;
        buffer.drain(..head);
        loop {
            let Some((bytes, text)) = parse(&buffer) else {
                fill(&mut from, &mut buffer).await?;
                continue;
            };
            let mut fate = Fate::Pass;
            if let Some(text) = text {
                let frame = Frame { conn, up, bytes, text };
                fate = self.ask(&frame, rules).await;
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
            let fate = (self.rule.lock().unwrap())(frame);
            if fate != Fate::Hold {
                return fate;
            }
            rules.changed().await.unwrap();
        }
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
