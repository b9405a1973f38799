//! A server with rules: what it shows is looked at byte by byte, and what it takes is judged once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use synclayer_core::rules::{Outcome, PushOutcome, Verdict};
use synclayer_core::testing::{InspectBatch, InspectHub};
use synclayer_core::{
    Collection, ConnId, Document, ErrorCode, HubJob, JobBatch, RecordId, Seq, SessionInput,
    Transaction, TransactionAnswer, User, UserId,
};

use crate::guarantees::tokens;
use crate::invariants::Invariant;
use crate::ruling::{Bearer, Rulebook, memberships};

use super::history::{Committed, Place};
use super::http::CallId;
use super::{World, link::Owner, user_of};

/// The number of earlier sets of memberships by which an answer by HTTP may be judged.
const LATE: usize = 3;

/// The rights in a world whose server has rules.
pub(super) struct Rights {
    rulebook: Rulebook,
    /// The memberships in the server's store.
    members: BTreeSet<RecordId>,
    /// Those that the server knows to be there: a commit of unknown outcome may have changed others.
    published: BTreeSet<RecordId>,
    /// Those that there were of late: an answer by HTTP stands for the view, or the commit, in which it was
    /// found.
    of_late: VecDeque<BTreeSet<RecordId>>,
    /// The bearers of the tokens of each connection: by the first one the session goes, and the others are
    /// to be told that they are in.
    bearers: BTreeMap<ConnId, VecDeque<Bearer>>,
    /// The connections of which a token came while the one before it was checked.
    replaced: BTreeSet<ConnId>,
    /// The bearers of the tokens of strangers' calls.
    strangers: BTreeMap<CallId, Bearer>,
    /// The states of records in which each token of a write was.
    states: BTreeMap<u64, Vec<(Place, Document)>>,
    /// The users who have written each, which an ack may show them whatever else they may read.
    authors: BTreeMap<u64, BTreeSet<UserId>>,
}

/// The user of a token, with claims where it has some.
pub(super) fn user_with_claims(token: &str) -> User {
    if token.contains('+') { Bearer::of(token).user() } else { user_of(token).into() }
}

impl Rights {
    /// Returns `true` if a token of a write is in a state of a record that somebody may read, by one of these
    /// sets of memberships.
    fn may_see(&self, by: &Bearer, token: u64, sets: &[&BTreeSet<RecordId>]) -> bool {
        let shows = |(place, document): &(Place, Document)| {
            sets.iter().any(|members| self.rulebook.shows(by, &place.0, document, members))
        };
        self.authors.get(&token).is_some_and(|all| all.contains(&by.user().id))
            || self.states.get(&token).is_some_and(|states| states.iter().any(shows))
    }

    /// Keeps in mind what a change has made of a record. Says whether its author has put it out of their own
    /// sight.
    fn remember(&mut self, change: &Committed, author: Option<&Bearer>) -> bool {
        let Some(after) = &change.after else { return false };
        let shows = |by| self.rulebook.shows(by, &change.place.0, after, &self.members);
        let gives_away = author.is_some_and(|author| !shows(author));
        for token in tokens(Some(after)) {
            let state = (change.place.clone(), after.clone());
            self.states.entry(token).or_default().push(state);
        }
        // whosever values they are, an ack returns what was sent
        let before = |name: &str| change.before.as_ref().and_then(|before| before.text(name));
        let sent = after.iter().filter(|(name, text)| before(name) != Some(text));
        let sent: String = sent.map(|(name, text)| format!("\"{name}\":{text},")).collect();
        for token in canaries(&sent) {
            let authors = author.map(|author| author.user().id);
            self.authors.entry(token).or_default().extend(authors);
        }
        gives_away
    }

    fn forbidden_in(&self, by: &Bearer, said: &[u8], late: bool) -> Option<u64> {
        let of_late = self.of_late.iter().filter(|_| late);
        let sets: Vec<_> = [&self.members, &self.published].into_iter().chain(of_late).collect();
        let said = canaries(&String::from_utf8_lossy(said));
        said.into_iter().find(|token| !self.may_see(by, *token, &sets))
    }
}

fn find(frame: &[u8], text: &[u8]) -> bool {
    frame.windows(text.len()).any(|part| part == text)
}

