//! Own writes that a server sends back. Some plain servers do, some don't, and nothing in a message
//! says whose it is. An echo of a write that a later one has replaced must not be shown: the later
//! one's is still to come. Should it not come, it was no echo, and is taken in after a while.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::message::ServerChange;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Mono;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::plain::same_field;

/// The longest time of an own write on its way back.
const ECHO_TIME: Duration = Duration::from_secs(10);
/// The time for which a possible echo waits for the echo of the later write.
const HOLD: Duration = Duration::from_secs(5);
/// The time for which an own write is recognised in the server's answers.
const OWN_TIME: Duration = Duration::from_secs(60);
/// The most writes of one record that are remembered.
const MAX_WRITES: usize = 64;
/// The most records whose writes are remembered.
const MAX_RECORDS: usize = 1024;

type Key = (Collection, RecordId);

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Echoes {
    sent: BTreeMap<Key, VecDeque<(Mono, Change)>>,
    held: BTreeMap<Key, (Mono, ServerChange)>,
    /// The writes that were sent, on any connection.
    own: BTreeMap<Key, VecDeque<(Mono, Change)>>,
}

impl Echoes {
    /// An own write goes out.
    pub(super) fn expect(&mut self, key: Key, change: &Change, now: Mono) {
        if self.sent.len() >= MAX_RECORDS {
            self.sent.retain(|_, own| own.back().is_some_and(|(at, _)| *at + ECHO_TIME > now));
        }
        if self.own.len() >= MAX_RECORDS {
            self.own.retain(|_, own| own.back().is_some_and(|(at, _)| *at + OWN_TIME > now));
        }
        for (all, max) in [(&mut self.own, OWN_TIME), (&mut self.sent, ECHO_TIME)] {
            if all.len() >= MAX_RECORDS && !all.contains_key(&key) {
                continue;
            }
            let writes = all.entry(key.clone()).or_default();
            let is_past = |(at, _): &(Mono, Change)| *at + max <= now;
            while writes.len() >= MAX_WRITES || writes.front().is_some_and(is_past) {
                writes.pop_front();
            }
            writes.push_back((now, change.clone()));
        }
    }

    /// Returns `true` if a value that the server shows was written here not long ago.
    pub(super) fn is_own(&self, key: &Key, name: &str, text: Option<&str>, now: Mono) -> bool {
        let own = self.own.get(key).into_iter().flatten();
        own.filter(|(at, own)| *at + OWN_TIME > now && own.touches(name))
            .any(|(_, own)| same_field(own.delta.set.text(name), text))
    }

    /// Something newer is known of a record than what is held.
    pub(super) fn supersede(&mut self, key: &Key) {
        self.held.remove(key);
    }

    /// A change comes: what of it is to be taken in now.
    pub(super) fn hear(
        &mut self,
        key: &Key,
        news: &ServerChange,
        now: Mono,
    ) -> Option<ServerChange> {
        let Some(own) = self.sent.get_mut(key) else {
            self.held.remove(key);
            return Some(news.clone());
        };
        while own.front().is_some_and(|(at, _)| *at + ECHO_TIME <= now) {
            own.pop_front();
        }
        let Some((_, last)) = own.back() else {
            self.sent.remove(key);
            return Some(news.clone());
        };
        if is_echo(last, &news.change) {
            self.sent.remove(key);
            self.held.remove(key);
            return Some(news.clone());
        }
        let older = own.iter().rev().skip(1).any(|(_, own)| is_echo(own, &news.change));
        let passed = |name: &str, text: Option<&str>| {
            let mut own = own.iter().rev().filter(|(_, own)| own.touches(name));
            let same = |(_, own): &(Mono, Change)| same_field(own.delta.set.text(name), text);
            own.next().is_some_and(|last| !same(last)) && own.any(same)
        };
        let (held, rest): (Vec<_>, Vec<_>) =
            news.change.delta.fields().partition(|(name, text)| passed(name, *text));
        if older && (last.kind == WriteKind::Delete || news.change.kind == WriteKind::Delete) {
            self.held.insert(key.clone(), (now + HOLD, news.clone()));
            return None;
        }
        if held.is_empty() {
            // what came before it is past
            self.held.remove(key);
            return Some(news.clone());
        }
        let held = ServerChange { change: update_of(&held), ..news.clone() };
        let rest = ServerChange { change: update_of(&rest), ..news.clone() };
        self.held.insert(key.clone(), (now + HOLD, held));
        (!rest.change.delta.is_empty()).then_some(rest)
    }

    /// Returns `true` if an own write of the record may still be on its way.
    pub(super) fn expects(&self, key: &Key, now: Mono) -> bool {
        let own = self.sent.get(key).and_then(VecDeque::back);
        own.is_some_and(|(at, _)| *at + ECHO_TIME > now)
    }

