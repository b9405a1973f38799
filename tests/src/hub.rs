//! A server in one value: sessions, rows, rings, and everything that is under way between them. A
//! clone goes on by itself.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synclayer_core::memory::MemoryRows;
use synclayer_core::rules::page::ReadAnswer;
use synclayer_core::rules::policy::{AllowAll, Policy};
use synclayer_core::rules::record::verify;
use synclayer_core::rules::transaction::{
    Answer, Context, Decided, Sweep, SweepPlace, TransactError, Transaction, decide_all,
};
use synclayer_core::server::http::{Call, HttpConfig, Reply, Request, call};
use synclayer_core::server::ring::{RingLimits, Rings};
use synclayer_core::server::session::{
    Action, AuthTicket, Identity, Input, Lent, ReadTicket, Session, SessionConfig, TransactTicket,
};
use synclayer_core::words::limits::Limits;
use synclayer_core::words::message::Level;
use synclayer_core::words::name::{ConnId, DatabaseId, Epoch, UserId};
use synclayer_core::words::store::StoreError;
use synclayer_core::words::time::Now;

/// A server whose every step is somebody else's choice.
pub struct Hub {
    /// What is committed.
    pub rows: MemoryRows,
    /// The recent changes.
    pub rings: Rings,
    /// The connections.
    pub lines: BTreeMap<ConnId, Line>,
    /// Transactions that wait for the disk.
    pub transactions: VecDeque<TransactTicket>,
    /// Pages that wait to be read.
    pub reads: VecDeque<ReadTicket>,
    /// Answers that their sessions have not heard.
    pub answers: VecDeque<Told>,
    /// Who may do what: at first, everyone everything.
    pub policy: Arc<dyn Policy>,
    config: Arc<SessionConfig>,
    ring: RingLimits,
    openings: u64,
}

/// The server's end of one connection.
#[derive(Clone)]
pub struct Line {
    /// Its session.
    pub session: Session,
    /// What it has said and the network has not taken.
    pub down: VecDeque<Bytes>,
}

/// An answer on its way to a session.
pub enum Told {
    /// Whose token it is.
    Who(AuthTicket, Option<UserId>),
    /// What became of a transaction.
    Transacted(TransactTicket, Result<Answer, TransactError>),
    /// What was read.
    Read(ReadTicket, Result<ReadAnswer, StoreError>),
}

impl Told {
    /// The connection that it is for.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        match self {
            Self::Who(ticket, _) => ticket.conn(),
            Self::Transacted(ticket, _) => ticket.conn(),
            Self::Read(ticket, _) => ticket.conn(),
        }
    }

    fn into_input(self) -> Input<'static> {
        match self {
            Self::Who(ticket, user) => ticket.answer(user),
            Self::Transacted(ticket, result) => ticket.answer(result),
            Self::Read(ticket, result) => ticket.answer(result),
        }
    }
}

impl Clone for Told {
    fn clone(&self) -> Self {
        match self {
            Self::Who(ticket, user) => Self::Who(ticket.twin(), user.clone()),
            Self::Transacted(ticket, result) => Self::Transacted(ticket.twin(), result.clone()),
            Self::Read(ticket, result) => Self::Read(ticket.twin(), result.clone()),
        }
    }
}

impl Clone for Hub {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            rings: self.rings.clone(),
            lines: self.lines.clone(),
            transactions: self.transactions.iter().map(TransactTicket::twin).collect(),
            reads: self.reads.iter().map(ReadTicket::twin).collect(),
            answers: self.answers.clone(),
            policy: self.policy.clone(),
            config: self.config.clone(),
            ring: self.ring,
            openings: self.openings,
        }
    }
}

