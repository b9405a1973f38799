//! The example of a server in a program's own loop serves replicas over real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../examples/server.rs"]
#[allow(unreachable_pub)]
mod server;

use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use server::{Server, Socket, now};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, ConnId, Disconnect, Document, Input, Limits,
    MemoryClientStore, NetAction, RecordId, Replica, Write,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A replica and its socket.
struct Client {
    replica: Replica<MemoryClientStore>,
    actions: Vec<Action>,
    server: SocketAddr,
    socket: Option<(ConnId, Socket)>,
    connections: usize,
    started: Instant,
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

impl Client {
    fn open(server: SocketAddr, seed: u128) -> Self {
        let (started, mut actions) = (Instant::now(), Vec::new());
        let mut config = ClientConfig::default();
        config.collections = vec![todos()];
        config.reconnect_delay = Duration::from_millis(1);
        let store = MemoryClientStore::default();
        let mut replica = Replica::open(config, seed, now(started), store, &mut actions).unwrap();
        replica.command(now(started), Command::Connect, &mut actions);
        Self { replica, actions, server, socket: None, connections: 0, started }
    }

    fn save(&mut self, id: &str, json: &str) {
        let (id, now) = (RecordId::new(id).unwrap(), now(self.started));
        let document = Document::parse(json, &Limits::default()).unwrap();
        self.replica.write(now, Write::Save(todos(), id, document), &mut self.actions).unwrap();
    }

    fn shows(&self, id: &str) -> Option<String> {
        let record = self.replica.get(&todos(), &RecordId::new(id).unwrap()).unwrap();
        record.map(|record| record.document.to_string())
    }

    fn turn(&mut self) {
        let now = now(self.started);
        if self.replica.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.replica.handle(now, Input::Timeout, &mut self.actions);
        }
        if let Some((conn, mut socket)) = self.socket.take() {
            while let Some(frame) = socket.receive() {
                let input = Input::Frame { conn, frame: &frame };
                self.replica.handle(now, input, &mut self.actions);
            }
            if socket.has_ended() {
                let why = Disconnect::Lost("it ended".into());
                let input = Input::Disconnected { conn, why };
                self.replica.handle(now, input, &mut self.actions);
            } else {
                self.socket = Some((conn, socket));
            }
        }
        while !self.actions.is_empty() {
            mem::take(&mut self.actions).into_iter().for_each(|action| self.carry_out(action));
        }
        if let Some((_, socket)) = &mut self.socket {
            socket.flush();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Net(NetAction::Connect { conn, .. }) => {
                let stream = TcpStream::connect(self.server).unwrap();
                self.socket = Some((conn, Socket::new(stream).unwrap()));
                self.connections += 1;
                let now = now(self.started);
                self.replica.handle(now, Input::Connected { conn }, &mut self.actions);
            }
            Action::Net(NetAction::Send { conn, frame }) => {
                if let Some((_, socket)) = self.socket.as_mut().filter(|(open, _)| *open == conn) {
                    socket.send(&frame);
                }
            }
            Action::Net(NetAction::Close { conn }) => {
                self.socket.take_if(|(open, _)| *open == conn);
            }
            Action::Halted(error) => panic!("{error:?}"),
            Action::Net(NetAction::Ping { .. } | NetAction::Request(_))
            | Action::Event(_)
            | Action::Synced { .. }
            | Action::Durable(_)
            | Action::Fate { .. }
            | Action::Watch(_) => {}
        }
    }
}

/// Gives everyone their turns until something is so.
fn turn_until(
    server: &mut Server,
    clients: &mut [Client; 2],
    what: &str,
    is_so: impl Fn(&[Client; 2]) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(clients) {
        assert!(Instant::now() < deadline, "{what}");
        clients.iter_mut().for_each(Client::turn);
        if !server.turn().unwrap() {
            thread::yield_now();
        }
    }
}

#[test]
fn replicas_meet_at_a_server_in_a_loop_of_its_own() {
    let mut server = Server::open("127.0.0.1:0".parse().unwrap(), "e1").unwrap();
    let address = server.local_addr().unwrap();
    let mut clients = [1, 2].map(|seed| Client::open(address, seed));
    let settled = |clients: &[Client; 2]| {
        clients.iter().all(|client| client.replica.status().pending_writes == 0)
    };

    clients[0].save("milk", r#"{"text":"Buy milk"}"#);
    turn_until(&mut server, &mut clients, "the other one sees it", |clients| {
        settled(clients) && clients[1].shows("milk").is_some()
    });

    // a cut: what was written meanwhile comes after it, in both directions
    clients[0].socket.as_mut().unwrap().1.close();
    clients[0].save("milk", r#"{"text":"Drink it"}"#);
    clients[1].save("tea", r#"{"text":"Brew tea"}"#);
    turn_until(&mut server, &mut clients, "both see both", |clients| {
        let has = |client: &Client| {
            client.shows("milk").is_some_and(|text| text.contains("Drink"))
                && client.shows("tea").is_some()
        };
        settled(clients) && clients.iter().all(has)
    });
    assert!(clients[0].connections > 1, "it came back on another connection");
}

#[test]
fn many_writes_of_two_replicas_reach_both() {
    let mut server = Server::open("127.0.0.1:0".parse().unwrap(), "e1").unwrap();
    let address = server.local_addr().unwrap();
    let mut clients = [1, 2].map(|seed| Client::open(address, seed));
    for n in 0..200 {
        clients[n % 2].save(&format!("r{n}"), r#"{"n":1}"#);
    }
    turn_until(&mut server, &mut clients, "all see all", |clients| {
        let all = |client: &Client| (0..200).all(|n| client.shows(&format!("r{n}")).is_some());
        clients.iter().all(all)
    });
}
