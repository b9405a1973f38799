//! The file of rules: who may do what, and the cases that prove it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use synclayer_core::{
    Asker, Collection, Document, Limits, RecordId, Records, Right, RuleCase, RuleError, Rules,
    Timestamp, UserId,
};
use toml::Spanned;
use toml::de::DeTable;

use crate::failure::unreadable;
use crate::tokens::check_again;

/// The largest file of rules, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The contents of a file of rules.
pub(crate) struct RulesFile {
    pub(crate) rules: Rules,
    pub(crate) cases: Vec<Case>,
    /// The number of rules of each collection.
    pub(crate) counts: BTreeMap<String, usize>,
}

/// Where rules stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RulesIn {
    /// In a file of their own.
    Rules,
    /// In a server's configuration, beside its other keys.
    Configuration,
}

/// The keys of a file of rules.
const KEYS: [&str; 3] = ["default", "collections", "tests"];

#[derive(Deserialize)]
struct Sections {
    default: Option<Default>,
    #[serde(default)]
    collections: BTreeMap<Spanned<String>, Section>,
    #[serde(default)]
    tests: Vec<Spanned<CaseSection>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Default {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// In a server's configuration; they are no rules.
    scopes: Option<IgnoredAny>,
    indexes: Option<IgnoredAny>,
    read: Option<Spanned<String>>,
    create: Option<Spanned<String>>,
    update: Option<Spanned<String>>,
    delete: Option<Spanned<String>>,
    write: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseSection {
    name: Option<String>,
    user: Option<String>,
    claims: Option<toml::Table>,
    collection: String,
    id: Option<String>,
    data: Option<toml::Table>,
    new: Option<toml::Table>,
    #[serde(default)]
    records: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    can: Vec<RightName>,
    #[serde(default)]
    cannot: Vec<RightName>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RightName {
    Read,
    Create,
    Update,
    Delete,
}

impl From<RightName> for Right {
    fn from(name: RightName) -> Self {
        match name {
            RightName::Read => Self::Read,
            RightName::Create => Self::Create,
            RightName::Update => Self::Update,
            RightName::Delete => Self::Delete,
        }
    }
}

/// A case: someone, a record, and what they may do with it and what not.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) who: Who,
    pub(crate) what: What,
    pub(crate) can: Vec<Right>,
    pub(crate) cannot: Vec<Right>,
}

/// One who asks for something.
pub(crate) struct Who {
    pub(crate) user: Option<UserId>,
    pub(crate) claims: Option<Document>,
}

/// A record that is asked for, and the others that there are.
pub(crate) struct What {
    pub(crate) collection: Collection,
    pub(crate) id: RecordId,
    pub(crate) data: Option<Document>,
    pub(crate) new: Option<Document>,
    pub(crate) records: Option<Listed>,
}

/// The records that are there.
pub(crate) struct Listed(pub(crate) BTreeMap<String, Vec<String>>);

impl Records for Listed {
    fn exists(&self, collection: &Collection, id: &RecordId) -> bool {
        self.0.get(&**collection).is_some_and(|ids| ids.iter().any(|listed| *listed == **id))
    }
}

impl What {
    /// The question if someone has a right.
    pub(crate) fn case<'a>(&'a self, who: &'a Who, right: Right) -> RuleCase<'a> {
        let records = self.records.as_ref().map(|records| records as &dyn Records);
        RuleCase {
            by: Asker { user: who.user.as_ref(), claims: who.claims.as_ref(), records },
            right,
            collection: &self.collection,
            id: Some(&self.id),
            data: self.data.as_ref(),
            new: self.new.as_ref(),
            now: Timestamp(0),
        }
    }
}

impl RulesFile {
    /// Reads the rules of a file.
    pub(crate) fn read(file: &Path, within: RulesIn) -> Result<Self, String> {
        let size = fs::metadata(file).map(|found| found.len()).unwrap_or_default();
        let shown = file.display();
        if size > MAX_BYTES {
            return Err(format!("the rules {shown} are larger than {MAX_BYTES} bytes"));
        }
        let text = fs::read_to_string(file)
            .map_err(|error| format!("the rules {}", unreadable(file, &error)))?;
        Self::of_text(file, &text, within)
    }

    /// The rules of a file with this text.
    pub(crate) fn of_text(file: &Path, text: &str, within: RulesIn) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::parse(text, within)
            .map_err(|why| format!("the rules {} can't be used: {why}", file.display()))
    }

    /// Reads the rules of a file anew.
    pub(crate) fn read_again(file: &Path, within: RulesIn) -> Result<Self, String> {
        check_again(file)?;
        Self::read(file, within)
    }

    fn parse(text: &str, within: RulesIn) -> Result<Self, String> {
        let sections: Sections = toml::from_str(text).map_err(|error| {
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            format!("line {line}, column {column}: {}", error.message().trim())
        })?;
        if within == RulesIn::Rules {
            sections.stand_alone(text)?;
        }
        let some = sections.collections.values().any(|section| section.rules().count() > 0);
        let allows = match sections.default {
            Some(default) => default == Default::Allow,
            None => !some,
        };
        let (mut rules, mut counts) = (Rules::new(allows), BTreeMap::new());
        for (name, section) in &sections.collections {
            let collection = Collection::new(name.get_ref()).map_err(|error| {
                at(text, &name.span(), format!("the collection's name: {error}"))
            })?;
            for (right, expression) in section.rules() {
                rules.set(collection.clone(), right, expression.get_ref()).map_err(|error| {
                    let (line, column) = place_inside(text, &expression.span(), &error);
                    let RuleError { message, .. } = error;
                    format!("line {line}, column {column}: `{right}` of {collection}: {message}")
                })?;
                *counts.entry(name.get_ref().clone()).or_default() += 1;
            }
        }
        let cases = sections.tests.into_iter().enumerate().map(|(i, case)| {
            let span = case.span();
            case.into_inner()
                .case(i + 1)
                .map_err(|why| at(text, &span, format!("this test's {why}")))
        });
        Ok(Self { rules, cases: cases.collect::<Result<_, _>>()?, counts })
    }
}

impl Sections {
    /// Checks that there is nothing but rules.
    fn stand_alone(&self, text: &str) -> Result<(), String> {
        let table = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
        let is_other = |key: &&Spanned<Cow<'_, str>>| !KEYS.contains(&&**key.get_ref());
        if let Some(key) = table.get_ref().keys().find(is_other) {
            let why = format!("there is no key `{}` in a file of rules", key.get_ref());
            return Err(at(text, &key.span(), why));
        }
        let others = |section: &Section| section.scopes.is_some() || section.indexes.is_some();
        if let Some((name, _)) = self.collections.iter().find(|(_, section)| others(section)) {
            let why = "scopes and indexes stand in a server's configuration, which `--config` names and \
                 `config check` reads";
            return Err(at(text, &name.span(), why.to_owned()));
        }
        Ok(())
    }
}

impl Section {
    fn rules(&self) -> impl Iterator<Item = (Right, &Spanned<String>)> {
        let Self { read, create, update, delete, write, scopes: _, indexes: _ } = self;
        let all = [
            (Right::Read, read),
            (Right::Create, create),
            (Right::Update, update),
            (Right::Delete, delete),
            (Right::Write, write),
        ];
        all.into_iter().filter_map(|(right, rule)| Some((right, rule.as_ref()?)))
    }
}

impl CaseSection {
    fn case(self, number: usize) -> Result<Case, String> {
        let document = |name: &str, table: Option<toml::Table>| {
            table.map(|table| document(&table).map_err(|why| format!("{name}: {why}"))).transpose()
        };
        let user = self.user.as_deref().map(UserId::new).transpose();
        Ok(Case {
            name: self.name.unwrap_or_else(|| format!("test {number}")),
            who: Who {
                user: user.map_err(|error| format!("user: {error}"))?,
                claims: document("claims", self.claims)?,
            },
            what: What {
                collection: Collection::new(&self.collection)
                    .map_err(|error| format!("collection: {error}"))?,
                id: RecordId::new(self.id.as_deref().unwrap_or("1"))
                    .map_err(|error| format!("id: {error}"))?,
                data: document("data", self.data)?,
                new: document("new", self.new)?,
                records: Some(Listed(self.records)),
            },
            can: self.can.into_iter().map(Into::into).collect(),
            cannot: self.cannot.into_iter().map(Into::into).collect(),
        })
    }
}

fn document(table: &toml::Table) -> Result<Document, String> {
    let json = serde_json::to_value(table).map_err(|error| error.to_string())?;
    Document::of::<Value>(&json, &Limits::default()).map_err(|error| error.to_string())
}

fn at(text: &str, span: &Range<usize>, why: String) -> String {
    let (line, column) = place(text, span.start);
    format!("line {line}, column {column}: {why}")
}

/// The line and column of a byte of a text.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let in_line = before.rsplit('\n').next().unwrap_or_default();
    (line, in_line.chars().count() + 1)
}

