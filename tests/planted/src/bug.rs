//! The entries: `tests/data/planted/NAME.toml` describes the bug of that name.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::source::{Edit, Source};

/// A deliberate violation of a rule of the core.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bug {
    /// Its name: that of its file.
    #[serde(skip)]
    pub(crate) name: String,
    /// Its effect.
    pub(crate) breaks: String,
    /// The rule of `PROTOCOL.md` that it breaks, where one says it.
    pub(crate) rule: Option<String>,
    /// The sentence that a model of the protocol has shown to be needed, where it breaks one.
    pub(crate) sentence: Option<String>,
    pub(crate) change: Vec<Change>,
}

/// One change of the core's source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The file, from `core/src` on.
    pub(crate) file: String,
    /// A text that occurs in it exactly once, white space apart, and within a function.
    pub(crate) text: String,
    /// The text in its place.
    pub(crate) instead: String,
}

impl Bug {
    /// Its effect, and the rule in parentheses.
    pub(crate) fn effect(&self) -> String {
        match &self.rule {
            Some(rule) => format!("{} ({rule}).", self.breaks.trim_end_matches('.')),
            None => self.breaks.clone(),
        }
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads all entries, in the order of their names.
pub(crate) fn all() -> Result<Vec<Bug>, String> {
    let folder = root().join("tests/data/planted");
    let said = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut bugs = Vec::new();
    for entry in fs::read_dir(&folder).map_err(said)? {
        let path = entry.map_err(said)?.path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            bugs.push(read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
        }
    }
    bugs.sort_by(|one: &Bug, other| one.name.cmp(&other.name));
    Ok(bugs)
}

fn read(path: &Path) -> Result<Bug, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let bug: Bug = toml::from_str(&text).map_err(|error| error.to_string())?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Bug { name, ..bug })
}

/// Puts all bugs into a source file, each behind a choice at run time: a function has its body
/// once as it is, and once for each bug in it. Names the entries that find no place.
pub(crate) fn plant(file: &str, text: &str, bugs: &[Bug]) -> Result<String, Vec<String>> {
    let source = Source::new(text.to_owned());
    let (mut variants, mut misplaced) = (BTreeMap::<_, BTreeMap<&str, Vec<_>>>::new(), Vec::new());
    for bug in bugs {
        for change in bug.change.iter().filter(|change| change.file == file) {
            match place(&source, change) {
                Ok((body, edit)) => {
                    let of_body = variants.entry((body.start, body.end)).or_default();
                    of_body.entry(&*bug.name).or_default().push(edit);
                }
                Err(why) => {
                    misplaced.push(format!("{}: {file}: {why}:\n{}", bug.name, change.text))
                }
            }
        }
    }
    if !misplaced.is_empty() {
        return Err(misplaced);
    }
    let mut planted = text.to_owned();
    for ((start, end), bugs) in variants.into_iter().rev() {
        planted.replace_range(start..end, &choice(text, start..end, bugs));
    }
    Ok(planted)
}

/// The edit of a change, and the body of the function around it.
fn place(source: &Source, change: &Change) -> Result<(Range<usize>, Edit), String> {
    match &source.edits(&change.text, &change.instead)[..] {
        [edit] => match source.body_around(&edit.at) {
            Some(body) => Ok((body, edit.clone())),
            None => Err("this text is not within a function".into()),
        },
        [] => Err("this text is not there any more".into()),
        many => Err(format!("this text is there {} times; take more of it", many.len())),
    }
}

/// A body that is chosen at run time.
fn choice(text: &str, body: Range<usize>, bugs: BTreeMap<&str, Vec<Edit>>) -> String {
    let mut chosen = String::from("{ match crate::planted::on() {\n");
    for (name, mut edits) in bugs {
        edits.sort_by_key(|edit| edit.at.start);
        let mut variant = text[body.clone()].to_owned();
        for Edit { at, new } in edits.into_iter().rev() {
            variant.replace_range(at.start - body.start..at.end - body.start, &new);
        }
        chosen += &format!("Some(crate::planted::Bug::{name}) => {variant}\n");
    }
    chosen + &format!("_ => {}\n}} }}", &text[body])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn bug(name: &str, text: &str, instead: &str) -> Bug {
        let change = Change { file: "a.rs".into(), text: text.into(), instead: instead.into() };
        let (breaks, rule, sentence) = (String::new(), None, None);
        Bug { name: name.into(), breaks, rule, sentence, change: vec![change] }
    }

    #[test]
    fn two_bugs_may_change_the_same_line() {
        let text = "fn a() -> u8 { if x && y { 1 } else { 2 } }";
        let bugs = [bug("One", "x && y", "y"), bug("Two", "if x", "if z")];
        let planted = plant("a.rs", text, &bugs).unwrap();
        assert_eq!(
            planted,
            "fn a() -> u8 { match crate::planted::on() {\n\
             Some(crate::planted::Bug::One) => { if y { 1 } else { 2 } }\n\
             Some(crate::planted::Bug::Two) => { if z && y { 1 } else { 2 } }\n\
             _ => { if x && y { 1 } else { 2 } }\n} }"
        );
        assert_eq!(plant("b.rs", text, &bugs).unwrap(), text, "not of this file");
    }

    #[test]
    fn a_text_has_one_place_within_a_function() {
        let why =
            |text| plant("a.rs", "use x; fn a() { b; b }", &[bug("One", text, "")]).unwrap_err();
        assert!(why("c")[0].starts_with("One: a.rs: this text is not there any more"));
        assert!(why("b")[0].starts_with("One: a.rs: this text is there 2 times"));
        assert!(why("use x")[0].starts_with("One: a.rs: this text is not within a function"));
    }

    /// Every entry fits the core as it is today. After a change of the core, give the entry the new
    /// text, and in `instead` the same violation of the rule in the new words; then see that it is
    /// still caught: `cargo run -p synclayer-planted -- --quick --seeds 20 --only none,NAME`.
    #[test]
    fn every_entry_finds_its_place() {
        let bugs = all().unwrap();
        let files: BTreeSet<_> =
            bugs.iter().flat_map(|bug| &bug.change).map(|change| &change.file).collect();
        let mut misplaced = Vec::new();
        for file in files {
            let path = root().join("core/src").join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            misplaced.extend(plant(file, &text, &bugs).err().unwrap_or_default());
        }
        assert!(
            misplaced.is_empty(),
            "{} changes in tests/data/planted find no place in core/src. Give each the text that now \
             does what its rule says, and break the rule in `instead`; then run \
             `cargo run -p synclayer-planted -- --quick --seeds 20 --only none,NAME`.\n\n{}",
            misplaced.len(),
            misplaced.join("\n\n")
        );
    }
}