    /// When something was held long enough.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.held.values().map(|(until, _)| *until).min()
    }

    /// Returns the changes that were no echoes after all.
    pub(super) fn release(&mut self, now: Mono) -> Vec<(Key, ServerChange)> {
        let due =
            |(key, (until, _)): (&Key, &(Mono, ServerChange))| (*until <= now).then(|| key.clone());
        let due: Vec<_> = self.held.iter().filter_map(due).collect();
        due.into_iter()
            .filter_map(|key| {
                self.sent.remove(&key);
                let (_, change) = self.held.remove(&key)?;
                Some((key, change))
            })
            .collect()
    }

    /// The connection on which they were to come is gone.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.held.clear();
    }
}

/// Returns `true` if a change that comes says the same as an own write.
fn is_echo(own: &Change, news: &Change) -> bool {
    if own.kind == WriteKind::Delete || news.kind == WriteKind::Delete {
        return own.kind == news.kind;
    }
    // a server may send the whole record for an update
    own.delta.fields().all(|(name, text)| same_field(news.delta.set.text(name), text))
}

fn update_of(fields: &[(&str, Option<&str>)]) -> Change {
    let set: Vec<_> = fields.iter().filter_map(|(name, text)| Some((*name, (*text)?))).collect();
    let unset = fields.iter().filter(|(_, text)| text.is_none());
    let unset = unset.map(|(name, _)| (*name).into()).collect();
    let mut set = set;
    set.sort_unstable_by_key(|(name, _)| *name);
    Change::update(Delta::new(Document::of_sorted(&set), unset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::Limits;
    use alloc::string::{String, ToString};

    fn key() -> Key {
        (Collection::new("todos").unwrap(), RecordId::new("a").unwrap())
    }

    fn update(json: &str) -> Change {
        let set = Document::parse(json, &Limits::default()).unwrap();
        Change::update(Delta::new(set, Vec::new()))
    }

    fn news(change: Change) -> ServerChange {
        let (seq, version, timestamp, at, user_id) = (None, None, None, Vec::new(), None);
        ServerChange { change, seq, version, timestamp, at, user_id }
    }

    fn hear(echoes: &mut Echoes, change: Change, now: u64) -> Option<String> {
        let heard = echoes.hear(&key(), &news(change), Mono(now))?;
        Some(heard.change.delta.set.to_string())
    }

    /// Two own writes are out.
    fn two() -> Echoes {
        let mut echoes = Echoes::default();
        echoes.expect(key(), &update(r#"{"a":1}"#), Mono(0));
        echoes.expect(key(), &update(r#"{"a":2}"#), Mono(0));
        echoes
    }

    #[test]
    fn the_echo_of_a_replaced_write_is_not_shown() {
        let mut echoes = two();
        assert_eq!(hear(&mut echoes, update(r#"{"a":1.0}"#), 10), None);
        assert_eq!(hear(&mut echoes, update(r#"{"a":2}"#), 20).unwrap(), r#"{"a":2}"#);
        assert_eq!((echoes.deadline(), echoes.release(Mono(99_999))), (None, Vec::new()));
    }

    #[test]
    fn what_someone_else_wrote_is_shown() {
        let mut echoes = two();
        assert_eq!(hear(&mut echoes, update(r#"{"a":7}"#), 10).unwrap(), r#"{"a":7}"#);
        assert_eq!(hear(&mut echoes, update(r#"{"a":1,"b":3}"#), 10).unwrap(), r#"{"b":3}"#);
    }

    #[test]
    fn what_was_no_echo_is_taken_in_later() {
        let mut echoes = two();
        assert_eq!(hear(&mut echoes, update(r#"{"a":1}"#), 10), None);
        assert_eq!(echoes.deadline(), Some(Mono(5_010)));
        assert!(echoes.release(Mono(5_009)).is_empty());
        let released = echoes.release(Mono(5_010));
        assert_eq!(released[0].1.change.delta.set.to_string(), r#"{"a":1}"#);
        assert_eq!(hear(&mut echoes, update(r#"{"a":1}"#), 5_020).unwrap(), r#"{"a":1}"#);
    }

    #[test]
    fn a_record_that_was_deleted_here_does_not_flash_up() {
        let mut echoes = two();
        echoes.expect(key(), &Change::delete(), Mono(0));
        assert_eq!(hear(&mut echoes, update(r#"{"a":2}"#), 10), None);
        assert!(echoes.hear(&key(), &news(Change::delete()), Mono(20)).is_some());
        assert_eq!(echoes.deadline(), None);
    }

    #[test]
    fn an_own_write_is_forgotten_after_a_while() {
        let mut echoes = two();
        assert!(echoes.expects(&key(), Mono(9_999)) && !echoes.expects(&key(), Mono(10_000)));
        assert_eq!(hear(&mut echoes, update(r#"{"a":1}"#), 10_000).unwrap(), r#"{"a":1}"#);
    }
}
