//! The HTTP requests under way, and those that wait for one of them to end.

use std::collections::VecDeque;

use synclayer_core::{HttpAnswer, HttpTicket};

use crate::call::HttpClient;
use crate::command::{EngineCommand, Inbox};
use crate::network::BlockingTask;

/// The number of requests made at a time. The machine makes one after the other; more are under way
/// only where it has given some up.
const AT_A_TIME: usize = 4;

pub(super) struct Requests {
    client: Option<HttpClient>,
    running: usize,
    /// Requests to be made, each for the replica of its life.
    waiting: VecDeque<(u64, HttpTicket)>,
}

impl Requests {
    pub(super) fn new(client: Option<HttpClient>) -> Self {
        Self { client, running: 0, waiting: VecDeque::new() }
    }

    /// Adds a request; [`next`](Self::next) says when to make it.
    pub(super) fn push(&mut self, life: u64, ticket: HttpTicket) {
        self.waiting.push_back((life, ticket));
    }

    /// A request to be made now. It answers its ticket through the inbox, whatever becomes of it.
    pub(super) fn next(&mut self, inbox: &Inbox) -> Option<BlockingTask> {
        if self.running == AT_A_TIME {
            return None;
        }
        let (life, ticket) = self.waiting.pop_front()?;
        self.running += 1;
        let running = Running { life, ticket: Some(ticket), inbox: inbox.clone() };
        let client = self.client.clone();
        Some(Box::new(move || running.make(client.as_ref())))
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Counts one that has ended.
    pub(super) fn ended(&mut self) {
        self.running -= 1;
    }

    /// Forgets the requests that were not made yet: nobody waits for them any more.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// A request under way. It answers when it is made, and also when it is dropped.
struct Running {
    life: u64,
    ticket: Option<HttpTicket>,
    inbox: Inbox,
}

impl Running {
    fn make(mut self, client: Option<&HttpClient>) {
        let answer = match (&self.ticket, client) {
            (Some(ticket), Some(client)) => {
                let (life, request, inbox) = (self.life, ticket.id, self.inbox.clone());
                let report = move || inbox.put(EngineCommand::RequestProgress { life, request });
                client.call_telling(&ticket.request, report)
            }
            (Some(_), None) | (None, _) => HttpAnswer::Failed("there is no HTTP address".into()),
        };
        self.answer(answer);
    }

    fn answer(&mut self, answer: HttpAnswer) {
        if let Some(ticket) = self.ticket.take() {
            self.inbox
                .put(EngineCommand::Answered { life: self.life, input: ticket.answer(answer) });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.answer(HttpAnswer::Failed("the call was broken off".into()));
    }
}
