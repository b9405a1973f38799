//! One WebSocket: a session joined to its socket.

use std::future::poll_fn;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use synclayer_core::{
    Bucket, ConnId, Environment, Identity, Now, Session, SessionAction, SessionInput, Ticket,
    Token, User, UserId, pump,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep, timeout};

use crate::admission::{AdmittedRequest, ConnectionPermit};
use crate::auth::AuthError;
use crate::budget::{Account, FLOOR};
use crate::commit::{Job, SHARE};
use crate::fairness::Principal;
use crate::mailbox::{Mail, Mailbox};
use crate::refusals::Sender;
use crate::shared::{Caller, Known, Login, LoginError, Shared};
use crate::socket::{Received, Socket};
use crate::turns::SLICE;

/// The number of bytes that may wait for the socket before the session is asked for no more.
const ROOM_BYTES: usize = 256 << 10;
/// The code of a close after which it may be tried again.
const TRY_AGAIN_LATER: u16 = 1013;
/// The code of a close by which the server parts with a user.
const KICKED: u16 = 1008;
/// The reason of such a close where the authenticator did not answer.
const UNTOLD: &str = "nobody can tell now whose the token is";
/// When nothing is due.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of frames that are handed in before anything is sent and others have their turn.
const FRAMES: usize = 16;
/// The number of times that a session is pumped before its task looks at the socket again.
const PUMPS: usize = 16;

/// The bytes of a frame that are read before a token came.
const UNAUTHENTICATED_FRAME_BYTES: usize = 16 << 10;

/// The peer of a connection, as far as that is admitted.
pub(crate) struct Peer {
    pub(crate) permit: Arc<ConnectionPermit>,
    /// `None` until a token was good.
    pub(crate) admitted: Option<AdmittedRequest>,
    /// The address that it is counted by.
    pub(crate) address: Option<IpAddr>,
}

/// A token that is being looked at, and the answer.
type LoggingIn = Pin<Box<dyn Future<Output = (Ticket<Token>, Result<Known, LoginError>)> + Send>>;

/// A connection that was accepted.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    conn: ConnId,
    session: Session,
    mailbox: Arc<Mailbox>,
    socket: Socket<S>,
    actions: Vec<SessionAction>,
    /// Goes off at the deadline, or before it.
    alarm: Pin<Box<Sleep>>,
    /// When the token expires.
    expires: Option<Instant>,
    /// The token that let it in, until that has expired.
    login: Option<Login>,
    /// Nothing is read meanwhile, so that there is one at most.
    logging_in: Option<LoggingIn>,
    /// The rate of the user's connections together.
    bucket: Option<Arc<Mutex<Bucket>>>,
    peer: Peer,
    /// The principal that its transactions and reads are counted to.
    principal: Principal,
    /// The memory that its frames hold.
    account: Account,
    /// The bytes of the frames that were handed in since nothing waited to be served.
    unserved: usize,
    /// A transaction is under way.
    transacting: bool,
    closing: bool,
    /// When its task began to run; `None` while it waits.
    running: Option<Instant>,
}

