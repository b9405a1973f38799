//! The core's server with rows in memory and sockets that are queues. A clone goes on by itself.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synclayer_core::rules::verify;
use synclayer_core::testing::{Checked, InspectHub};
use synclayer_core::{
    AllowAll, CallId, ConnId, DatabaseId, Epoch, Hub, HubAction, HubConfig, HubInput, HubJob,
    Identity, JobBatch, MemoryRows, Now, Policy, Reply, Request, RingLimits, ServerLimits,
    SessionInput, StoreError, Sweep, SweepPlace, TransactError, Transaction, UserId,
};

/// A server whose every step is somebody else's choice.
#[derive(Clone)]
pub struct Host {
    /// The committed rows.
    pub rows: MemoryRows,
    /// The server itself.
    pub hub: Hub,
    /// Frames to each connection that the network has not taken yet.
    pub down: BTreeMap<ConnId, VecDeque<Bytes>>,
    /// The answers to calls by HTTP that nobody has taken.
    replies: BTreeMap<CallId, Reply>,
    policy: Arc<dyn Policy>,
    config: HubConfig,
    openings: u64,
    calls: u64,
}

impl Host {
    /// A server without a record, in its first epoch, where everyone may do everything.
    ///
    /// # Panics
    /// Never: no rows are sound.
    #[must_use]
    pub fn new(limits: ServerLimits, rings: RingLimits, now: Now) -> Self {
        // everything can happen between two turns
        let mut config = HubConfig::default();
        (config.limits, config.rings, config.turns) = (limits, rings, 1);
        let policy: Arc<dyn Policy> = Arc::new(AllowAll);
        let mut host = Self {
            rows: MemoryRows::default(),
            hub: Hub::new(config.clone(), Arc::clone(&policy), []),
            down: BTreeMap::new(),
            replies: BTreeMap::new(),
            policy,
            config,
            openings: 0,
            calls: 0,
        };
        host.begin(now).expect("sound rows");
        host
    }

    /// Sets who may do what, also after every start to come.
    pub fn set_policy(&mut self, policy: Arc<dyn Policy>) {
        self.policy = Arc::clone(&policy);
        self.hub.set_policy(policy);
    }

    /// The process dies and starts again: what was committed is there.
    ///
    /// # Panics
    /// When the rows are damaged.
    pub fn crash(&mut self, now: Now) {
        self.restart(self.rows.clone(), now).expect("sound rows");
    }

    /// The process dies, and starts again on rows that are perhaps older.
    ///
    /// # Errors
    /// When it finds that they are damaged.
    pub fn restart(&mut self, rows: MemoryRows, now: Now) -> Result<(), StoreError> {
        self.rows = rows;
        self.hub = Hub::new(self.config.clone(), Arc::clone(&self.policy), []);
        self.down.clear();
        self.replies.clear();
        self.openings += 1;
        self.begin(now)
    }

