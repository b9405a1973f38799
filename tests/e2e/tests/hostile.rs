//! Clients at a server that means harm: whatever it sends, a client keeps little of it, and goes on
//! answering the app. The tests take turns, since they count what the whole process holds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use synclayer_core::Status;
use tokio::runtime::Runtime;
use tungstenite::handshake::derive_accept_key;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::new(());

/// The most that a client may hold.
const MOST: usize = 64 << 20;
/// The end of an attack, by what was sent or by the time.
const ENOUGH_BYTES: u64 = 150 << 20;
const ENOUGH_TIME: Duration = Duration::from_secs(1);
/// The time limit for a call of the app's meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that upgrades a connection or not, and then sends the same bytes for as long as they are
/// taken. It never reads again.
struct Hostile {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Attack {
    name: &'static str,
    by_http: bool,
    /// Sent once, and then over and over.
    first: Vec<u8>,
    then: Vec<u8>,
}

impl Hostile {
    fn start(attack: Attack) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut under_way = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::yield_now();
                    continue;
                };
                let (attack, ends, counts) =
                    (attack.clone(), Arc::clone(&ends), Arc::clone(&counts));
                // a client that has gone is what the attack met
                under_way.push(thread::spawn(move || {
                    let _ = run(&stream, &attack, &ends, &counts);
                }));
            }
            for attack in under_way {
                attack.join().unwrap();
            }
        });
        Self { address, over, sent, thread: Some(thread) }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn run(
    mut stream: &TcpStream,
    attack: &Attack,
    over: &AtomicBool,
    sent: &AtomicU64,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    let mut request = Vec::new();
    while !request.windows(4).any(|part| part == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&bytes[..length]);
    }
    if !attack.by_http {
        let request = String::from_utf8_lossy(&request).into_owned();
        let key = request.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        });
        let Some(key) = key else { return Ok(()) };
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
    }
    let mut part = &attack.first[..];
    while !over.load(Ordering::Relaxed) {
        if part.is_empty() {
            part = &attack.then;
        }
        match stream.write(part) {
            Ok(length) => {
                sent.fetch_add(length as u64, Ordering::Relaxed);
                part = &part[length..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A frame of a server's.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// Frames that a server may send, and never stop.
fn over_websocket() -> Vec<Attack> {
    let long = "x".repeat(3 << 20);
    let error = format!(r#"{{"type":"error","code":"E{long}","message":"M"}}"#);
    let words = format!(r#"{{"type":"error","code":"SERVER_ERROR","message":"{long}"}}"#);
    let of_collection =
        format!(r#"{{"type":"error","code":"X","collection":"todos","message":"{long}"}}"#);
    let small = r#"{"type":"error","code":"X","message":"m"}"#;
    let batch = format!(r#"{{"type":"batch","messages":[{}]}}"#, vec![small; 4096].join(","));
    let records = vec![r#"{"recordId":"a","data":{}}"#; 130_000].join(",");
    let page = format!(r#"{{"type":"sync","collection":"todos","data":[{records}]}}"#);
    let deep = format!("{}{}", "[".repeat(2 << 20), "]".repeat(2 << 20));
    let endless = {
        let mut header = vec![0x81, 127];
        header.extend((1u64 << 40).to_be_bytes());
        header
    };
    let ws = |name, first: Vec<u8>, then: Vec<u8>| Attack { name, by_http: false, first, then };
    let again = |name, frame: Vec<u8>| ws(name, Vec::new(), frame);
    vec![
        again("pings", frame(0x89, &[7; 125]).repeat(500)),
        again("pongs", frame(0x8a, &[7; 125]).repeat(500)),
        again("empty pongs", frame(0x8a, &[]).repeat(5_000)),
        again("small frames", text("{}").repeat(5_000)),
        again("unknown messages", text(r#"{"type":"x"}"#).repeat(2_000)),
        ws("a frame without an end", endless, vec![b'x'; 1 << 16]),
        again("frames of the longest length", frame(0x81, &[b'x'; 4 << 20])),
        ws("fragments without an end", frame(0x01, b"[\""), frame(0x00, &[b'x'; 1000]).repeat(99)),
        ws("empty fragments without an end", frame(0x01, b"["), frame(0x00, b"").repeat(30_000)),
        again("long errors", text(&words)),
        again("long codes", text(&error)),
        again("long errors of a collection", text(&of_collection)),
        again("batches", text(&batch)),
        again("pages of many records", text(&page)),
        again("deep nesting", text(&deep)),
    ]
}

/// Answers to a request that a server may begin, and never end.
fn by_http() -> Vec<Attack> {
    let http = |name, first: &str, then: Vec<u8>| Attack {
        name,
        by_http: true,
        first: first.as_bytes().to_vec(),
        then,
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend([b'x'; 0x10000]);
    chunk.extend(b"\r\n");
    vec![
        http("a body without an end", &format!("{head}\r\n"), vec![b'x'; 1 << 16]),
        http("chunks without an end", &format!("{head}Transfer-Encoding: chunked\r\n\r\n"), chunk),
        http("headers without an end", head, b"X-Header: some value\r\n".repeat(1000)),
        http("a header without an end", &format!("{head}X-Header: "), vec![b'x'; 1 << 16]),
        http("a status without an end", "HTTP/1.1 200 ", vec![b'x'; 1 << 16]),
        http("no HTTP", "", vec![b'x'; 1 << 16]),
        http("only interim answers", "", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)),
        http(
            "a chunk header without an end",
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
            vec![b'0'; 1 << 16],
        ),
    ]
}

/// A client of either kind, with a listener that reads no event.
trait Client {
    fn status(&self) -> Status;
    fn close(self: Box<Self>);
}

struct Blocking(synclayer_blocking::SyncLayer, #[allow(dead_code)] synclayer_blocking::Events);

impl Blocking {
    fn open(url: &str, by_http: bool) -> Box<dyn Client> {
        use synclayer_blocking::{SyncConfig, SyncLayer, Transports};
        let transports = if by_http { Transports::PollOnly } else { Transports::RealtimeOnly };
        let config = SyncConfig::new(url).collections(["todos"]).transports(transports);
        let sync = SyncLayer::open(config.reconnect_delay(Duration::from_millis(10))).unwrap();
        let events = sync.events();
        Box::new(Self(sync, events))
    }
}

impl Client for Blocking {
    fn status(&self) -> Status {
        self.0.status().unwrap()
    }

    fn close(self: Box<Self>) {
        self.0.close();
    }
}

struct Tokio(Runtime, synclayer_tokio::SyncLayer, #[allow(dead_code)] synclayer_tokio::Events);

impl Tokio {
    fn open(url: &str, by_http: bool) -> Box<dyn Client> {
        use synclayer_tokio::{SyncConfig, SyncLayer, Transports};
        let transports = if by_http { Transports::PollOnly } else { Transports::RealtimeOnly };
        let config = SyncConfig::new(url).collections(["todos"]).transports(transports);
        let runtime = Runtime::new().unwrap();
        let sync = runtime
            .block_on(SyncLayer::open(config.reconnect_delay(Duration::from_millis(10))))
            .unwrap();
        let events = sync.events();
        Box::new(Self(runtime, sync, events))
    }
}

impl Client for Tokio {
    fn status(&self) -> Status {
        self.0.block_on(self.1.status()).unwrap()
    }

    fn close(self: Box<Self>) {
        self.0.block_on(self.1.close());
    }
}

/// Attacks a client. Returns what is wrong with its memory or its answers, if anything is.
fn attack(open: fn(&str, bool) -> Box<dyn Client>, attack: Attack) -> Option<String> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (name, by_http) = (attack.name, attack.by_http);
    let server = Hostile::start(attack);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let client = open(&format!("http://{}", server.address), by_http);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    let is_enough = || server.sent.load(Ordering::Relaxed) >= ENOUGH_BYTES;
    while !is_enough() && began.elapsed() < ENOUGH_TIME {
        let asked = Instant::now();
        client.status();
        slowest = slowest.max(asked.elapsed());
        thread::yield_now();
    }
    let held = HEAP.peak_usage().saturating_sub(before);
    let sent = server.sent.load(Ordering::Relaxed);
    drop(server);
    client.close();
    println!("{name}: {} MiB sent, {} KiB held, {slowest:?}", sent >> 20, held >> 10);
    assert!(sent > 0, "{name}: nothing was sent");
    if held > MOST {
        return Some(format!("{name}: {} MiB are held", held >> 20));
    }
    (slowest > PATIENCE).then(|| format!("{name}: a call took {slowest:?}"))
}

fn all(open: fn(&str, bool) -> Box<dyn Client>, attacks: Vec<Attack>) {
    let failures: Vec<_> = attacks.into_iter().filter_map(|of| attack(open, of)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_hostile_server_fills_no_memory_of_the_tokio_client() {
    all(Tokio::open, over_websocket());
}

#[test]
fn a_hostile_server_fills_no_memory_of_the_blocking_client() {
    all(Blocking::open, over_websocket());
}

#[test]
fn hostile_answers_by_http_fill_no_memory_of_either_client() {
    all(Tokio::open, by_http());
    all(Blocking::open, by_http());
}