/// The reason why a connection's task goes on.
enum Event {
    /// Something is in the mailbox, or in the rings.
    Woken,
    /// Everything that waited for the socket was written.
    Written,
    Received(Received),
    Deadline,
    /// The peer is gone.
    Gone,
    /// It has to make room for others.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        conn: ConnId,
        mailbox: Arc<Mailbox>,
        caller: Caller,
        peer: Peer,
        mut socket: Socket<S>,
    ) -> Self {
        let now = shared.clock.now();
        let (identity, expires, login) = match caller {
            Caller::Anyone => (Identity::Open, None, None),
            Caller::Known(known) => (Identity::Known(known.user), known.expires, Some(known.login)),
            Caller::Unknown => (Identity::Unknown, None, None),
        };
        if peer.admitted.is_none() {
            socket.set_limit(UNAUTHENTICATED_FRAME_BYTES);
        }
        let principal = match &identity {
            Identity::Known(user) => Principal::User(user.id.clone()),
            Identity::Open | Identity::Unknown => Principal::of_connection(conn, peer.address),
        };
        if peer.admitted.is_some() {
            peer.permit.meter().set_principal(&principal);
        }
        let account = shared.budget.open(&principal, Some(Arc::clone(&peer.permit)));
        Self {
            session: Session::new(Arc::clone(&shared.limits), conn, identity, now),
            shared,
            conn,
            mailbox,
            socket,
            actions: Vec::new(),
            alarm: Box::pin(sleep(NEVER)),
            expires,
            login,
            logging_in: None,
            bucket: None,
            peer,
            principal,
            account,
            unserved: 0,
            transacting: false,
            closing: false,
            running: None,
        }
    }

    /// Serves the connection until it ends, and parts with the peer.
    pub(crate) async fn run(&mut self) {
        loop {
            while self.is_login_outdated() {
                // in a place of its own: hardly ever, and each connection would have the room for it
                if !Box::pin(self.recheck_token()).await {
                    return self.leave();
                }
            }
            self.take_mail();
            self.pump();
            if self.closing {
                break;
            }
            match self.event().await {
                Event::Woken | Event::Written => {}
                Event::Received(received) => self.receive_all(received).await,
                Event::Deadline => self.pass_deadline(),
                Event::Gone => break,
                Event::Ended => return self.leave(),
            }
            if self.has_run_long() {
                yield_now().await;
                self.running = None;
            }
        }
        self.handle(SessionInput::Closed);
        self.part().await;
    }

    fn take_mail(&mut self) {
        for mail in self.mailbox.take() {
            match mail {
                Mail::Input(input) => {
                    self.transacting &= !matches!(input, SessionInput::Transacted(_));
                    self.handle(input);
                }
                Mail::Kick(user) => self.kick(&user),
            }
        }
    }

    /// Ends the connection if it is this user's.
    fn kick(&mut self, user: &UserId) {
        if self.session.status().user == Some(user) {
            self.socket.close(KICKED, "the server has ended the connections of this user");
            self.closing = true;
        }
    }

    fn is_login_outdated(&self) -> bool {
        !self.closing && self.login.as_ref().is_some_and(|login| self.shared.is_outdated(login))
    }

    /// Asks again whose the token is. Until that is known, nothing is served. Returns `false` if the
    /// connection has to make room for others meanwhile.
    async fn recheck_token(&mut self) -> bool {
        let Some(login) = &self.login else { return true };
        let known = tokio::select! {
            biased;
            () = self.peer.permit.ended() => return false,
            known = self.shared.recheck(login) => known,
        };
        let user = self.session.status().user;
        match known {
            Ok(known) if Some(&known.user.id) == user => {
                self.expires = known.expires;
                self.login = Some(known.login);
                self.handle(SessionInput::Identified(known.user));
            }
            Ok(_) | Err(AuthError::Wrong | AuthError::Expired) => self.expire(),
            Err(AuthError::Unavailable) => self.refuse(UNTOLD),
        }
        true
    }

    fn expire(&mut self) {
        self.expires = None;
        self.login = None;
        self.handle(SessionInput::AuthExpired);
    }

    /// Counts what its frames hold.
    fn count(&mut self) {
        if self.unserved > FLOOR && !self.transacting && self.session.status().queued == 0 {
            self.unserved = 0;
        }
        let unserved = self.unserved.min(self.shared.limits.queued_bytes);
        self.account.set_about(self.socket.waiting() + self.socket.partial() + unserved);
    }

    /// Takes what the rings have for the socket, as far as it has room.
    fn pump(&mut self) {
        self.count();
        let most = if self.account.is_spent() { FLOOR } else { ROOM_BYTES };
        let room = most.saturating_sub(self.socket.waiting());
        if room == 0 || self.closing {
            return;
        }
        if self.with_session(|session, now, env, out| pump(session, now, room, PUMPS, env, out)) {
            // whoever always has more lets others have their turn
            self.mailbox.wake();
        }
    }

    /// Hands in what has come, and what else is there already.
    async fn receive_all(&mut self, first: Received) {
        self.receive(first);
        for _ in 1..FRAMES {
            // a token is looked at before more is read
            if self.peer.admitted.is_none() {
                return;
            }
            let more = poll_fn(|cx| Poll::Ready(self.poll_receive(cx)));
            let Poll::Ready(Event::Received(received)) = more.await else { return };
            self.receive(received);
            if self.has_run_long() {
                return;
            }
        }
    }

    /// Returns `true` if others should have their turn.
    fn has_run_long(&self) -> bool {
        self.running.is_some_and(|since| since.elapsed() > SLICE)
    }

    fn receive(&mut self, received: Received) {
        match received {
            Received::Frame(frame) => {
                self.unserved += frame.len();
                self.handle(SessionInput::Frame(&frame));
                self.count();
            }
            Received::Ping => self.handle(SessionInput::Ping),
            Received::Closed => self.closing = true,
            Received::Unreadable(code, reason) => {
                self.socket.close(code, reason);
                self.closing = true;
            }
        }
    }

    fn pass_deadline(&mut self) {
        if self.expires.is_some_and(|at| at <= Instant::now()) {
            self.expire();
        }
        self.handle(SessionInput::Timeout);
    }

    fn handle(&mut self, input: SessionInput<'_>) {
        self.with_session(|session, now, env, out| session.handle(now, input, env, out));
    }

    /// Lends the session what it needs, and does what it then wants.
    fn with_session<T>(
        &mut self,
        call: impl FnOnce(&mut Session, Now, &mut Environment<'_>, &mut Vec<SessionAction>) -> T,
    ) -> T {
        let now = self.shared.clock.now();
        if self.bucket.is_none() && self.shared.limits.user_rate.is_some() {
            let knows_users = self.shared.config.authenticator.is_some();
            let is_known = !knows_users || self.session.status().user.is_some();
            self.bucket = is_known.then(|| self.shared.bucket(&self.principal)).flatten();
        }
        let mut refused = None;
        let answer = {
            let mut bucket = self.bucket.as_ref().map(|bucket| {
                // a bucket is whole at any time
                bucket.lock().unwrap_or_else(PoisonError::into_inner)
            });
            let mut env = Environment {
                rings: &self.shared.feed.rings(),
                policy: &*self.shared.config.policy,
                user_bucket: bucket.as_deref_mut(),
                run: self.shared.commits.is_contended().then_some(SHARE),
                on_error: Some(&mut |error| {
                    refused.get_or_insert_with(|| error.clone());
                }),
            };
            call(&mut self.session, now, &mut env, &mut self.actions)
        };
        if let Some(error) = refused {
            let user = self.session.status().user;
            let from = Sender { user, address: self.peer.address };
            self.shared.refusals.error(&from, &error.code, &error.message);
        }
        self.act();
        answer
    }

    fn act(&mut self) {
        for action in mem::take(&mut self.actions) {
            match action {
                SessionAction::Send(frame) => self.socket.send(frame),
                SessionAction::Close { code, reason } => {
                    self.socket.close(code, reason);
                    self.closing = true;
                }
                SessionAction::Authenticate(ticket) => self.log_in(ticket),
                SessionAction::Transact(ticket) => {
                    self.transacting = true;
                    let job = Job::Ticket(ticket, Arc::clone(&self.mailbox));
                    self.shared.commits.submit(&self.principal, job);
                }
                SessionAction::Read(ticket) => {
                    let principal = self.principal.clone();
                    self.shared.start_read(ticket, principal, Arc::clone(&self.mailbox));
                }
                SessionAction::Follow(interest) => {
                    let mailbox = Arc::clone(&self.mailbox);
                    self.shared.feed.follow(interest, self.conn, mailbox);
                }
                SessionAction::Unfollow(collection) => {
                    self.shared.feed.unfollow(&collection, self.conn);
                }
            }
        }
    }

    /// Begins to find out whose token this is.
    fn log_in(&mut self, ticket: Ticket<Token>) {
        let (shared, address) = (Arc::clone(&self.shared), self.peer.address);
        self.logging_in = Some(Box::pin(async move {
            let known = shared.authenticate(ticket.question(), address).await;
            (ticket, known)
        }));
    }

    fn logged_in(&mut self, ticket: Ticket<Token>, known: Result<Known, LoginError>) {
        let user = match known {
            Ok(known) => self.let_in(known),
            Err(LoginError::Auth(AuthError::Wrong | AuthError::Expired)) => None,
            Err(LoginError::Auth(AuthError::Unavailable)) => return self.refuse(UNTOLD),
            Err(LoginError::LockedOut(_)) => {
                return self.refuse("too many wrong tokens came from this address");
            }
        };
        if !self.closing {
            self.handle(ticket.answer(user));
        }
    }

    /// Lets the connection in, if it may be counted to its address.
    fn let_in(&mut self, known: Known) -> Option<User> {
        if self.peer.admitted.is_none() {
            self.peer.admitted = self.peer.permit.admit(self.peer.address);
            if self.peer.admitted.is_none() {
                self.refuse("too many connections come from this address");
                return None;
            }
            self.socket.set_limit(usize::MAX);
        }
        self.expires = known.expires;
        self.login = Some(known.login);
        self.principal = Principal::User(known.user.id.clone());
        self.account.set_principal(&self.principal);
        self.peer.permit.meter().set_principal(&self.principal);
        Some(known.user)
    }

    /// Closes the connection for now.
    fn refuse(&mut self, reason: &'static str) {
        self.socket.close(TRY_AGAIN_LATER, reason);
        self.closing = true;
    }

    async fn event(&mut self) -> Event {
        let deadline = self.deadline();
        if deadline < self.alarm.deadline().into_std() {
            self.alarm.as_mut().reset(deadline.into());
        }
        let mailbox = Arc::clone(&self.mailbox);
        let permit = Arc::clone(&self.peer.permit);
        tokio::select! {
            biased;
            () = permit.ended() => Event::Ended,
            event = poll_fn(|cx| self.poll_socket(cx)) => event,
            () = mailbox.woken() => Event::Woken,
        }
    }

    fn deadline(&self) -> Instant {
        let session = self.session.deadline().and_then(|(at, _)| self.shared.clock.instant(at));
        let deadlines = [session, self.expires].into_iter().flatten();
        deadlines.min().unwrap_or_else(|| Instant::now() + NEVER)
    }

    /// Looks at the alarm, which may go off too early: deadlines move on with every frame, and it
    /// is set again only then.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(Event::Deadline);
            }
            self.alarm.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }

    /// Writes and reads as far as the socket and the session let it.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.running.get_or_insert_with(Instant::now);
        let event = self.poll_both_ways(cx);
        if self.socket.take_progress() {
            self.handle(SessionInput::Ping);
        }
        if event.is_pending() {
            self.running = None;
        }
        event
    }

    fn poll_both_ways(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(logging_in) = &mut self.logging_in
            && let Poll::Ready((ticket, known)) = logging_in.as_mut().poll(cx)
        {
            self.logging_in = None;
            self.logged_in(ticket, known);
            return Poll::Ready(Event::Woken);
        }
        let waited = self.socket.wants_flush();
        if waited && let Poll::Ready(written) = self.socket.poll_flush(cx) {
            return Poll::Ready(if written.is_ok() { Event::Written } else { Event::Gone });
        }
        let received = self.poll_receive(cx);
        // reading may have answered a ping
        if received.is_pending() && !waited && self.socket.wants_flush() {
            return Poll::Ready(Event::Woken);
        }
        if received.is_ready() { received } else { self.poll_alarm(cx) }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let has_room = self.socket.waiting() < ROOM_BYTES;
        let is_ready = self.session.wants_frames() && self.logging_in.is_none();
        if self.closing || !has_room || !is_ready || self.has_its_share() {
            return Poll::Pending;
        }
        ready!(self.account.poll_room(cx));
        let received = self.socket.poll_receive(cx);
        self.count();
        received.map(|received| received.map_or(Event::Gone, Event::Received))
    }

    /// Returns `true` if enough waits for the end of the transaction that is under way: while others write
    /// too, the next one is to be short.
    fn has_its_share(&self) -> bool {
        self.transacting
            && self.shared.commits.is_contended()
            && self.session.status().queued >= SHARE
    }

    /// Leaves the others, and the peer: what waits is sent, and its agreement awaited for a while.
    async fn part(&mut self) {
        self.shared.feed.leave(self.conn);
        let time_limit = self.shared.config.close_timeout;
        let socket = &mut self.socket;
        let agreed = timeout(time_limit, poll_fn(|cx| socket.poll_part(cx))).await.is_ok();
        tracing::debug!(conn = %self.conn, agreed, "a connection ended");
        self.shared.leave(self.conn);
    }

    /// Leaves at once.
    fn leave(&mut self) {
        self.handle(SessionInput::Closed);
        self.shared.feed.leave(self.conn);
        tracing::debug!(conn = %self.conn, "a connection made room for others");
        self.shared.leave(self.conn);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::clock::Clock;
    use crate::{MemoryServerStore, ServerConfig};

    /// A ping of a client: a text frame with a mask that changes nothing.
    const PING: &[u8] = b"\x81\x8f\0\0\0\0{\"type\":\"ping\"}";
    const PINGS: usize = 20_000;

    #[tokio::test]
    async fn a_connection_with_much_to_read_lets_others_have_their_turn() {
        let epoch = synclayer_core::Epoch::new("e").unwrap();
        let store = Arc::new(MemoryServerStore::new());
        let shared = Arc::new(Shared::new(ServerConfig::new(), store, epoch, Clock::start()));
        let (mut peer, stream) = duplex(PINGS * 200);
        peer.write_all(&PING.repeat(PINGS)).await.unwrap();
        let permit = shared.admission.permit_now(None).unwrap();
        let admitted = permit.admit(None);
        let (conn, mailbox) = shared.enter();
        let socket = Socket::new(stream, 4 << 20).await;
        let peer_of = Peer { permit, admitted, address: None };
        let mut connection =
            Connection::new(shared, conn, mailbox, Caller::Anyone, peer_of, socket);
        let mut running = Box::pin(connection.run());
        let mut cx = Context::from_waker(Waker::noop());
        // without tokio's own bound, which ends a turn only after so many readings
        let polled = tokio::task::unconstrained(poll_fn(|_| {
            Poll::Ready(running.as_mut().poll(&mut cx).is_ready())
        }));
        assert!(!polled.await);
        drop(running);
        drop(connection);
        let mut answers = Vec::new();
        peer.read_to_end(&mut answers).await.unwrap();
        let answers = answers.windows(4).filter(|word| word == b"pong").count();
        assert!(answers < PINGS / 4, "{answers} in one turn");
    }
}