    /// The present epoch: another one after each start.
    ///
    /// # Panics
    /// Never: the name is valid.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(&format!("e{}", self.openings)).expect("a valid epoch")
    }

    fn begin(&mut self, now: Now) -> Result<(), StoreError> {
        // only the first one counts
        let database = DatabaseId::new(&format!("d{}", self.openings)).expect("a valid name");
        let begin = Transaction::BeginEpoch { epoch: self.epoch(), database };
        let decision = begin.decide(&self.rows, self.hub.context(now))?;
        self.rows.apply(decision.batch);
        let heads = verify(&self.rows)?.collections;
        self.hub.forget_changes(heads.into_iter().map(|(name, head)| (name, head.seq)));
        Ok(())
    }

    // --- connections ---

    /// A connection is accepted.
    pub fn accept(&mut self, conn: ConnId, identity: Identity, now: Now) {
        self.down.insert(conn, VecDeque::new());
        self.handle(HubInput::Accepted { conn, identity }, now);
    }

    /// A connection is lost.
    pub fn drop_line(&mut self, conn: ConnId, now: Now) {
        self.tell(conn, SessionInput::Closed, now);
        self.down.remove(&conn);
    }

    /// A session gets an input. What it then says waits on its line.
    pub fn tell(&mut self, conn: ConnId, input: SessionInput<'_>, now: Now) {
        self.handle(HubInput::Session { conn, input }, now);
        if let Some(session) = self.hub.session(conn) {
            session.check().expect("its invariants hold");
        }
    }

    /// A socket has room.
    pub fn pump(&mut self, conn: ConnId, room: usize, now: Now) {
        self.handle(HubInput::Room { conn, room }, now);
    }

    /// The sessions that have something to send.
    #[must_use]
    pub fn pumpable(&self) -> Vec<ConnId> {
        self.down.keys().copied().filter(|conn| self.hub.wants_room(*conn)).collect()
    }

    /// Returns true if a session has said its last word, and the network has taken it.
    #[must_use]
    pub fn has_hung_up(&self, conn: ConnId) -> bool {
        let closed = self.hub.session(conn).is_none_or(|session| session.status().closed);
        closed && self.down.get(&conn).is_none_or(VecDeque::is_empty)
    }

    // --- the store ---

    /// Everything that waits for the disk is committed together.
    pub fn commit(&mut self, now: Now) {
        let Some(mut batch) = self.hub.next_batch(usize::MAX) else { return };
        let rows = batch.decide(&self.rows, self.hub.context(now));
        self.rows.apply(rows);
        self.settle_batch(batch, Ok(()), now);
    }

    /// The disk fails to commit the first transaction that waits, if there is one.
    pub fn fail_commit(&mut self, error: TransactError, now: Now) -> bool {
        let batch = self.hub.next_transactions(1);
        batch.map(|batch| self.settle_batch(batch, Err(error), now)).is_some()
    }

    fn settle_batch(
        &mut self,
        batch: JobBatch<HubJob>,
        ended: Result<(), TransactError>,
        now: Now,
    ) {
        let mut out = Vec::new();
        self.hub.settle(now, batch, ended, &mut out);
        self.act(out);
    }

    /// The oldest page is read.
    pub fn read(&mut self) {
        let Some(read) = self.hub.take_read(0) else { return };
        let found = self.hub.run_read(&read, &self.rows);
        let mut out = Vec::new();
        self.hub.finish_read(read, found, &mut out);
        self.act(out);
    }

    /// The disk fails to read the oldest page.
    pub fn fail_read(&mut self, error: StoreError) {
        let Some(read) = self.hub.take_read(0) else { return };
        let mut out = Vec::new();
        self.hub.finish_read(read, Err(error), &mut out);
        self.act(out);
    }

    /// A session hears an answer.
    pub fn answer(&mut self, index: usize, now: Now) {
        let mut out = Vec::new();
        self.hub.answer(now, index, &mut out);
        self.act(out);
    }

    /// Removes what is older than the retention, `budget` rows at a time.
    pub fn sweep(&mut self, retention: Duration, budget: usize, now: Now) {
        self.handle(HubInput::Sweep(Sweep { retention, from: SweepPlace::Start, budget }), now);
        while self.hub.waiting_transactions().len() > 0 {
            self.commit(now);
        }
    }

    /// Answers a call by HTTP at once.
    ///
    /// # Panics
    /// When it has no answer.
    #[must_use]
    pub fn ask(&mut self, request: &Request<'_>, now: Now) -> Reply {
        self.calls += 1;
        let call = CallId(self.calls);
        self.handle(HubInput::Call { call, request: request.clone() }, now);
        while !self.replies.contains_key(&call)
            && self.hub.waiting_transactions().len() + self.hub.waiting_reads() > 0
        {
            self.commit(now);
            self.read();
        }
        self.replies.remove(&call).expect("an answer to each call")
    }

    /// Does all that the server can do by itself.
    pub fn settle(&mut self, now: Now) {
        loop {
            self.commit(now);
            while self.hub.waiting_reads() > 0 {
                self.read();
            }
            while self.hub.waiting_answers().len() > 0 {
                self.answer(0, now);
            }
            let ready = self.pumpable();
            ready.iter().for_each(|conn| self.pump(*conn, 1 << 16, now));
            let waiting = self.hub.waiting_transactions().len() + self.hub.waiting_reads();
            if ready.is_empty() && waiting == 0 {
                return;
            }
        }
    }

    fn handle(&mut self, input: HubInput<'_>, now: Now) {
        let mut out = Vec::new();
        self.hub.handle(now, input, &mut out);
        self.act(out);
    }

    fn act(&mut self, actions: Vec<HubAction>) {
        for action in actions {
            match action {
                HubAction::Send { conn, frame } => {
                    if let Some(down) = self.down.get_mut(&conn) {
                        down.push_back(frame);
                    }
                }
                HubAction::Authenticate(ticket) => {
                    let user = UserId::new(ticket.question().reveal()).ok();
                    self.hub.authenticated(ticket, user.map(Into::into));
                }
                HubAction::Reply { call, reply } => {
                    self.replies.insert(call, reply);
                }
                // whoever drives this one sees what waits, and who is closed
                HubAction::Close { .. }
                | HubAction::Commit
                | HubAction::Read
                | HubAction::Wake(_)
                | HubAction::Swept(_) => {}
            }
        }
    }

    /// Hashes everything that what comes depends on.
    pub fn hash_into(&self, state: &mut impl Hasher) {
        for (key, value) in self.rows.iter() {
            (key, value).hash(state);
        }
        (self.hub.digest(), &self.down, self.openings).hash(state);
    }
}