impl Hub {
    /// A server without a record, in its first epoch.
    #[must_use]
    pub fn new(config: SessionConfig, ring: RingLimits, now: Now) -> Self {
        let mut hub = Self {
            rows: MemoryRows::new(),
            rings: Rings::new(ring),
            lines: BTreeMap::new(),
            transactions: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            policy: Arc::new(AllowAll),
            config: Arc::new(config),
            ring,
            openings: 0,
        };
        hub.begin(now).expect("sound rows");
        hub
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
        *self = Self {
            rows,
            rings: Rings::new(self.ring),
            lines: BTreeMap::new(),
            transactions: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            policy: self.policy.clone(),
            config: self.config.clone(),
            ring: self.ring,
            openings: self.openings + 1,
        };
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

    /// Removes what is older than the retention, `budget` rows at a time.
    pub fn sweep(&mut self, retention: Duration, budget: usize, now: Now) {
        let mut next = Some(SweepPlace::Start);
        while let Some(from) = next {
            let sweep = Transaction::Sweep(Sweep { retention, from, budget });
            let mut decided = self.decide([&sweep], now);
            self.rows.apply(decided.batch);
            next = match decided.answers.pop() {
                Some(Ok(Answer::Swept(swept))) => swept.next,
                Some(_) | None => None,
            };
        }
    }

    fn begin(&mut self, now: Now) -> Result<(), StoreError> {
        // only the first one counts
        let database = DatabaseId::new(&format!("d{}", self.openings)).expect("a valid name");
        let begin = Transaction::BeginEpoch { epoch: self.epoch(), database };
        let mut decided = self.decide([&begin], now);
        decided.answers.pop().transpose()?;
        self.rows.apply(decided.batch);
        for (collection, head) in verify(&self.rows)?.collections {
            self.rings.note_head(&collection, head.seq);
        }
        Ok(())
    }

    fn decide<'a>(
        &self,
        transactions: impl IntoIterator<Item = &'a Transaction>,
        now: Now,
    ) -> Decided {
        let limits = Limits::default();
        let context = Context { policy: &*self.policy, limits: &limits, now: now.wall };
        decide_all(transactions, &self.rows, context)
    }

    /// A connection is accepted.
    pub fn accept(&mut self, conn: ConnId, identity: Identity, now: Now) {
        let session = Session::new(self.config.clone(), conn, identity, now);
        self.lines.insert(conn, Line { session, down: VecDeque::new() });
    }

    /// A connection is lost.
    pub fn drop_line(&mut self, conn: ConnId, now: Now) {
        self.tell(conn, Input::Closed, now);
        self.lines.remove(&conn);
    }

    /// A session gets an input. What it then says waits on its line.
    pub fn tell(&mut self, conn: ConnId, input: Input<'_>, now: Now) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        let mut actions = Vec::new();
        let mut lent = Lent { rings: &self.rings, policy: &*self.policy, user_bucket: None };
        line.session.handle(now, input, &mut lent, &mut actions);
        line.session.check();
        for action in actions {
            match action {
                Action::Send(frame) => line.down.push_back(frame),
                Action::Follow(_) | Action::Unfollow(_) | Action::Close { .. } => {}
                Action::Authenticate(ticket) => {
                    let user = UserId::new(ticket.token().reveal()).ok();
                    self.answers.push_back(Told::Who(ticket, user));
                }
                Action::Transact(ticket) => self.transactions.push_back(ticket),
                Action::Read(ticket) => self.reads.push_back(ticket),
            }
        }
    }

    /// Whether a session has said its last word, and the network has taken it.
    #[must_use]
    pub fn has_hung_up(&self, conn: ConnId) -> bool {
        let done = |line: &Line| line.session.status().closed && line.down.is_empty();
        self.lines.get(&conn).is_none_or(done)
    }

    /// Whether nothing is under way for a connection.
    #[must_use]
    pub fn is_idle(&self, conn: ConnId) -> bool {
        let queued = |line: &Line| line.session.status().queued > 0;
        !self.lines.get(&conn).is_some_and(queued)
            && self.transactions.iter().all(|ticket| ticket.conn() != conn)
            && self.reads.iter().all(|ticket| ticket.conn() != conn)
            && self.answers.iter().all(|told| told.conn() != conn)
    }

