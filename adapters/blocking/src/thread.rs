//! The client's own thread: it owns the engine, and sleeps until the socket, the program or the
//! clock has something for it.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::{Events, Poll, Token as Place, Waker};
use synclayer_client::engine::{Command, Parts};
use synclayer_client::error::OpenError;
use synclayer_client::setup::Setup;

use crate::elsewhere::Elsewhere;
use crate::wire::{Engine, Inbox, SOCKET, Wire};

/// How many commands, and how many frames, are handled before the watchers are told.
const RUN: usize = 256;
/// Where calls of the program are found among the poll's news.
const PROGRAM: Place = Place(0);

/// Starts the thread, and waits until its store is open.
pub(crate) fn start(setup: Setup) -> Result<(Inbox, JoinHandle<()>), OpenError> {
    let refuse = |error: io::Error| OpenError::Start(error.to_string());
    let poll = Poll::new().map_err(refuse)?;
    let waker = Waker::new(poll.registry(), PROGRAM).map_err(refuse)?;
    // a waker that fails has a thread that has ended, and that tells
    let (inbox, commands) = Inbox::new(move || drop(waker.wake()));
    let wire = Wire {
        address: Arc::new(setup.address.websocket),
        tls: setup.tls.config,
        frame_bytes: setup.client.limits.frame_bytes,
        registry: poll.registry().try_clone().map_err(refuse)?,
        inbox: inbox.clone(),
        elsewhere: Elsewhere::new(),
        line: None,
    };
    let parts = Parts {
        config: setup.client,
        connected: setup.connected,
        factory: setup.factory,
        http: setup.http,
        network: wire,
        inbox: inbox.clone(),
    };
    let (opening, opened) = sync_channel(1);
    let thread = Builder::new().name("synclayer".into()).spawn(move || {
        let (answer, engine) = match Engine::open(parts) {
            Ok(engine) => (Ok(()), Some(engine)),
            Err(error) => (Err(error), None),
        };
        // whoever opens a client waits for it
        let _ = opening.send(answer);
        if let Some(engine) = engine {
            run(engine, &commands, poll);
        }
    });
    let thread = thread.map_err(refuse)?;
    opened.recv().map_err(|_| OpenError::Start("its thread has died".into()))??;
    Ok((inbox, thread))
}

/// The loop, until the client is no longer wanted and what was saved is durable.
fn run(mut engine: Engine, commands: &Receiver<Command<Wire>>, mut poll: Poll) {
    let mut news = Events::with_capacity(8);
    let mut more = true;
    while !engine.is_done() {
        let patience = if more { Some(Duration::ZERO) } else { engine.patience() };
        if poll.poll(&mut news, patience).is_err_and(|error| error.kind() != ErrorKind::Interrupted)
        {
            break; // without it nothing can be heard, and the calls of the program end
        }
        if news.iter().any(|event| event.token() == SOCKET) {
            engine.network().wake();
        }
        more = take_commands(&mut engine, commands);
        more |= hear(&mut engine);
        engine.network().flush();
        engine.turn();
        engine.network().flush();
        more |= engine.network().is_ready();
    }
    let elsewhere = std::mem::replace(&mut engine.network().elsewhere, Elsewhere::new());
    drop(engine);
    elsewhere.close();
}

/// Takes what the program wants, and says whether there may be more of it.
fn take_commands(engine: &mut Engine, commands: &Receiver<Command<Wire>>) -> bool {
    let mut taken = 0;
    for command in commands.try_iter().take(RUN) {
        engine.take(command);
        taken += 1;
    }
    taken == RUN
}

/// Hears what the socket has to say, and says whether there may be more of it.
fn hear(engine: &mut Engine) -> bool {
    for _ in 0..RUN {
        let Some((life, conn, heard)) = engine.network().hear() else { return false };
        heard.tell(engine, life, conn);
    }
    true
}