/// The place in the file of an error in the string that stands there.
fn place_inside(text: &str, span: &Range<usize>, error: &RuleError) -> (usize, usize) {
    let string = text.get(span.clone()).unwrap_or_default();
    let quotes = ["'''\n", "\"\"\"\n", "'''\r\n", "\"\"\"\r\n", "'''", "\"\"\""];
    let quotes = quotes.iter().find(|quotes| string.starts_with(**quotes)).map_or(1, |it| it.len());
    let (line, column) = place(text, span.start + quotes);
    if error.line == 1 {
        (line, column + error.column - 1)
    } else {
        (line + error.line - 1, error.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        RulesFile::parse(text, RulesIn::Rules).err().unwrap_or_default()
    }

    #[test]
    fn a_mistake_is_told_with_its_place_in_the_file() {
        for (text, said) in [
            ("default = \"no\"", "line 1, column 11: unknown variant `no`, expected"),
            (
                "[collections.a]\nreed = 'true'",
                "line 2, column 1: unknown field `reed`, expected one of",
            ),
            ("[collection.a]", "line 1, column 2: there is no key `collection` in a file of rules"),
            ("[collections.a]\nscopes = ['b']", "line 1, column 14: scopes and indexes stand in"),
            (
                "[collections.a]\n\nread = 'user == usr'",
                "line 3, column 17: `read` of a: there is no \"usr\"",
            ),
            (
                "[collections.a]\nread = '''\ntrue &&\n  usr'''",
                "line 4, column 3: `read` of a: there is no",
            ),
            ("[collections.a]\nread = '''usr'''", "line 2, column 11: `read` of a: there is no"),
            (
                "[collections.\"\"]\nread = 'true'",
                "line 1, column 14: the collection's name: it is empty",
            ),
            (
                "[collections.a]\nwrite = 'new.a'",
                "line 2, column 10: `write` of a: new has no value in this",
            ),
            (
                "[[tests]]\ncollection = 'a'\nuser = ''",
                "line 1, column 1: this test's user: it is empty",
            ),
        ] {
            let told = error(text);
            assert!(told.starts_with(said), "{text:?}: {told}");
        }
    }

    #[test]
    fn the_default_is_deny_as_soon_as_there_is_a_rule() {
        let judge = |text: &str, of: &str| {
            let file = RulesFile::parse(text, RulesIn::Rules).unwrap();
            let who = Who { user: None, claims: None };
            let what = What {
                collection: Collection::new(of).unwrap(),
                id: RecordId::new("1").unwrap(),
                data: None,
                new: None,
                records: None,
            };
            file.rules.judge(&what.case(&who, Right::Delete)).granted
        };
        assert_eq!(judge("", "a"), Some(true));
        assert_eq!(judge("[collections.a]\nread = 'true'", "a"), Some(false));
        assert_eq!(judge("[collections.a]\nread = 'true'", "b"), Some(false));
        assert_eq!(judge("default = 'allow'\n[collections.a]\nread = 'true'", "b"), Some(true));
        assert_eq!(judge("default = 'deny'", "b"), Some(false));
    }
}