/// The tokens of writes in a text: fields as `"t17":17`, and numbers in the fields `hot` and `log`.
///
/// The times of fields also name those that are no longer in the record. Who may read it may know their
/// names.
fn canaries(text: &str) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for part in text.split("\"t").skip(1) {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let value = part[end..].strip_prefix("\":");
        if value.is_some_and(|value| value.starts_with(|c: char| c.is_ascii_digit())) {
            found.extend(part[..end].parse::<u64>());
        }
    }
    for (name, skipped) in [("\"hot\":[", 1), ("\"log\":[", 0)] {
        for part in text.split(name).skip(1) {
            let list = part.split(']').next().unwrap_or_default();
            found.extend(list.split(',').skip(skipped).filter_map(|n| n.parse::<u64>().ok()));
        }
    }
    found.remove(&0);
    found
}

impl World {
    /// The server begins with these rules; from now on it is looked at what it shows.
    pub(crate) fn watch_rights(&mut self, rulebook: Rulebook) {
        self.rights = Some(Rights {
            rulebook,
            members: BTreeSet::new(),
            published: BTreeSet::new(),
            of_late: VecDeque::new(),
            bearers: BTreeMap::new(),
            replaced: BTreeSet::new(),
            strangers: BTreeMap::new(),
            states: BTreeMap::new(),
            authors: BTreeMap::new(),
        });
    }

    /// The rules of the server, if it has some.
    #[must_use]
    pub fn rulebook(&self) -> Option<&Rulebook> {
        self.rights.as_ref().map(|rights| &rights.rulebook)
    }

    /// The records of a collection that the server shows to the bearer of a token, and whether these are all
    /// that it has; `None` of a server without rules.
    #[must_use]
    pub fn shown_to(
        &self,
        token: &str,
        collection: &Collection,
    ) -> Option<(BTreeMap<RecordId, Document>, bool)> {
        let Rights { rulebook, members, .. } = self.rights.as_ref()?;
        let by = Bearer::of(token);
        let mut records = self.server_records(collection);
        records.retain(|_, record| rulebook.shows(&by, collection, record, members));
        Some((records, rulebook.shows_all(&by, collection)))
    }

    /// Returns `true` if the bearer of a token may read nothing of a collection.
    #[must_use]
    pub fn bars(&self, token: &str, collection: &Collection) -> bool {
        self.rulebook().is_some_and(|rules| rules.bars(&Bearer::of(token), collection))
    }

    /// The server takes other rules over.
    pub fn replace_rules(&mut self, rulebook: Rulebook) {
        let Some(rights) = &mut self.rights else { return };
        rights.rulebook = rulebook;
        self.count("other rules");
        self.note(|| format!("the server takes over {rulebook:?}"));
        self.config.policy = Arc::new(rulebook.rules());
        self.server.hub.set_policy(Arc::clone(&self.config.policy));
        let conns: Vec<_> = self.server.hub.sessions().map(|(conn, _)| conn).collect();
        for conn in conns {
            self.tell(conn, SessionInput::RightsChanged);
        }
    }

    /// The server ends the connections of a device's user.
    pub fn kick(&mut self, device: usize) {
        let user = self.devices[device].config.user.clone();
        self.count("kicked");
        self.note(|| format!("the server ends the connections of {user}"));
        let is_theirs = |conn: &ConnId| match self.owner(*conn) {
            Some(Owner::Device(other)) => self.devices[other].config.user == user,
            Some(Owner::Plain(_)) | None => false,
        };
        let conns: Vec<_> = self.links.keys().copied().filter(is_theirs).collect();
        conns.into_iter().for_each(|conn| self.lose_server_end(conn));
        self.sweep_links();
    }

    /// Returns `true` if a device may see less than everything, or does not see what there is at once.
    #[must_use]
    pub fn sees_in_part(&self, device: usize) -> bool {
        self.rights.is_some() || self.devices[device].config.user == "guest"
    }

