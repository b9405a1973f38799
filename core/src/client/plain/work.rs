//! Requests to a plain server by HTTP: one request at a time, first pulls, then pushes.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Bound::{Excluded, Unbounded};
use core::time::Duration;

use bytes::Bytes;

use super::super::edit::Edit;
use super::super::event::{EventKind, Transport};
use super::super::exchange::GRACE;
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::interface::{HttpAnswer, HttpRequest, HttpTicket, NetAction, RequestId};
use super::super::machine::Client;
use super::super::step::StepError;
use super::super::throttle::Throttle;
use super::pull::Pull;
use super::records::Verdict;
use super::{ARRIVAL, Asked, HTTP_FAILURES, Plain, READ_AGAIN, What, Work};
use crate::protocol::message::ErrorCode;
use crate::protocol::name::Collection;
use crate::protocol::rest::{decode_page, decode_refusal, query_path};
use crate::protocol::time::{Mono, Timestamp};
use crate::store::StoreError;

impl Client {
    /// Reads everything, and pushes what waits.
    pub(in super::super) fn begin_poll(&mut self) {
        let due = self.wanted_collections();
        self.begin_work(due);
        if let Some(work) = self.peer.work_mut() {
            work.whole = true;
        }
    }

    pub(super) fn wanted_collections(&self) -> BTreeSet<Collection> {
        let whole = self.streams.wanted().filter(|(_, stream)| !stream.is_scoped());
        whole.map(|(collection, _)| collection.clone()).collect()
    }

    /// Reads some collections at a plain server, and pushes what waits.
    pub(super) fn begin_work(&mut self, due: BTreeSet<Collection>) {
        if !self.may_poll() {
            return;
        }
        if let Some(work) = self.peer.work_mut() {
            // what is asked of it waits for the next
            work.troubled |= !due.is_subset(&work.due);
            return;
        }
        let work = self.new_work(due, false);
        if let Some(plain) = self.peer.plain_mut() {
            plain.confirm_at = None;
            plain.work = Some(work);
        }
    }

    /// Work begins now.
    pub(super) fn new_work(&mut self, due: BTreeSet<Collection>, whole: bool) -> Work {
        self.fallback.clear_due();
        if self.link.ready_since().is_none() {
            self.fallback.set_poll(None);
            self.pacing.release();
        }
        Work {
            due,
            asked: None,
            whole,
            pushing: false,
            looks: false,
            reconciled: BTreeSet::new(),
            missing: BTreeSet::new(),
            syncs: self.syncs.next(),
            troubled: false,
            read: false,
            missed: BTreeSet::new(),
            changed: false,
            throttle: Throttle::default(),
        }
    }

    /// Begins the work that is due while HTTP is the transport, or that `synced` waits for.
    ///
    /// When everything is read, judges what was sent: that may change the outbox, so it is done
    /// before anything of the step goes out.
    pub(in super::super) fn prepare_work(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if let Some(work) = self.peer.work() {
            let read = work.asked.is_none() && work.due.is_empty();
            let pushing = work.pushing;
            if !read || self.finds_no_server(edit) || pushing {
                return Ok(());
            }
            return self.judge_all(edit);
        }
        let ready = self.link.ready_since().is_some();
        let Some(plain) = self.peer.plain() else { return Ok(()) };
        let due = match ready {
            true => !self.syncs.is_empty() && plain.failures == 0 && !plain.missed,
            false => self.polls() && self.is_exchange_due(edit)?,
        };
        if due {
            self.begin_poll();
        }
        Ok(())
    }

    /// The server has answered well.
    pub(super) fn http_reaches(&mut self, edit: &mut Edit<'_>) {
        // over a WebSocket it is in reach anyway
        if self.link.ready_since().is_none() {
            self.in_reach(edit);
        }
    }

    pub(in super::super) fn work_deadline(&self) -> Option<Mono> {
        let asked = self.peer.work()?.asked.as_ref()?;
        let usual = asked.moved_at + self.config.request_timeout + GRACE;
        Some(asked.hurry.map_or(usual, |hurry| hurry.min(usual)))
    }

