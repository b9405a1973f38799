//! The protocol's rules are numbered without gaps, and every rule that is cited exists.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use synclayer_sim::scenario::files_in;

/// A section and the number of a rule in it.
type Rule = (u32, u32);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn protocol() -> String {
    fs::read_to_string(root().join("core/PROTOCOL.md")).unwrap()
}

/// The rules in the order of the text: each paragraph that begins with a bold number.
fn rules() -> Vec<Rule> {
    protocol().lines().filter_map(|line| rule_at(line.strip_prefix("**")?)).collect()
}

/// Reads `9.12` at the start of a text.
fn rule_at(text: &str) -> Option<Rule> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (section, number) = text[..end].trim_end_matches('.').split_once('.')?;
    Some((section.parse().ok()?, number.parse().ok()?))
}

/// The rules that stand behind each occurrence of a word, as in `PROTOCOL 9.28, 9.29`.
fn cited_behind(text: &str, word: &str) -> Vec<Rule> {
    let lists = text.split(word).skip(1);
    let in_list = |list: &str| list.split(", ").map_while(rule_at).collect::<Vec<_>>();
    lists.flat_map(in_list).collect()
}

/// The text of comments on one line, so that a citation is found across a line break.
fn unwrapped(source: &str) -> String {
    let lines = source.lines().map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    lines.collect::<Vec<_>>().join(" ")
}

fn sources_in(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources_in(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push(path);
        }
    }
}

fn assert_known(place: &Path, cited: &[Rule]) {
    let known: BTreeSet<_> = rules().into_iter().collect();
    let unknown: Vec<_> = cited.iter().filter(|rule| !known.contains(rule)).collect();
    assert!(unknown.is_empty(), "{} cites rules that don't exist: {unknown:?}", place.display());
}

#[test]
fn rules_are_numbered_once_and_without_gaps() {
    let mut sections = BTreeMap::<u32, Vec<u32>>::new();
    for (section, number) in rules() {
        sections.entry(section).or_default().push(number);
    }
    assert_eq!(sections.len(), 16, "each section has rules");
    for (section, mut numbers) in sections {
        numbers.sort_unstable();
        let expected: Vec<u32> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "section {section}");
    }
}

#[test]
fn rules_that_the_protocol_refers_to_exist() {
    assert_known(Path::new("core/PROTOCOL.md"), &cited_behind(&protocol(), "("));
}

#[test]
fn rules_that_scenarios_show_exist() {
    let files = files_in(&root().join("tests/data/scenarios")).unwrap();
    let mut shown = 0;
    for file in files {
        let scenario: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let named = scenario["rules"].as_array().cloned().unwrap_or_default();
        let cited: Vec<_> = named.iter().map(|it| rule_at(it.as_str().unwrap()).unwrap()).collect();
        assert_known(&file, &cited);
        shown += cited.len();
    }
    assert!(shown > 200, "only {shown} citations were found");
}

#[test]
fn rules_that_comments_cite_exist() {
    let (mut sources, mut found) = (Vec::new(), 0);
    for folder in ["core", "adapters", "tests"] {
        sources_in(&root().join(folder), &mut sources);
    }
    for source in sources {
        let text = unwrapped(&fs::read_to_string(&source).unwrap());
        let cited = cited_behind(&text, "PROTOCOL ");
        assert_known(&source, &cited);
        found += cited.len();
    }
    assert!(found > 20, "only {found} citations were found");
}

#[test]
fn rules_that_planted_bugs_break_exist() {
    let mut broken = 0;
    for entry in fs::read_dir(root().join("tests/data/planted")).unwrap() {
        let path = entry.unwrap().path();
        let cited = cited_behind(&fs::read_to_string(&path).unwrap(), "\nrule = \"");
        assert_known(&path, &cited);
        broken += cited.len();
    }
    assert!(broken > 100, "only {broken} citations were found");
}
