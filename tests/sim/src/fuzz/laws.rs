//! The laws of documents, differences, changes and resolvers.

use synclayer_core::testing::laws::{Case, Law, Laws};
use synclayer_core::{
    Change, ConflictStrategy, Delta, Document, FieldWise, Limits, Resolver, Timestamp, WriteKind,
};

use super::script::Script;

/// Makes up documents and changes, and checks what must hold of them.
///
/// # Panics
/// When something does not.
pub fn laws(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let states: [Option<Document>; 3] = std::array::from_fn(|_| state(&mut script));
    let [a, b, c] = &states;
    states.iter().flatten().for_each(is_itself);
    if let (Some(a), Some(b)) = (a, b) {
        differ(a, b);
    }
    let changes = [change(a.as_ref(), b.as_ref()), change(b.as_ref(), c.as_ref())];
    if let [Some(one), Some(later)] = &changes {
        squash(one, later, a.as_ref());
        assert_eq!(one.meets(later), later.meets(one));
    }
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

fn is_itself(document: &Document) {
    let again = Document::parse(&document.to_string(), &Limits::default());
    assert_eq!(again.as_ref(), Ok(document));
    assert_eq!(document.iter().count(), document.len());
    assert!(document.iter().is_sorted());
    assert!(document.iter().all(|(name, text)| document.get(name) == Some(text)));
    assert!(Delta::between(document, document).is_empty());
}

fn differ(a: &Document, b: &Document) {
    let (forth, back) = (Delta::between(a, b), Delta::between(b, a));
    assert_eq!(&forth.apply(a), b);
    assert_eq!(&back.apply(b), a);
    assert_eq!(&forth.then(&back).apply(a), a);
    assert_eq!(forth.overlaps(&back), !forth.is_empty());
    assert_eq!(forth.fields().count(), back.fields().count());
}

fn change(old: Option<&Document>, new: Option<&Document>) -> Option<Change> {
    let change = Change::between(old, new);
    match &change {
        Some(change) => assert_eq!(change.apply(old).as_ref(), new),
        None => assert_eq!(old, new),
    }
    change
}

fn squash(one: &Change, later: &Change, record: Option<&Document>) {
    let one_by_one = later.apply(one.apply(record).as_ref());
    match one.then(later) {
        Some(squashed) => assert_eq!(squashed.apply(record), one_by_one),
        None => assert_eq!((one.kind, later.kind), (WriteKind::Delete, WriteKind::Update)),
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
            is_itself(&result);
        }
    }
}