    /// Bytes of a request, or of its answer, have moved.
    pub(in super::super) fn work_moves(&mut self, request: RequestId) {
        let asked = self.peer.work_mut().and_then(|work| work.asked.as_mut());
        if let Some(asked) = asked.filter(|asked| asked.request == request) {
            (asked.moved_at, asked.hurry) = (self.now.mono, None);
        }
    }

    /// Gives the request up at a time, if it is not answered by then.
    pub(in super::super) fn hurry_work(&mut self, until: Mono) {
        let asked = self.peer.work_mut().and_then(|work| work.asked.as_mut());
        if let Some(asked) = asked {
            asked.hurry = Some(asked.hurry.map_or(until, |hurry| hurry.min(until)));
        }
    }

    /// Asks for what comes next; ends the work where nothing does.
    pub(in super::super) fn pump_work(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let usable = self.polls() || self.link.ready_since().is_some() && self.may_poll();
        let is_free =
            |it: &&Work| it.asked.is_none() && it.throttle.paused_until().is_none() && usable;
        let Some(work) = self.peer.work().filter(is_free) else { return Ok(()) };
        // what was not answered the last time comes last
        let behind = |stuck| work.due.range::<Collection, _>((Excluded(stuck), Unbounded)).next();
        let first = self.fallback.stuck().and_then(behind);
        if let Some(collection) = first.or(work.due.first()).cloned() {
            self.ask_plain_page(edit, collection);
            return Ok(());
        }
        if work.pushing && !self.push_next(edit)? {
            self.finish_work(edit)?;
        }
        Ok(())
    }

    /// Finds out which of the writes that were sent have not arrived.
    fn judge_all(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut missing = BTreeSet::new();
        let missed = self.peer.work().map(|work| work.missed.clone()).unwrap_or_default();
        let sent = self.peer.plain().map(Plain::clone_sent).unwrap_or_default();
        for (collection, id) in self.outbox.frozen_records(edit)? {
            if missed.contains(&collection) {
                continue;
            }
            let Some(stream) = self.streams.get(&collection) else { continue };
            let began = stream.plain.pull_began;
            let is_old = |write| sent.is_old(write, began);
            if self.judge(edit, &collection, &id, is_old)? == Verdict::Missing {
                let entries = self.outbox.entries_of(edit, &collection, &id)?;
                missing.extend(entries.into_iter().map(|(write, _)| write));
            }
        }
        self.outbox.advance_head(edit)?;
        missing.retain(|write| self.outbox.is_frozen(*write));
        if let Some(work) = self.peer.work_mut() {
            work.pushing = true;
            work.missing = missing;
        }
        Ok(())
    }

    fn ask_plain_page(&mut self, edit: &mut Edit<'_>, collection: Collection) {
        let now = self.now.mono;
        let mark = self.mark(&collection);
        let reconcile = self.is_reconcile_due(mark.reconciled_at);
        let whole = self.peer.work().is_some_and(|work| work.whole);
        let Some(stream) = self.streams.get_mut(&collection) else { return };
        if stream.plain.pull.is_none() {
            stream.plain.pull_began = now;
            stream.plain.complained = false;
            stream.plain.incomplete = false;
            if whole {
                let collection = collection.clone();
                edit.event_by(Transport::Http, EventKind::SyncStarted { collection });
            }
        }
        let pull = stream.plain.pull.get_or_insert_with(|| match reconcile {
            true => Pull::reconcile(mark.watermark, now),
            false => Pull::changes(mark.watermark, now),
        });
        let (since, offset) = pull.ask();
        let path = query_path(&collection, since, stream.plain.habits.limit, offset);
        self.ask_plain(edit, What::Page(collection), "GET", path, None);
    }

    /// Returns `true` if it is time to find out which records are gone.
    fn is_reconcile_due(&self, last: Option<Timestamp>) -> bool {
        let Some(last) = last else { return true };
        let Some(interval) = self.config.reconcile_interval else { return false };
        let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        // a wall clock that was set back must not put it off
        let passed = self.now.wall.0.saturating_sub(last.0);
        passed >= interval || passed < 0
    }

