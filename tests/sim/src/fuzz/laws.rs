//! The laws of documents, differences, changes and resolvers.

use synclayer_core::testing::check_changes;
use synclayer_core::testing::laws::{Case, Law, Laws};
use synclayer_core::{ConflictStrategy, Document, FieldWise, Limits, Resolver, Timestamp};

use super::script::Script;

/// Makes up documents and changes, and checks what must hold of them.
///
/// # Panics
/// When something does not.
pub fn laws(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let states: [Option<Document>; 3] = std::array::from_fn(|_| state(&mut script));
    check_changes(states.each_ref().map(Option::as_ref));
    let times = [(); 2].map(|()| Timestamp(i64::from(script.byte() % 4)));
    let [base, local, remote] = states;
    let case = Case {
        base,
        local,
        remote,
        local_at: times[0],
        remote_at: times[1],
        local_field_at: vec![("a".into(), Timestamp(i64::from(script.byte() % 4)))],
        remote_field_at: Vec::new(),
    };
    resolve(&case);
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

fn resolve(case: &Case) {
    let all: [(&dyn Resolver, Laws); 9] = [
        (&ConflictStrategy::LastWriteWins, Laws::new().symmetric()),
        (&ConflictStrategy::ServerWins, Laws::new()),
        (&ConflictStrategy::ClientWins, Laws::new()),
        (&FieldWise::merge_arrays(), Laws::new()),
        (&FieldWise::sum_numbers(), Laws::new().without(Law::KeepsAgreed)),
        (&FieldWise::max_value(), Laws::new()),
        (&FieldWise::keep_local().only(["a"]), Laws::new()),
        (&FieldWise::field_last_write_wins(), Laws::new().symmetric()),
        (&FieldWise::deep_merge().or_else(FieldWise::merge_arrays()), Laws::new()),
    ];
    for (resolver, laws) in all {
        if let Err(broken) = laws.judge(case, resolver) {
            panic!("{broken}");
        }
        if let Some(result) = case.ask(resolver) {
            check_changes([Some(&result), None, None]);
        }
    }
}
