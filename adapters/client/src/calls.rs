//! The HTTP calls that are under way, and those that wait for one of them to end.

use std::collections::VecDeque;
use std::mem;

use synclayer_core::client::interface::{HttpAnswer, HttpTicket};

use crate::call::HttpClient;
use crate::engine::{Inbox, Job, Network};

/// How many calls are made at a time. The machine makes one after the other; more are under way
/// only where it has given some up.
const AT_A_TIME: usize = 4;

/// A call that has to be made, for the replica of this life.
type Waiting = (u64, HttpTicket);

pub(crate) struct Calls {
    client: Option<HttpClient>,
    running: usize,
    waiting: VecDeque<Waiting>,
}

impl Calls {
    pub(crate) fn new(client: Option<HttpClient>) -> Self {
        Self { client, running: 0, waiting: VecDeque::new() }
    }

    /// Takes a call; [`next`](Self::next) says when to make it.
    pub(crate) fn push(&mut self, life: u64, ticket: HttpTicket) {
        self.waiting.push_back((life, ticket));
    }

    /// A call to be made now. It answers its ticket through the inbox, whatever becomes of it.
    pub(crate) fn next<N: Network>(&mut self, inbox: &Inbox<N>) -> Option<Job> {
        if self.running == AT_A_TIME {
            return None;
        }
        let (life, ticket) = self.waiting.pop_front()?;
        self.running += 1;
        let call = Call { life, ticket: Some(ticket), inbox: inbox.clone() };
        let client = self.client.clone();
        Some(Box::new(move || call.make(client.as_ref())))
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn ended(&mut self) {
        self.running -= 1;
    }

    /// Forgets the calls that were not made yet: nobody waits for them any more.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// A call under way: it answers when it is made, and also when it is dropped.
struct Call<N: Network> {
    life: u64,
    ticket: Option<HttpTicket>,
    inbox: Inbox<N>,
}

impl<N: Network> Call<N> {
    fn make(mut self, client: Option<&HttpClient>) {
        let answer = match (&self.ticket, client) {
            (Some(ticket), Some(client)) => client.call(ticket.request()),
            (Some(_), None) | (None, _) => HttpAnswer::Failed("there is no HTTP address".into()),
        };
        self.answer(answer);
    }

    fn answer(&mut self, answer: HttpAnswer) {
        if let Some(ticket) = mem::take(&mut self.ticket) {
            let life = self.life;
            self.inbox.tell(move |engine| engine.answered(life, ticket.answer(answer)));
        }
    }
}

impl<N: Network> Drop for Call<N> {
    fn drop(&mut self) {
        self.answer(HttpAnswer::Failed("the call was broken off".into()));
    }
}