    /// Returns `true` if nothing is on its way between a device and the server, neither of them has anything
    /// to say, and the server knows it by the token that it has now.
    #[must_use]
    pub fn has_heard_all(&self, device: usize) -> bool {
        let this = &self.devices[device];
        let is_busy = self.transactions() + self.reads() > 0 || self.store.poisoned;
        if is_busy || this.has_halted() || this.shared > 0 || this.dialling.is_some() {
            return false;
        }
        let [conn] = self.connections_of(device)[..] else { return false };
        let (link, hub) = (&self.links[&conn], &self.server.hub);
        let bearers = self.rights.as_ref().and_then(|rights| rights.bearers.get(&conn));
        let token = this.config.token.as_ref().map(|token| Bearer::of(token.reveal()));
        let is_known = bearers.is_none_or(|known| known.iter().eq(&token));
        let has_none = link.up.is_empty() && link.down.is_empty() && is_known;
        let is_through = link.server_end && !link.silent && !this.cut_off;
        is_through && has_none && hub.is_idle(conn) && !(link.awake && hub.wants_room(conn))
    }

    // --- who asks ---

    /// A connection has the token with which it was accepted.
    pub(super) fn bears(&mut self, conn: ConnId, token: Option<&str>) {
        if let (Some(rights), Some(token)) = (&mut self.rights, token) {
            let bearers = rights.bearers.entry(conn).or_default();
            bearers.push_back(Bearer::of(token));
            if bearers.len() > 2 {
                rights.replaced.insert(conn);
            }
        }
    }

