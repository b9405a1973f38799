use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use synclayer_core::testing::SimulatedDisk;
use synclayer_core::{
    Collection, Document, Limits, MemoryClientStore, RecordId, Status, StoreErrorKind, Token, Write,
};

use super::*;
use crate::config::{Store, SyncConfig, Transports};
use crate::error::SyncError;
use crate::listen::UpdateSlot;
use crate::mailbox::{self, mailbox};
use crate::network::BlockingTask;
use crate::pending::Pending;
use crate::saved::Saved;
use crate::wait::Wait;

/// A network without a wire, on which every job is dropped.
struct Nowhere;

impl Network for Nowhere {
    fn connect(&mut self, _: u64, _: ConnId, _: Option<&Token>) {}
    fn send(&mut self, _: ConnId, _: Bytes) {}
    fn ping(&mut self, _: ConnId) {}
    fn close(&mut self, _: ConnId) {}
    fn close_all(&mut self) {}
    fn run(&mut self, _: BlockingTask) {}

    fn wait(
        &mut self,
        _: &Receiver<EngineCommand>,
        _: Option<Duration>,
    ) -> io::Result<Option<EngineCommand>> {
        Ok(None)
    }

    fn next(&mut self, commands: &Receiver<EngineCommand>) -> Option<EngineCommand> {
        commands.try_recv().ok()
    }
}

/// An engine of the collection `todos`, with its commands.
struct Bench {
    engine: Engine,
    inbox: Inbox,
    commands: Receiver<EngineCommand>,
}

impl Bench {
    fn open(config: SyncConfig) -> Self {
        let setup = Setup::new(config.collections(["todos"])).unwrap();
        let (inbox, commands) = Inbox::new(|| {});
        let engine = Engine::open(setup, Box::new(Nowhere), inbox.clone()).unwrap();
        Self { engine, inbox, commands }
    }

    /// A client that stays offline, on a store that this opens.
    fn open_on(open: impl Fn() -> MemoryClientStore + Send + 'static) -> Self {
        let store = Store::opened_by(move |_| Ok(Box::new(open())));
        Self::open(SyncConfig::new("http://localhost").connect_at_start(false).store(store))
    }

    fn turn(&mut self) {
        self.engine.take_turn(None, &self.commands);
        self.engine.end_turn();
    }

    fn save(&mut self, id: &str) -> Pending<Saved> {
        let pending = self.ask_for_save(id);
        self.turn();
        pending
    }

    fn ask_for_save(&self, id: &str) -> Pending<Saved> {
        let document =
            Document::parse(&format!("{{\"id\":\"{id}\"}}"), &Limits::default()).unwrap();
        let id = RecordId::new(id).unwrap();
        let write = Write::Save(todos(), id.clone(), document);
        self.inbox.ask(|reply| EngineCommand::Write { id, write, reply })
    }

    fn committed(&self) -> u64 {
        self.engine.replica.as_ref().map_or(0, |replica| replica.durable().0)
    }
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

fn poll(future: &mut (impl Future + Unpin)) -> Poll<()> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context).map(drop)
}

#[test]
fn a_request_that_is_never_made_is_answered_all_the_same() {
    let config = SyncConfig::new("http://localhost").transports(Transports::PollOnly);
    let mut bench = Bench::open(config);
    assert_eq!(bench.engine.requests.running(), 1, "the hello");
    bench.turn();
    assert_eq!(bench.engine.requests.running(), 0);
    let status = bench.engine.status().unwrap();
    assert_eq!(status.ignored_frames, 0, "the machine waited for it");
}

#[test]
fn writes_that_nobody_waits_for_are_followed_no_longer() {
    let mut bench = Bench::open_on(MemoryClientStore::default);
    let mut kept = bench.save("kept").wait().unwrap().confirmed();
    for n in 0..5_000 {
        drop(bench.save(&format!("r{n}")));
    }
    assert!(bench.engine.fates.len() <= 1_024, "{}", bench.engine.fates.len());
    assert!(poll(&mut kept).is_pending());
    drop(bench);
    assert_eq!(kept.wait(), Err(SyncError::Closed));
}

