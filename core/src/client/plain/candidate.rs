//! Recognition of a plain server by HTTP. A peer that does not know the hello of level 2 may be a plain
//! server, a wrong path, or something on the way: it is a plain one once it has answered a call of
//! the plain protocol well. Until then nothing is sent to it, and nothing that it says counts.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::super::access::{cause_of, code_of};
use super::super::config::PlainServers;
use super::super::edit::Edit;
use super::super::event::{EventKind, Transport};
use super::super::exchange::MOST_DECLINED;
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::machine::Client;
use super::super::peer::Peer;
use super::super::step::StepError;
use super::super::stream::StreamError;
use super::{Candidate, HelloFailure};
use crate::protocol::message::ErrorCode;
use crate::protocol::name::Collection;
use crate::protocol::rest::{collection_path, decode_refusal};
use crate::store::StoreError;

impl Candidate {
    /// Says what is at an address, for people.
    fn describe(&self, address: &str) -> String {
        let at = if address.is_empty() { "at this address" } else { address };
        let at = if address.is_empty() { at.into() } else { format!("at {at}") };
        let call = self.call.as_ref().map_or_else(String::new, |(collection, answer)| {
            format!(", `GET {}` with {answer}", collection_path(collection))
        });
        format!(
            "no SyncLayer server {at}: `POST /sync/session` was answered with {}{call}; check the \
             address and its path. What waits here is kept, and goes out as soon as there is one",
            self.hello,
        )
    }
}

/// Describes an answer, for people.
fn answer(status: u16, words: &str) -> String {
    if words.is_empty() { format!("{status}") } else { format!("{status} ({words})") }
}

impl Client {
    /// Returns `true` if the calls by HTTP are those of the plain protocol.
    pub(in super::super) fn works_plainly(&self) -> bool {
        self.peer.is_plain() || self.peer.is_candidate()
    }

    /// The server does not know the hello of level 2: it is found out whether it is a plain one.
    pub(in super::super) fn meet_plain_by_http(
        &mut self,
        edit: &mut Edit<'_>,
        status: u16,
        body: &[u8],
    ) -> Result<(), StepError> {
        if let Some(why) = self.refuses_plain() {
            return Err(StepError::Peer(format!("the server knows no level 2: {why}")));
        }
        self.try_plain_calls(edit, status, body, None)
    }

    /// Returns `true` if it is worth finding out whether a refusal of the hello that does not say so
    /// is a plain server's all the same. What offered level 2 before is out of order.
    pub(in super::super) fn may_be_plain(&self, status: u16) -> bool {
        self.may_poll()
            && !self.fallback.searched_in_vain(status)
            && self.config.plain != PlainServers::Never
            && !self.identity.resumable.contains(&self.address())
    }

    /// The hello was refused in words that a plain server may use for what it does not know, and one
    /// of level 2 that is out of order: the calls of the plain protocol tell which it is.
    pub(in super::super) fn tell_servers_apart(
        &mut self,
        edit: &mut Edit<'_>,
        body: &[u8],
        failure: HelloFailure,
    ) -> Result<(), StepError> {
        self.try_plain_calls(edit, failure.status, body, Some(failure))
    }

    fn try_plain_calls(
        &mut self,
        edit: &mut Edit<'_>,
        status: u16,
        body: &[u8],
        failure: Option<HelloFailure>,
    ) -> Result<(), StepError> {
        self.drop_exchange(edit);
        if !self.may_poll() {
            return Ok(());
        }
        let hello = answer(status, &decode_refusal(status, body).message);
        let mut due = self.wanted_collections();
        due.extend(self.waiting_collection(edit)?);
        let work = self.new_work(due, true);
        let (before, said) = (self.peer.take_resumable(), xxh3_64(body));
        // a server of level 2 answers no hello with one of these
        let is_doubtful = !matches!(status, 404 | 405 | 406 | 415 | 422 | 501);
        let candidate = Candidate {
            before,
            work,
            hello,
            failure,
            is_doubtful,
            found_empty_list: false,
            said,
            call: None,
        };
        self.peer = Peer::Candidate(Box::new(candidate));
        Ok(())
    }

    /// The collection of the first write that waits: by reading it, too, a server can show itself.
    fn waiting_collection(&self, edit: &Edit<'_>) -> Result<Option<Collection>, StoreError> {
        Ok(self.outbox.first_entry(edit)?.map(|(_, entry)| entry.collection))
    }

