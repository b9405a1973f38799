//! The example for programs with an event loop of their own works against a real server.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../core/examples/client.rs"]
#[allow(unreachable_pub)]
mod client;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use client::Client;
use synclayer_core::Snapshot;
use synclayer_server::{MemoryServerStore, Server, ServerConfig};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_one_writes_the_other_sees_also_after_a_cut() {
    let (server, _stop) = serve();
    let road = Road::to(server);
    let mut one = Client::open(road.address, 1).unwrap();
    let mut other = Client::open(server, 2).unwrap();

    one.save(r#"{"text": "Buy milk"}"#).unwrap();
    let seen = turn_until([&mut other, &mut one], settled(1));
    assert_eq!(seen.iter().next().unwrap().document.get("text"), Some("\"Buy milk\""));

    road.cut();
    one.save(r#"{"text": "Drink it"}"#).unwrap();
    turn_until([&mut other, &mut one], settled(2));
    other.save(r#"{"text": "Buy more"}"#).unwrap();
    turn_until([&mut one, &mut other], settled(3));
    assert!(road.streams.lock().unwrap().len() > 2, "it came back on another connection");
}

fn settled(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.len() == count && !snapshot.pending() && !snapshot.from_cache()
}

/// Gives both their turns until the first shows what is wanted.
fn turn_until(clients: [&mut Client; 2], wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    let [first, second] = clients;
    let mut last = None;
    while Instant::now() < deadline {
        second.turn(Duration::from_millis(5)).unwrap();
        if let Some(update) = first.turn(Duration::from_millis(5)).unwrap() {
            if wanted(&update.snapshot) {
                return update.snapshot;
            }
            last = Some(update);
        }
    }
    panic!("no such update; the last one was {last:?}");
}

/// A server that ends when the sender is dropped.
fn serve() -> (SocketAddr, Sender<()>) {
    let (told, address) = channel();
    let (stop, stopped) = channel::<()>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(MemoryServerStore::new());
        let server = runtime.block_on(Server::bind(ServerConfig::default(), store)).unwrap();
        told.send(server.local_addr()).unwrap();
        let _ = stopped.recv();
    });
    (address.recv_timeout(PATIENCE).unwrap(), stop)
}

/// A way to a server that can be cut.
struct Road {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Road {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&streams);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let ends = [&client, &server, &server, &client].map(|end| end.try_clone().unwrap());
                let [from, to, back_from, back_to] = ends;
                held.lock().unwrap().extend([client, server]);
                thread::spawn(move || pass(from, to));
                thread::spawn(move || pass(back_from, back_to));
            }
        });
        Self { address, streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to).and_then(|_| to.flush());
    let _ = to.shutdown(std::net::Shutdown::Both);
}