    pub(super) fn ask_plain(
        &mut self,
        edit: &mut Edit<'_>,
        what: What,
        method: &'static str,
        path: String,
        body: Option<alloc::vec::Vec<u8>>,
    ) {
        let request = self.next_request;
        self.next_request = RequestId(request.0 + 1);
        let Some(work) = self.peer.work_mut() else { return };
        work.asked = Some(Asked { request, moved_at: self.now.mono, hurry: None, what });
        let token = self.config.token.clone();
        let (body, timeout) = (body.map(Bytes::from), self.config.request_timeout);
        let ticket = HttpTicket::new(request, HttpRequest { method, path, body, token, timeout });
        edit.net.push(NetAction::Request(ticket));
    }

    /// A request was answered. Says whether it was one of these.
    pub(in super::super) fn work_answered(
        &mut self,
        edit: &mut Edit<'_>,
        request: RequestId,
        answer: &HttpAnswer,
    ) -> Result<bool, StepError> {
        let asked = self.peer.work_mut();
        let asked = asked.and_then(|work| work.asked.take_if(|asked| asked.request == request));
        let Some(asked) = asked else { return Ok(false) };
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        match (&asked.what, answer) {
            (_, HttpAnswer::Failed(why)) => {
                if let What::Page(collection) = &asked.what
                    && self.peer.plain().is_some_and(|plain| plain.failures > 0)
                {
                    // perhaps the page is too large to be had
                    if let Some(stream) = self.streams.get_mut(collection) {
                        stream.plain.habits.shrink();
                    }
                }
                match (&asked.what, why.of("a request")) {
                    (What::Page(of), why) => self.page_unanswered(edit, of, why),
                    (What::Push(_), why) => self.fail_work(edit, why, Duration::ZERO),
                }
            }
            (_, HttpAnswer::Answered { status: 401, body, .. }) => {
                let told = decode_refusal(401, body);
                let is_ours = |code: &ErrorCode| {
                    matches!(code, ErrorCode::AuthFailed | ErrorCode::AuthExpired)
                };
                let code = told.code.filter(is_ours);
                let by_server = code.is_some();
                let code = code.unwrap_or(ErrorCode::AuthFailed);
                self.refuse_access(edit, code, told.message, by_server);
            }
            (What::Page(collection), HttpAnswer::Answered { status, body, .. })
                if (200..300).contains(status) =>
            {
                let page = decode_page(body, &self.config.limits).map_err(|why| why.to_string());
                match page {
                    Ok(_) if self.repeats_itself(body) => {
                        self.disappoints(collection, *status, "the same for every call");
                    }
                    Ok(page)
                        if page.rows.is_empty() && self.doubts_empty_list(collection, body) => {}
                    Ok(page) if page.resumable && self.link.ready_since().is_none() => {
                        // it is out of order, or something on the way did not know the hello
                        if !self.finds_hello_failed(edit) {
                            let why = "the server speaks level 2 after all";
                            self.fail_work(edit, why, Duration::ZERO);
                        }
                        self.peer.forget_plain();
                        self.fallback.doubt();
                    }
                    Ok(page) => {
                        if self.prove_plain(edit)? {
                            self.turn_plain_page(edit, collection, page)?;
                        }
                    }
                    Err(why) if self.disappoints(collection, *status, &why) => {}
                    Err(why) => self.page_missed(edit, collection, &format!("{collection}: {why}")),
                }
            }
            (What::Page(collection), HttpAnswer::Answered { status, retry_after, body }) => {
                let told = decode_refusal(*status, body);
                self.plain_page_declined(edit, collection, *status, *retry_after, told);
            }
            (What::Push(write), HttpAnswer::Answered { status, retry_after, body }) => {
                self.judged_by_http(edit, *write, *status, *retry_after, body)?;
            }
        }
        edit.transport = before;
        Ok(true)
    }