    /// A call of the plain protocol was answered well. Says whether the app accepts such a server.
    pub(super) fn prove_plain(&mut self, edit: &mut Edit<'_>) -> Result<bool, StoreError> {
        self.http_reaches(edit);
        self.become_plain(edit)?;
        let plain = self.peer.plain_mut();
        let was_proven = plain.is_none_or(|plain| core::mem::replace(&mut plain.proven, true));
        Ok(was_proven || !self.falls_short(edit))
    }

    /// Returns `true` if a call of the plain protocol got the same answer as the hello.
    pub(super) fn repeats_itself(&self, body: &[u8]) -> bool {
        match &self.peer {
            Peer::Candidate(candidate) => candidate.said == xxh3_64(body),
            Peer::Unknown | Peer::Resumable(_) | Peer::Plain(_) => false,
        }
    }

    /// A page is an empty list and nothing else, as a portal may answer too. Says whether that shows no
    /// plain server yet; then the next collection is tried.
    pub(super) fn doubts_empty_list(&mut self, collection: &Collection, body: &[u8]) -> bool {
        let is_believed = self.fallback.believes_empty_list();
        let is_bare = body.trim_ascii_start().starts_with(b"[");
        let Some(candidate) = self.peer.candidate_mut() else { return false };
        if !candidate.is_doubtful || !is_bare || is_believed {
            return false;
        }
        candidate.found_empty_list = true;
        candidate.work.due.remove(collection);
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.pull = None;
        }
        true
    }

    /// Nothing better than an empty list was found: the hello is said again at once. Says whether that
    /// is so.
    fn searches_again(&mut self) -> bool {
        let found = self.peer.candidate_mut().is_some_and(|candidate| candidate.found_empty_list);
        if found {
            self.fallback.count_empty_list(self.now.mono);
            self.peer.drop_work();
        }
        found
    }

    /// A call of the plain protocol was answered, but not well. Says whether it was made to find
    /// out what is there; then the next collection is tried.
    pub(super) fn disappoints(
        &mut self,
        collection: &Collection,
        status: u16,
        words: &str,
    ) -> bool {
        let Some(candidate) = self.peer.candidate_mut() else { return false };
        if status >= 500 && candidate.failure.is_none() {
            return false;
        }
        candidate.call = Some((collection.clone(), answer(status, words)));
        candidate.work.due.remove(collection);
        if status >= 500 {
            candidate.work.missed.insert(collection.clone());
            if candidate.work.missed.len() > MOST_DECLINED as usize {
                candidate.work.due.clear();
            }
        }
        candidate.work.troubled = true;
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.pull = None;
            stream.note_error(StreamError::new(&ErrorCode::CollectionNotFound, words));
        }
        true
    }

    /// A call of the plain protocol was not answered. Says whether that ends the search for what is
    /// there; the next search then begins with another collection.
    pub(super) fn ends_search(&mut self, edit: &mut Edit<'_>, collection: &Collection) -> bool {
        let failure = self.take_hello_failure();
        if failure.is_some() {
            self.fallback.stick(collection);
        }
        failure.map(|failure| self.fail_hello(edit, failure)).is_some()
    }

    /// Nothing has shown a plain server. Says whether that means that the hello has failed, rather
    /// than that the server does not know it. The same refusal is not looked into again for a while.
    pub(super) fn finds_hello_failed(&mut self, edit: &mut Edit<'_>) -> bool {
        let failure = self.take_hello_failure();
        if let Some(failure) = &failure {
            self.fallback.search_in_vain(failure.status);
        }
        failure.map(|failure| self.fail_hello(edit, failure)).is_some()
    }

    fn take_hello_failure(&mut self) -> Option<HelloFailure> {
        self.peer.candidate_mut()?.failure.take()
    }

    fn fail_hello(&mut self, edit: &mut Edit<'_>, failure: HelloFailure) {
        let HelloFailure { status, message } = failure;
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        match status {
            403 => self.refuse_access(edit, code_of(status), message, false),
            _ => {
                let failure = ConnectFailure::new(cause_of(status), message);
                self.fail_work(edit, failure, Duration::ZERO);
            }
        }
        edit.transport = before;
    }

    /// Nothing that was asked has shown a server. Says whether that is so.
    pub(super) fn finds_no_server(&mut self, edit: &mut Edit<'_>) -> bool {
        if self.searches_again() || self.finds_hello_failed(edit) {
            return true;
        }
        let Peer::Candidate(candidate) = &self.peer else { return false };
        let message = candidate.describe(&self.config.address);
        let failure = ConnectFailure::new(FailureCause::NoServer, message.clone());
        edit.event_by(Transport::Http, EventKind::NoServer { message });
        self.give_up_work(edit, Duration::ZERO);
        self.note_failure(failure);
        true
    }
}
