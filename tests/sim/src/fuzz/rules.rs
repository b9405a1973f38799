//! Rules of any text, and records that they are asked about.

use synclayer_core::{
    Asker, Collection, RecordId, Records, Right, RuleCase, Rules, Timestamp, UserId,
};

use super::script::Script;

/// Every other record is there.
struct Half;

impl Records for Half {
    fn exists(&self, _: &Collection, id: &RecordId) -> bool {
        id.len().is_multiple_of(2)
    }
}

/// Sets a rule, and asks about it with everything known and with nothing known of the record.
///
/// # Panics
/// When less knowledge grants or refuses more, or what is printed is not read again.
pub fn rules(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let right = Right::ALL[script.below(5)];
    let (data, new) = (script.document(), script.document());
    let Ok(text) = std::str::from_utf8(script.bytes()) else { return };
    let (messages, id) = (name("messages"), RecordId::new("r1").expect("an id"));
    let mut rules = Rules::new(false);
    if rules.set(messages.clone(), right, text).is_err() {
        return;
    }
    let user = UserId::new("ann").expect("a user");
    let by = Asker { user: Some(&user), claims: Some(&data), records: Some(&Half) };
    let asked = if right == Right::Write { Right::Delete } else { right };
    let full = RuleCase {
        by,
        right: asked,
        collection: &messages,
        id: Some(&id),
        data: Some(&data),
        new: Some(&new),
        now: Timestamp(1),
    };
    let by = Asker { records: None, ..by };
    let partial = RuleCase { by, id: None, data: None, new: None, ..full };
    let (full, partial) = (rules.judge(&full), rules.judge(&partial));
    let granted = full.granted.expect("everything is known");
    assert!(partial.granted.is_none_or(|less| less == granted), "{text}: {full:?}, {partial:?}");
    for (condition, _) in &full.conditions {
        rules.set(messages.clone(), right, condition).expect("what is printed is read again");
    }
}

fn name(text: &str) -> Collection {
    Collection::new(text).expect("a name")
}