#[test]
fn a_store_that_fails_leaves_nobody_waiting() {
    let full = || StoreError::new(StoreErrorKind::Full, "there is no space left");
    let mut bench = Bench::open_on(move || {
        let mut store = MemoryClientStore::default();
        store.fail_commit(3, full());
        store
    });
    let first = bench.save("a").wait().unwrap();
    assert_eq!(bench.save("b").wait().map(drop), Err(full().into()));
    bench.inbox.put(EngineCommand::Durable);
    bench.turn();
    assert_eq!(first.confirmed().wait(), Err(full().into()));
}

#[test]
fn saves_that_wait_in_the_inbox_share_a_commit() {
    let mut bench = Bench::open_on(MemoryClientStore::default);
    let before = bench.committed();
    let saves: Vec<_> = (0..100).map(|n| bench.ask_for_save(&format!("r{n}"))).collect();
    bench.turn();
    assert_eq!(bench.committed(), before + 1);
    let writes: Vec<_> = saves.into_iter().map(|save| save.wait().unwrap().write).collect();
    assert!(writes.is_sorted() && writes.iter().all(Option::is_some), "{writes:?}");
}

#[test]
fn each_save_of_a_commit_that_fails_hears_of_it() {
    let full = || StoreError::new(StoreErrorKind::Full, "there is no space left");
    let mut bench = Bench::open_on(move || {
        let mut store = MemoryClientStore::default();
        store.fail_commit(2, full());
        store
    });
    let saves: Vec<_> = (0..3).map(|n| bench.ask_for_save(&format!("r{n}"))).collect();
    bench.turn();
    for save in saves {
        assert_eq!(save.wait().map(drop), Err(full().into()));
    }
}

#[test]
fn a_watcher_whose_reader_has_gone_is_forgotten() {
    let mut bench = Bench::open_on(MemoryClientStore::default);
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let (updates, receiver) = mailbox(UpdateSlot::default());
            let (collection, record) = (todos(), None);
            bench.inbox.put(EngineCommand::Watch { collection, record, updates });
            receiver
        })
        .collect();
    bench.turn();
    assert_eq!(bench.engine.watchers.len(), 3);
    drop(receivers);
    bench.inbox.put(EngineCommand::DismissWatchers);
    bench.turn();
    assert_eq!(bench.engine.watchers.len(), 0);
}

#[test]
fn a_status_is_shown_to_whom_it_is_news() {
    let mut bench = Bench::open_on(MemoryClientStore::default);
    let watch = |bench: &Bench| {
        let (watcher, statuses) = mailbox(None);
        bench.inbox.put(EngineCommand::WatchStatus(watcher));
        statuses
    };
    let waiting = |statuses: &mailbox::Receiver<Option<Status>>| match statuses
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(status) => status.map(|status| status.pending_writes),
        Poll::Pending => None,
    };
    let early = watch(&bench);
    bench.turn();
    assert_eq!(waiting(&early), Some(0), "as it is now");
    bench.turn();
    assert_eq!(waiting(&early), None, "nothing has changed");
    bench.save("a").wait().unwrap();
    bench.save("b").wait().unwrap();
    let late = watch(&bench);
    bench.turn();
    assert_eq!([&early, &late].map(waiting), [Some(2), Some(2)], "the latest");
    bench.turn();
    assert_eq!([&early, &late].map(waiting), [None, None]);
    drop(early);
    bench.save("c").wait().unwrap();
    assert_eq!(waiting(&late), Some(3));
    assert_eq!(bench.engine.statuses.len(), 1);
    drop(late);
    bench.turn();
    assert_eq!(bench.engine.statuses.len(), 0, "it is not read any more");
}