    /// Returns `true` if a token of a connection has come while the one before it was checked: the answer
    /// about that is late by right.
    pub(super) fn has_replaced_a_token(&self, conn: ConnId) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.replaced.contains(&conn))
    }

    /// A stranger calls with a token.
    pub(super) fn calls_with(&mut self, call: CallId, token: Option<&str>) {
        if let (Some(rights), Some(token)) = (&mut self.rights, token) {
            rights.strangers.insert(call, Bearer::of(token));
        }
    }

    // --- what is shown ---

    /// Looks at a frame that is handed to a connection.
    pub(super) fn look_at_frame_down(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(rights) = &mut self.rights else { return };
        let Some(bearers) = rights.bearers.get_mut(&conn) else { return };
        if bearers.len() > 1 && find(frame, b"\"type\":\"authenticated\"") {
            // of several tokens only the last one counts
            bearers.drain(..bearers.len() - 1);
        }
        let Some(by) = bearers.front().cloned() else { return };
        if find(frame, b"\"reason\":\"filter\"") {
            self.count("withheld in a stream");
        }
        let Some(rights) = &self.rights else { return };
        if let Some(token) = rights.forbidden_in(&by, frame, false) {
            let said = String::from_utf8_lossy(frame).into_owned();
            let what = format!("{conn} of {by:?} is shown {token} in {said}");
            self.fail(Invariant::NothingForbidden, what);
        }
    }

    /// Looks at an answer by HTTP.
    pub(super) fn look_at_reply(&mut self, call: CallId, token: Option<&str>, body: &[u8]) {
        let Some(rights) = &mut self.rights else { return };
        let stranger = rights.strangers.remove(&call);
        let Some(by) = token.map(Bearer::of).or(stranger) else { return };
        if let Some(token) = rights.forbidden_in(&by, body, true) {
            let said = String::from_utf8_lossy(body).into_owned();
            let what = format!("{by:?} is shown {token} in the answer {said}");
            self.fail(Invariant::NothingForbidden, what);
        }
    }

    // --- what is committed ---

    /// Looks at which memberships there are in the server's store.
    pub(super) fn look_at_members(&mut self) {
        if self.rights.is_none() {
            return;
        }
        let members = self.server_records(&memberships()).into_keys().collect();
        if let Some(rights) = &mut self.rights
            && rights.members != members
        {
            let before = std::mem::replace(&mut rights.members, members);
            rights.of_late.push_back(before);
            if rights.of_late.len() > LATE {
                rights.of_late.pop_front();
            }
        }
    }

    /// The server knows the memberships in its store.
    pub(super) fn members_are_known(&mut self) {
        if let Some(rights) = &mut self.rights {
            rights.published = rights.members.clone();
        }
    }

    /// Judges what a batch has changed, and keeps its states in mind.
    pub(super) fn judge(&mut self, batch: &JobBatch<HubJob>, committed: &[Committed]) {
        let Some(rights) = &self.rights else { return };
        let (rulebook, mut members) = (rights.rulebook, rights.published.clone());
        let authors = authors_of(batch);
        let mut wrong = None;
        for change in committed {
            let (collection, id) = &change.place;
            let by = authors.get(&(collection.clone(), change.seq));
            if let Some(by) = by {
                let what = (collection, change.kind);
                let (before, after) = (change.before.as_ref(), change.after.as_ref());
                if !rulebook.permits(by, what, before, after, &members) {
                    wrong = Some(format!("{by:?} was let make {change:?}"));
                }
            }
            if *collection == memberships() {
                match change.after {
                    Some(_) => members.insert(id.clone()),
                    None => members.remove(id),
                };
            }
        }
        let refused = refusals_of(batch).find(|(collection, message)| {
            !message.contains("rule") && !message.contains("read") || {
                message.contains("rule") && rulebook.permits_all(collection)
            }
        });
        if let Some((collection, message)) = refused {
            wrong = Some(format!("a write to {collection} was refused: {message}"));
        }
        if let Some(wrong) = wrong {
            self.fail(Invariant::RightsFollowed, wrong);
        }
        refusals_of(batch).for_each(|_| self.count("write refused by a rule"));
        for change in committed.iter().filter(|change| change.place.0 == memberships()) {
            match (&change.before, &change.after) {
                (None, Some(_)) => self.count("membership begun"),
                (Some(_), None) => self.count("membership ended"),
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        for change in committed {
            let author = authors.get(&(change.place.0.clone(), change.seq));
            let Some(rights) = &mut self.rights else { return };
            if rights.remember(change, author) {
                self.count("given away");
            }
        }
    }
}

/// The authors of the changes of a batch, by their seqs.
fn authors_of(batch: &JobBatch<HubJob>) -> BTreeMap<(Collection, Seq), Bearer> {
    let mut authors = BTreeMap::new();
    for (by, outcome) in outcomes_of(batch) {
        if let (Some(by), Verdict::Applied { seq, .. }) = (by, &outcome.verdict) {
            authors.insert((outcome.collection.clone(), *seq), bearer_of(by));
        }
    }
    authors
}

/// The writes of a batch that were refused by rights, each with the reason.
fn refusals_of(batch: &JobBatch<HubJob>) -> impl Iterator<Item = (&Collection, &str)> {
    outcomes_of(batch).filter_map(|(_, outcome)| match &outcome.verdict {
        Verdict::Refused { code: ErrorCode::Unauthorized, message } => {
            Some((&outcome.collection, message.as_str()))
        }
        Verdict::Refused { .. }
        | Verdict::Applied { .. }
        | Verdict::Unchanged { .. }
        | Verdict::Conflict { .. }
        | Verdict::Superseded
        | Verdict::OutOfOrder { .. } => None,
    })
}

fn outcomes_of(batch: &JobBatch<HubJob>) -> impl Iterator<Item = (Option<&User>, &Outcome)> {
    batch.transactions().zip(batch.answers()).flat_map(|((transaction, _), answer)| {
        let (user, outcomes): (_, &[Outcome]) = match (transaction, answer) {
            (Transaction::Writes(run), Ok(TransactionAnswer::Writes(outcomes))) => {
                (run.user.as_ref(), outcomes)
            }
            (
                Transaction::Push(push),
                Ok(TransactionAnswer::Pushed(PushOutcome::Judged { outcomes, .. })),
            ) => (push.user.as_ref(), outcomes),
            (Transaction::Plain(write), Ok(TransactionAnswer::Plain(outcome))) => {
                (write.user.as_ref(), std::slice::from_ref(outcome))
            }
            _ => (None, &[]),
        };
        outcomes.iter().map(move |outcome| (user, outcome))
    })
}

fn bearer_of(user: &User) -> Bearer {
    let claims = user.claims.as_ref().map(|claims| claims.to_string()).unwrap_or_default();
    let words = ["staff", "red", "blue"].into_iter().filter(|word| claims.contains(word));
    let words: String = words.map(|word| format!("+{word}")).collect();
    Bearer::of(&format!("{}#{words}", user.id))
}
