//! The demo, as a newcomer runs it.

use serde_json::Value;

use crate::support::run;

#[test]
fn the_demo_shows_what_it_promises() {
    let demo = run(["demo"]).ends_with(0);
    assert_eq!(demo.stderr, "");
    let steps = [
        "A and B open their stores and connect",
        "A saves a todo, B shows it",
        "B is cut off",
        "the conflict is resolved on both",
        "it is gone on B",
        "A, B and the server hold the same",
    ];
    let mut rest = &*demo.stdout;
    for step in steps {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step:?} is missing: {demo:?}"));
        rest = &rest[at..];
    }
}

#[test]
fn the_demo_tells_programs_the_same() {
    let lines = run(["demo", "--json"]).ends_with(0).lines();
    let timed = lines.iter().filter(|line| line["ms"].is_number()).count();
    assert!(timed >= 7, "{lines:?}");
    assert_eq!(lines.last().map(|line| &line["done"]), Some(&Value::Bool(true)));
}
