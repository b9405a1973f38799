//! Every scenario file holds, and none holds whatever it says.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::{Value, json};
use synclayer_sim::data;
use synclayer_sim::scenario::{files_in, run, run_text};

fn folder() -> PathBuf {
    data::path("scenarios")
}

#[test]
fn every_scenario_holds() {
    let files = files_in(&folder()).unwrap();
    assert!(files.len() >= 100, "only {} files were found", files.len());
    let failures: Vec<_> = files.iter().filter_map(|file| run(file).err()).collect();
    let lines: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", lines.join("\n"));
}

/// At each step in turn: expects too little, too much, or something else.
#[test]
fn a_wrong_expectation_fails_at_its_step() {
    for file in files_in(&folder()).unwrap() {
        let right: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for index in 0..right["steps"].as_array().unwrap().len() {
            let mut wrong = right.clone();
            let out = wrong["steps"][index]["out"].as_array_mut().unwrap();
            let spoilt = match index % 3 {
                0 => out.pop().is_some(),
                1 => out.first_mut().is_some_and(spoil_leaf),
                _ => false,
            };
            if !spoilt {
                out.push(json!({"event": "syncStarted"}));
            }
            let failure = run_text(&file, &wrong.to_string()).unwrap_err();
            assert_eq!(failure.step, index + 1, "{failure}");
        }
    }
}

/// Changes the first value that holds no others.
fn spoil_leaf(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => match items.first_mut() {
            Some(first) => spoil_leaf(first),
            None => {
                items.push(Value::Null);
                true
            }
        },
        Value::Object(fields) => fields.values_mut().next().is_some_and(spoil_leaf),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = json!("something else");
            true
        }
    }
}

#[test]
fn the_first_difference_is_readable() {
    let file = folder().join("client/write-shows-at-once.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let wrong = text.replacen(r#""base": 5"#, r#""base": 4"#, 1);
    let failure = run_text(&file, &wrong).unwrap_err();
    let lines: Vec<_> = failure.what.lines().collect();
    assert_eq!(failure.step, 1);
    assert!(lines[0].contains("Shown as pending"), "{failure}");
    assert_eq!(lines[1], r#"  in        {"update": {"at": "todos/a", "set": {"n": 2}}}"#);
    assert_eq!(lines[2], "  at        out[2]/send/metadata/base");
    assert_eq!(lines[3..5], ["  expected  4", "  came      5"]);
}

#[test]
fn a_file_that_says_nothing_sensible_is_refused() {
    let file = folder().join("client/made-up.json");
    for (text, complaint) in [
        ("{", "EOF"),
        (r#"{"title": "t", "kind": "client", "steps": [{"in": "dance"}]}"#, "dance"),
        (r#"{"title": "t", "kind": "client", "steps": [{"in": "connect", "on": 1}]}"#, "on"),
        (r#"{"title": "t", "kind": "client", "config": {"windwo": 1}, "steps": []}"#, "windwo"),
        (
            r#"{"title": "t", "kind": "client", "steps": [{"in": {"fail": "ack"}}]}"#,
            "no batch came",
        ),
        (r#"{"title": "t", "kind": "server", "steps": [{"in": "gone"}]}"#, "no connection 1"),
        (r#"{"title": "t", "kind": "client", "after": "nobody", "steps": []}"#, "nobody.json"),
    ] {
        let failure = run_text(&file, text).unwrap_err().to_string();
        assert!(failure.contains(complaint), "{text}: {failure}");
    }
}
