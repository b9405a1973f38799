//! HTTP calls of devices: on their way to the server, in it, and on their way back.

use std::time::Duration;

use synclayer_core::testing::InspectHub;
use synclayer_core::{
    Collection, ErrorCode, HttpAnswer, HttpRequest, HttpTicket, HubInput, Mono, Reply, Request,
    Transport,
};

use crate::guarantees::times;
use crate::invariants::Invariant;
use crate::refusal::OpenCall;

use super::rights::user_with_claims;
use super::{Middlebox, World};

pub use synclayer_core::CallId;

/// The time after the request's own timeout at which a machine gives up an answer.
const GRACE: Duration = Duration::from_secs(2);

/// The reach of a device's transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// To the server.
    #[default]
    Open,
    /// To something that refuses it at once, and perhaps says how long to wait.
    Refused(Option<Duration>),
    /// To something that keeps silent.
    Stalled,
    /// To something that answers in the server's leg.
    Answered(Middlebox),
}

/// Where a call is.
pub(super) enum Leg {
    /// On its way to the server.
    Up,
    /// In the server.
    Served,
    /// The answer is on its way back.
    Down(HttpAnswer),
}

/// One call.
pub(super) struct HttpCall {
    pub(super) device: usize,
    /// The adapter's request to answer; `None` if it was answered, or the adapter has died.
    ticket: Option<HttpTicket>,
    pub(super) request: HttpRequest,
    pub(super) leg: Leg,
    asked_at: Mono,
    /// When the adapter gives up.
    patience: Mono,
    /// Nothing of it gets anywhere before this.
    held_until: Mono,
    /// `true` if its bytes vanish.
    silent: bool,
}

impl HttpCall {
    fn is_push(&self) -> bool {
        self.request.path == "/sync/push"
    }

    fn is_pull(&self) -> bool {
        self.request.method == "GET" || self.request.path == "/sync/pull"
    }

    /// Returns `true` if nobody will notice the outcome any more.
    fn is_over(&self) -> bool {
        self.ticket.is_none() && (self.silent || matches!(self.leg, Leg::Down(_)))
    }
}

impl World {
    // --- what happens when nothing goes wrong ---

    /// The machine of a device has a request.
    pub(super) fn ask(&mut self, device: usize, ticket: HttpTicket) {
        let request = ticket.request.clone();
        self.note(|| format!("device {device} asks {} {}", request.method, request.path));
        self.fold(request.method.as_bytes());
        self.fold(request.path.as_bytes());
        self.fold(request.body.as_deref().unwrap_or_default());
        self.count_said(request.body.as_deref().unwrap_or_default());
        self.next_call += 1;
        let (id, now) = (CallId(self.next_call), self.now.mono);
        // in a group the machine may have got a WebSocket since
        let has_socket = !self.connections_of(device).is_empty();
        let this = &mut self.devices[device];
        this.asked = Some(id).filter(|_| !has_socket && !this.offline);
        let lost = std::mem::take(&mut this.lost_writes_by_socket);
        self.look_at_rest(device, None);
        if lost {
            self.count("from WebSocket to HTTP with writes in flight");
        }
        self.look_at_page_size(request.body.as_deref().unwrap_or(request.path.as_bytes()));
        if request.method == "GET" && !request.path.contains("epoch=") {
            self.count("sought for a plain server");
        }
        let patience = now + request.timeout;
        let (leg, ticket, silent) = (Leg::Up, Some(ticket), false);
        let (asked_at, held_until) = (now, now);
        let call =
            HttpCall { device, ticket, request, leg, asked_at, patience, held_until, silent };
        self.calls.insert(id, call);
    }

    /// The calls that get further, each with whether it is on its way back.
    pub(super) fn moving_calls(&self) -> impl Iterator<Item = (CallId, bool)> {
        self.calls.iter().filter_map(|(id, call)| {
            let device = &self.devices[call.device];
            let passes = !call.silent
                && !device.cut_off
                && device.calls != Way::Stalled
                && call.held_until <= self.now.mono;
            match call.leg {
                Leg::Up => passes.then_some((*id, false)),
                Leg::Served => None,
                Leg::Down(_) => passes.then_some((*id, true)),
            }
        })
    }

