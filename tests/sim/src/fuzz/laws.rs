//! The laws of documents, differences, changes and resolvers.

use synclayer_core::testing::check_changes;
use synclayer_core::{Document, Limits, Timestamp};

use super::script::Script;

/// Makes up documents and changes, and checks what must hold of them.
///
/// # Panics
/// When something does not.
pub fn laws(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let states: [Option<Document>; 3] = std::array::from_fn(|_| state(&mut script));
    let times = std::array::from_fn(|_| Timestamp(i64::from(script.byte() % 4)));
    check_changes(states.each_ref().map(Option::as_ref), times);
}

/// Mostly one of few fields, sometimes as the bytes have it.
fn state(script: &mut Script<'_>) -> Option<Document> {
    match script.below(8) {
        0 => None,
        1 => {
            let text = std::str::from_utf8(script.bytes()).ok()?;
            Document::parse(text, &Limits::default()).ok()
        }
        _ => Some(script.document()),
    }
}