    fn finish_work(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let Some(plain) = self.peer.plain_mut() else { return Ok(()) };
        let Some(work) = plain.work.take() else { return Ok(()) };
        let (now, missed) = (self.now.mono, !work.missed.is_empty());
        (plain.failures, plain.missed) = (0, missed);
        if plain.settling_until.take().is_some() {
            self.outbox.pass_over_frozen();
        }
        self.fallback.forget_failures();
        if work.whole && !missed {
            let first = self.outbox.first_place(edit)?;
            let outcome = self.streams.outcome_at_plain(self.config.http);
            self.syncs.answer(edit, &outcome, |id, until| id < work.syncs && until <= first);
        }
        let incomplete = self.streams.any(|stream| stream.plain.incomplete);
        if self.link.ready_since().is_some() {
            let soon = match self.outbox.frozen_records(edit)?.is_empty() {
                false => Some(now + ARRIVAL + ARRIVAL),
                true => (incomplete || work.troubled).then(|| now + READ_AGAIN),
            };
            if let Some(plain) = self.peer.plain_mut() {
                plain.confirm_at = plain.confirm_at.or(soon);
            }
            self.link.forget_attempts();
        } else {
            self.schedule_poll(work.troubled);
            if !self.syncs.is_empty() && !self.pacing.is_held() {
                self.poll_soon(now);
            } else if incomplete {
                self.fallback.set_poll(Some(now + READ_AGAIN));
            }
        }
        Ok(())
    }

    /// The server wants fewer requests: work that it has served so far waits as long as it says, or
    /// for a second or more, and goes on. Returns `false` where it has served none, or asks too often
    /// or for too long a wait.
    pub(super) fn pause_work(&mut self, wait: Option<Duration>) -> bool {
        let Some(work) = self.peer.work_mut() else { return false };
        let wait = work.throttle.limit(wait, self.config.max_reconnect_delay);
        let Some(wait) = wait.filter(|_| work.read) else { return false };
        let until = self.pause(wait);
        if let Some(work) = self.peer.work_mut() {
            work.throttle.pause(until);
        }
        true
    }

    /// The work is given up, and tried again after a while.
    pub(super) fn fail_work(
        &mut self,
        edit: &mut Edit<'_>,
        why: impl Into<ConnectFailure>,
        at_least: Duration,
    ) {
        let failure = why.into();
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        edit.unreachable(&failure);
        edit.transport = before;
        self.give_up_work(edit, at_least);
        self.note_failure(failure);
    }

    /// The same, where it was told already why.
    pub(in super::super) fn give_up_work(&mut self, edit: &mut Edit<'_>, at_least: Duration) {
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        // where it was a candidate, the next exchange says hello again
        self.peer.drop_work();
        for stream in self.streams.values_mut() {
            // one that has come to its second page goes on where it was
            stream.plain.pull.take_if(|pull| !pull.has_read());
        }
        let ready = self.link.ready_since().is_some();
        match self.peer.plain_mut() {
            Some(plain) if ready => {
                let factor = 1u32.checked_shl(plain.failures).unwrap_or(u32::MAX);
                let longest = self.config.max_reconnect_delay.saturating_mul(2);
                let wait = self.config.reconnect_delay.saturating_mul(factor).min(longest);
                let wait = wait + self.random.below(wait / 4);
                plain.confirm_at = Some(self.now.mono + at_least.max(wait));
                plain.failures += 1;
                if plain.settling_until.take().is_some() && plain.failures < HTTP_FAILURES {
                    self.outbox.pass_over_frozen();
                }
            }
            plain => {
                plain.into_iter().for_each(|plain| plain.failures += 1);
                self.out_of_reach(edit);
                // what the app asked for meanwhile is tried no sooner
                self.fallback.clear_due();
                self.rest(Some(at_least));
                self.poll_later();
            }
        }
        edit.transport = before;
    }

    pub(in super::super) fn work_timed_out(&mut self, edit: &mut Edit<'_>) {
        let why = ConnectFailure::new(FailureCause::Silent, "a request was not answered in time");
        let asked = self.peer.work_mut().and_then(|work| work.asked.take());
        match asked.map(|asked| asked.what) {
            Some(What::Page(collection)) => self.page_unanswered(edit, &collection, why),
            Some(What::Push(_)) | None => self.fail_work(edit, why, Duration::ZERO),
        }
    }

    /// Nothing is listened to any more of what was asked.
    pub(in super::super) fn drop_work(&mut self) {
        self.peer.drop_work();
    }
}