    /// The server gets a call, unless something before it refuses it.
    pub(super) fn serve(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (device, request) = (call.device, call.request.clone());
        if let Way::Refused(wait) = self.devices[device].calls {
            return match wait {
                Some(wait) => self.answer_instead(id, 503, Some(wait), false),
                None => self.lose_call(id, false),
            };
        }
        if let Way::Answered(middlebox) = self.devices[device].calls {
            return self.answer_on_the_way(id, middlebox, false);
        }
        if self.call_breaks(id) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.leg = Leg::Served;
        self.count("HTTP call");
        let body = request.body.unwrap_or_default();
        self.note(|| format!("device {device} > {}", String::from_utf8_lossy(&body)));
        let token = request.token.as_ref().map(|token| token.reveal());
        if token.is_some_and(|token| self.expired_tokens.contains(token)) {
            self.count("call refused");
            return self.reply(id, Reply::error(ErrorCode::AuthExpired, "the token has expired"));
        }
        let user = token.map(user_with_claims);
        let now = self.server_clock.read(self.now);
        let principal = user.as_ref().map(|user| &user.id);
        if let Err(refusal) = self.server.hub.admit(now, principal) {
            return self.reply(id, refusal);
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let method = request.method;
        let request = Request { method, path, query, body: &body, user };
        self.serve_input(HubInput::Call { call: id, request });
    }

    /// The server has an answer to a call.
    pub(super) fn reply(&mut self, id: CallId, reply: Reply) {
        self.fold_reply(&reply);
        self.count_said(&reply.body);
        self.look_at_answer(id, &reply.body);
        let Reply { status, headers, body } = reply;
        let wait = headers.iter().find(|(name, _)| *name == "retry-after");
        let retry_after = wait.and_then(|(_, value)| value.parse().ok()).map(Duration::from_secs);
        if let Some(call) = self.calls.get_mut(&id) {
            call.leg = Leg::Down(HttpAnswer::Answered { status, retry_after, body });
        }
        self.forget_calls();
    }

    fn look_at_answer(&mut self, id: CallId, body: &[u8]) {
        let token = self.calls.get(&id).and_then(|call| call.request.token.clone());
        self.look_at_reply(id, token.as_ref().map(|token| token.reveal()), body);
    }

    /// The answer to a call gets to its device.
    pub(super) fn deliver_answer(&mut self, id: CallId) {
        if self.call_breaks(id) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Leg::Down(answer) = &mut call.leg {
            let answer = std::mem::replace(answer, HttpAnswer::Failed("".into()));
            self.answer_call(id, answer);
        }
    }

    /// A device's adapter answers its machine.
    pub(super) fn answer_call(&mut self, id: CallId, answer: HttpAnswer) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (device, asked_at) = (call.device, call.asked_at);
        let Some(ticket) = call.ticket.take() else { return self.forget_calls() };
        let overdue = self.now.mono >= asked_at + (call.request.timeout + GRACE);
        let asked = self.devices[device].asked;
        match &answer {
            HttpAnswer::Answered { status, retry_after, body } => {
                let text = || String::from_utf8_lossy(body).into_owned();
                self.note(|| format!("device {device} < {status} {retry_after:?} {}", text()));
                if *status >= 400 {
                    self.count("declined call");
                }
                self.devices[device].heard_late |= self.now.mono > asked_at + 2 * times::TOLERANCE;
                let of_all = retry_after.filter(|_| !is_of_one_collection(body));
                if let (Some(wait), true, false) = (of_all, asked == Some(id), overdue) {
                    self.devices[device].rests_until = Some(self.now.mono + wait);
                }
            }
            HttpAnswer::Failed(why) => {
                self.note(|| format!("device {device} < failed: {why}"));
                self.count("failed call");
            }
        }
        let limited = matches!(&answer, HttpAnswer::Answered { status: 429, .. });
        let before = self.devices[device].replica.status().ignored_frames;
        let input = ticket.answer(answer);
        self.with(device, |replica, now, actions| replica.handle(now, input, actions));
        let status = self.devices[device].replica.status();
        let ignored = status.ignored_frames > before;
        if limited && !ignored && status.transport == Some(Transport::Http) {
            self.count("exchange slowed down");
        }
        let halted = self.devices[device].has_halted();
        if asked != Some(id) || overdue {
            self.count("late answer");
            self.devices[device].late_given += u64::from(ignored);
        }
        if asked.is_some_and(|newer| newer > id) && !ignored && !halted {
            self.fail(
                Invariant::Contract,
                format!("device {device} listens to the answer of a call that it gave up"),
            );
        }
        self.forget_calls();
    }

    fn forget_calls(&mut self) {
        self.calls.retain(|_, call| !call.is_over());
    }

    // --- what goes wrong ---

    /// The calls that a device waits for.
    #[must_use]
    pub fn open_calls(&self) -> Vec<CallId> {
        let open = self.calls.iter().filter(|(_, call)| call.ticket.is_some());
        open.map(|(id, _)| *id).collect()
    }