    /// Everything that waits for the disk is committed together.
    pub fn commit(&mut self, now: Now) {
        let tickets: Vec<_> = self.transactions.drain(..).collect();
        let decided = self.decide(tickets.iter().map(TransactTicket::transaction), now);
        self.rows.apply(decided.batch);
        decided.published.iter().for_each(|change| self.rings.publish(change));
        for (ticket, answer) in tickets.into_iter().zip(decided.answers) {
            self.answers.push_back(Told::Transacted(ticket, answer.map_err(TransactError::Failed)));
        }
    }

    /// The oldest page is read.
    pub fn read(&mut self) {
        let Some(ticket) = self.reads.pop_front() else { return };
        let answer = ticket.request().run(&self.rows, &*self.policy);
        self.answers.push_back(Told::Read(ticket, answer));
    }

    /// A session hears an answer.
    pub fn answer(&mut self, index: usize, now: Now) {
        if let Some(told) = self.answers.remove(index) {
            self.tell(told.conn(), told.into_input(), now);
        }
    }

    /// The sessions that have something to send.
    #[must_use]
    pub fn pumpable(&self) -> Vec<ConnId> {
        let wants = |line: &Line| line.session.wants_pump(&self.rings);
        self.lines.iter().filter(|(_, line)| wants(line)).map(|(conn, _)| *conn).collect()
    }

    /// A socket has room.
    pub fn pump(&mut self, conn: ConnId, room: usize, now: Now) {
        self.tell(conn, Input::Pump { room }, now);
    }

    /// Answers a call by HTTP at once.
    #[must_use]
    pub fn ask(&mut self, request: &Request<'_>, now: Now) -> Reply {
        let config = HttpConfig::default();
        match call(request, &config, &*self.policy) {
            Call::Immediate(reply) => reply,
            Call::Transact(write) => {
                let mut decided = self.decide([write.transaction()], now);
                self.rows.apply(decided.batch);
                decided.published.iter().for_each(|change| self.rings.publish(change));
                let answer = decided.answers.pop().expect("an answer for each transaction");
                write.reply(now.wall, &config, answer.map_err(TransactError::Failed))
            }
            Call::Read(read) => {
                let answer = read.request().run(&self.rows, &*self.policy);
                read.reply(answer)
            }
        }
    }

    /// Does all that the server can do by itself.
    pub fn settle(&mut self, now: Now) {
        loop {
            if !self.transactions.is_empty() {
                self.commit(now);
            }
            while !self.reads.is_empty() {
                self.read();
            }
            while !self.answers.is_empty() {
                self.answer(0, now);
            }
            let ready = self.pumpable();
            ready.iter().for_each(|conn| self.pump(*conn, 1 << 16, now));
            let idle = self.transactions.is_empty() && self.reads.is_empty();
            if ready.is_empty() && idle {
                return;
            }
        }
    }

    /// Hashes everything that what comes depends on.
    pub fn hash_into(&self, state: &mut impl Hasher) {
        for (key, value) in self.rows.iter() {
            (key, value).hash(state);
        }
        for (conn, line) in &self.lines {
            (conn, line.session.digest(), &line.down).hash(state);
        }
        // the order among what waits is part of the state
        let waits = |ticket: &TransactTicket| format!("{:?}", ticket.transaction());
        for ticket in &self.transactions {
            (ticket.conn(), waits(ticket)).hash(state);
        }
        for ticket in &self.reads {
            (ticket.conn(), format!("{:?}", ticket.request())).hash(state);
        }
        for told in &self.answers {
            match told {
                Told::Who(ticket, user) => (ticket.conn(), user).hash(state),
                Told::Transacted(ticket, result) => {
                    (ticket.conn(), waits(ticket), format!("{result:?}")).hash(state);
                }
                Told::Read(ticket, result) => (ticket.conn(), format!("{result:?}")).hash(state),
            }
        }
        let (todos, mut seq) = (crate::world::todos(), self.rings.head(&crate::world::todos()));
        let ring = self.rings.get(&todos);
        while let Some(entry) = ring.and_then(|ring| ring.entry(seq)) {
            entry.frame(Level::Resumable).hash(state);
            seq.0 -= 1;
        }
        (seq, self.openings).hash(state);
    }
}
