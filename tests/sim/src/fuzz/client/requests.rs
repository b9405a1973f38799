//! Requests by HTTP, and answers of the server or of something else.

use synclayer_core::{HttpAnswer, HttpRequest, HttpTicket, Request, UserId};

use super::super::script::Script;
use super::ClientBench;

impl ClientBench {
    /// The answer that the server would give now.
    pub(super) fn would_serve(&self, ticket: &HttpTicket) -> (u16, Vec<u8>) {
        let asked = &ticket.request;
        if let Some(plain) = &self.plain {
            let body = asked.body.as_deref().unwrap_or_default();
            let (status, body, _) =
                plain.clone().request(asked.method, &asked.path, body, self.now.wall);
            return (status, body.into_bytes());
        }
        let reply = self.host.clone().ask(&self.request(asked), self.now);
        (reply.status, reply.body)
    }

    /// A request, as the server has it.
    fn request<'a>(&self, asked: &'a HttpRequest) -> Request<'a> {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        Request {
            method: asked.method,
            path,
            query,
            body: asked.body.as_deref().unwrap_or_default(),
            user: UserId::new(&self.config.user).ok().map(Into::into),
        }
    }

    /// A request is answered somehow.
    pub(super) fn answer(&mut self, script: &mut Script<'_>) {
        if self.tickets.is_empty() {
            return;
        }
        let ticket = self.tickets.remove(script.below(self.tickets.len()));
        if script.chance(2) {
            // the server does what was asked, whether the answer arrives or not
            let (status, body) = self.served(&ticket);
            let body = if script.chance(6) { script.mutated(&body) } else { body };
            let answer = match script.below(6) {
                0 => HttpAnswer::Failed("the answer was lost".into()),
                _ => HttpAnswer::Answered { status, retry_after: None, body },
            };
            return self.answered(ticket, answer);
        }
        let body = match script.below(4) {
            0 => script.bytes().to_vec(),
            1 => br#"{"protocol":2,"epoch":"e0","lastMutation":0,"maxBatchBytes":262144}"#.to_vec(),
            2 => br#"{"verdicts":[],"lastMutation":0}"#.to_vec(),
            _ => br#"{"records":[]}"#.to_vec(),
        };
        let body = if script.chance(3) { script.mutated(&body) } else { body };
        let answer = match script.below(4) {
            0 => HttpAnswer::Failed("lost".into()),
            _ => HttpAnswer::Answered {
                status: script.pick(&[200, 201, 204, 400, 401, 404, 409, 429, 503]).unwrap_or(200),
                retry_after: None,
                body,
            },
        };
        self.answered(ticket, answer);
    }

    pub(super) fn served(&mut self, ticket: &HttpTicket) -> (u16, Vec<u8>) {
        let asked = &ticket.request;
        if let Some(plain) = &mut self.plain {
            let body = asked.body.as_deref().unwrap_or_default();
            let (status, body, sent) =
                plain.request(asked.method, &asked.path, body, self.now.wall);
            self.tell_all(sent);
            return (status, body.into_bytes());
        }
        let request = self.request(asked);
        let reply = self.host.ask(&request, self.now);
        assert!(!self.sound || reply.status != 400, "{request:?} is refused: {reply:?}");
        (reply.status, reply.body)
    }

    pub(super) fn answered(&mut self, ticket: HttpTicket, answer: HttpAnswer) {
        let input = ticket.answer(answer);
        self.with(|replica, now, actions| replica.handle(now, input, actions));
    }
}