    /// The requests that a device waits for, with the server's answers that are on their way.
    pub(crate) fn open_calls_of(&self, device: usize) -> Vec<OpenCall<'_>> {
        let own = self.calls.values().filter(|call| call.device == device);
        own.filter_map(|call| {
            let answer = match &call.leg {
                Leg::Down(HttpAnswer::Answered { status, body, .. }) => {
                    Some((*status, body.clone()))
                }
                Leg::Up | Leg::Served | Leg::Down(HttpAnswer::Failed(_)) => None,
            };
            Some(OpenCall { ticket: call.ticket.as_ref()?, answer })
        })
        .collect()
    }

    /// Returns `true` if a call pushes writes.
    #[must_use]
    pub fn is_push(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(HttpCall::is_push)
    }

    /// The device that made this call.
    #[must_use]
    pub fn caller(&self, id: CallId) -> Option<usize> {
        self.calls.get(&id).map(|call| call.device)
    }

    /// A call's connection breaks. What the server has, it does; what is on its way there comes
    /// where it `arrives`.
    pub fn lose_call(&mut self, id: CallId, arrives: bool) {
        self.count_loss(id);
        self.break_call(id, arrives);
        self.answer_call(id, HttpAnswer::Failed("the connection broke".into()));
    }

    /// Something between the device and the server answers in its leg.
    pub fn answer_instead(
        &mut self,
        id: CallId,
        status: u16,
        retry_after: Option<Duration>,
        arrives: bool,
    ) {
        self.count_loss(id);
        self.break_call(id, arrives);
        let body = b"<html>not now</html>".to_vec();
        self.answer_call(id, HttpAnswer::Answered { status, retry_after, body });
    }

    /// The server's answer to a call, where it comes to one, gets lost.
    pub(super) fn take_call(&mut self, id: CallId, arrives: bool) {
        self.count_loss(id);
        self.break_call(id, arrives);
    }

    fn break_call(&mut self, id: CallId, arrives: bool) {
        if let Some(call) = self.calls.get_mut(&id) {
            match call.leg {
                Leg::Up => call.silent |= !arrives,
                Leg::Served => {}
                Leg::Down(_) => call.silent = true,
            }
        }
    }

    /// From now on the bytes of a call vanish: its device waits as long as it may.
    pub fn stall_call(&mut self, id: CallId) {
        self.count("stalled call");
        self.count_loss(id);
        if let Some(call) = self.calls.get_mut(&id) {
            call.silent = true;
        }
        self.forget_calls();
    }

    /// The adapter is slow: the call goes on, and is answered, when the machine has given it up.
    pub fn delay_call(&mut self, id: CallId) {
        self.count("delayed call");
        if let Some(call) = self.calls.get_mut(&id) {
            call.held_until = call.asked_at + (call.request.timeout + 2 * GRACE);
            call.patience = call.held_until + call.request.timeout;
        }
    }

    fn count_loss(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        self.note_loss(call.device, id);
        let call = &self.calls[&id];
        let up = matches!(call.leg, Leg::Up);
        if call.is_push() && !up {
            self.count("lost answer of a push");
        } else if call.is_pull() && self.is_catching_up(call.device) {
            self.count("pull cut in mid catch-up");
        }
    }

    fn note_loss(&mut self, device: usize, id: CallId) {
        self.note(|| format!("call {} of device {device} is lost", id.0));
    }

    fn is_catching_up(&self, device: usize) -> bool {
        let status = self.devices[device].replica.status();
        status.collections.values().any(|collection| collection.catching_up)
    }

    /// The server's process is gone with the calls that it had.
    pub(super) fn drop_served_calls(&mut self) {
        for call in self.calls.values_mut() {
            if let Leg::Served = call.leg {
                call.leg = Leg::Down(HttpAnswer::Failed("the server is gone".into()));
            }
        }
        self.forget_calls();
    }

    /// The process of a device is gone: nobody waits for its calls. What it has sent may arrive.
    pub(super) fn orphan_calls(&mut self, device: usize) {
        for call in self.calls.values_mut().filter(|call| call.device == device) {
            call.ticket = None;
        }
        self.forget_calls();
    }

    /// A device has a WebSocket: its machine waits for no call any more.
    pub(super) fn turn_from_calls(&mut self, device: usize) {
        let pushes =
            |call: &HttpCall| call.device == device && call.ticket.is_some() && call.is_push();
        if self.devices[device].asked.is_some() && self.calls.values().any(pushes) {
            self.count("from HTTP to WebSocket with writes in flight");
        }
        let this = &mut self.devices[device];
        (this.asked, this.lost_writes_by_socket) = (None, false);
        (this.rests_until, this.sockets_rest_until) = (None, None);
    }

    // --- time ---

    /// When the next adapter gives a call up.
    pub(super) fn next_patience(&self) -> Option<Mono> {
        let waits = |call: &&HttpCall| call.ticket.is_some() && !self.devices[call.device].asleep;
        self.calls.values().filter(waits).map(|call| call.patience).min()
    }

    /// Adapters give up what has taken too long.
    pub(super) fn time_out_calls(&mut self) {
        let now = self.now.mono;
        let due = |call: &HttpCall| {
            call.ticket.is_some() && call.patience <= now && !self.devices[call.device].asleep
        };
        let ids: Vec<_> =
            self.calls.iter().filter(|(_, call)| due(call)).map(|(id, _)| *id).collect();
        for id in ids {
            self.count("overdue call");
            self.answer_call(id, HttpAnswer::Failed("it took too long".into()));
        }
    }

    /// The heads of all collections, as the server's process knows them.
    #[must_use]
    pub fn heads(&self) -> Vec<(Collection, u64)> {
        let collections = self.config.collections.iter();
        collections.map(|name| (name.clone(), self.server.hub.head(name).0)).collect()
    }
}

/// Returns `true` if a refusal names the collection that it is about: others need not wait.
fn is_of_one_collection(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body)
        .is_ok_and(|told| told["collection"].is_string())
}
