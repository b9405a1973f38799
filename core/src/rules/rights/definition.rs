//! The rules of all collections.

use core::fmt;
use core::hash::{Hash, Hasher};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::evaluate::{Fixed, Given, Outcome, Scene, judge};
use super::parse::{RuleError, parse};
use super::syntax::{Name, Node};
use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::WriteKind;
use crate::rules::policy::{Access, Asker, Policy, ProposedWrite};
use crate::rules::scope::Scope;

/// A right that a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Right {
    /// To see a record: `data`.
    Read,
    /// To insert a record that is not there: `new`.
    Create,
    /// To change a record or to put another in its place: `data` before and `new` after it, and the
    /// names of the `changed` fields.
    Update,
    /// To delete a record: `data`.
    Delete,
    /// The last three, where they have no rule of their own. `data` is the record before, or the new
    /// one where there was none.
    Write,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 5] = [Self::Read, Self::Create, Self::Update, Self::Delete, Self::Write];

    /// The name in a file of rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Write => "write",
        }
    }

    /// The names that have a value in its rules.
    fn names(self) -> &'static [Name] {
        use Name::{Changed, Claims, Collection, Data, Id, New, Now, User};
        match self {
            Self::Read => &[User, Claims, Data, Id, Collection],
            Self::Create => &[User, Claims, New, Id, Collection, Now],
            Self::Update => &[User, Claims, Data, New, Changed, Id, Collection, Now],
            Self::Delete | Self::Write => &[User, Claims, Data, Id, Collection, Now],
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A [`Policy`] made of expressions, such as a file of rules holds.
///
/// The expressions are a small subset of CEL. They know `user` (null where the server knows no users),
/// `claims` of the token, `data` (the record), `new` (the record after a write), `changed` (the names of
/// the fields that a write changes), `id`, `collection`, and in rules about writing `now` (milliseconds
/// since 1970); `==` `!=` `<` `<=` `>` `>=` `in` `&&` `||` `!`, `+` between texts, `a.b` and `a["b"]`,
/// `has(a.b)`, `size(a)`, `.startsWith()`, `.endsWith()`, `.contains()`, and
/// `exists("collection", id)`, which is true if there is such a record.
///
/// An expression that has no value, because a field is missing or values can't be compared, refuses;
/// `&&` and `||` have one if any of their operands decides.
///
/// ```
/// use synclayer_core::{Asker, Access, Collection, Document, Limits, Policy, RecordId, Right, Rules, UserId};
///
/// let notes = Collection::new("notes")?;
/// let mut rules = Rules::new(false);
/// rules.set(notes.clone(), Right::Read, "user in data.members")?;
///
/// let ann = UserId::new("ann")?;
/// let ann = Asker { user: Some(&ann), claims: None, records: None };
/// assert_eq!(rules.access(&ann, &notes), Access::Some, "it depends on the record");
/// let note = Document::parse(r#"{"members": ["ann", "bob"]}"#, &Limits::default())?;
/// assert!(rules.shows(&ann, &notes, &RecordId::new("1")?, &note));
///
/// let wrong = rules.set(notes, Right::Write, "data.owner == usr").unwrap_err();
/// assert!(wrong.to_string().starts_with("line 1, column 15: there is no \"usr\""));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rules {
    allows: bool,
    collections: BTreeMap<Collection, BTreeMap<Right, Rule>>,
}

#[derive(Clone, Debug)]
struct Rule {
    node: Node,
    /// The collections at whose records it looks.
    looks: BTreeSet<Collection>,
    /// The claims that it asks for; `None` if it may ask for any.
    claims: Option<BTreeSet<Box<str>>>,
    /// A number for its text.
    number: u64,
}

impl Rule {
    fn new(node: Node) -> Self {
        let looks = node.looks();
        let number = xxh3_64(node.to_string().as_bytes());
        Self { looks, claims: node.claims(), number, node }
    }

    /// A number for the rule and the claims that it asks for.
    fn stamp(&self, claims: Option<&Document>) -> u64 {
        let mut hasher = Xxh3::with_seed(self.number);
        let Some(claims) = claims else { return hasher.finish() };
        match &self.claims {
            Some(names) => names.iter().for_each(|name| claims.text(name).hash(&mut hasher)),
            None => claims.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Something that a user may or may not do, for [`Rules::judge`]. What is `None` is not known yet.
#[derive(Clone, Copy)]
pub struct RuleCase<'a> {
    /// The one who asks.
    pub by: Asker<'a>,
    /// The right that is needed.
    pub right: Right,
    /// The collection.
    pub collection: &'a Collection,
    /// The record.
    pub id: Option<&'a RecordId>,
    /// The record before.
    pub data: Option<&'a Document>,
    /// The record after a write.
    pub new: Option<&'a Document>,
    /// The time of a write.
    pub now: Timestamp,
}

/// The judgement of a [`RuleCase`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Judgement {
    /// `true` if it is granted and `false` if it is refused, whatever the rest is; `None` if it depends
    /// on something that is not known.
    pub granted: Option<bool>,
    /// The rule that judged; `None` if there is none and the default holds.
    pub rule: Option<Right>,
    /// The conditions of the rule that are joined by `&&`, each with its outcome for people.
    pub conditions: Vec<(String, String)>,
}

impl Rules {
    /// No rules: everything is allowed or nothing is, where none is [set](Self::set).
    #[must_use]
    pub fn new(allows: bool) -> Self {
        Self { allows, collections: BTreeMap::new() }
    }

    /// Sets the rule about a right in a collection.
    ///
    /// # Errors
    /// When the expression can't be read, asks for something that has no value there, or is larger than
    /// 4,096 bytes, 256 parts or 32 levels.
    pub fn set(
        &mut self,
        collection: Collection,
        right: Right,
        expression: &str,
    ) -> Result<(), RuleError> {
        let node = parse(expression, right.names())?;
        self.collections.entry(collection).or_default().insert(right, Rule::new(node));
        Ok(())
    }

    /// Judges a case, and says how.
    #[must_use]
    pub fn judge(&self, case: &RuleCase<'_>) -> Judgement {
        let given = |document: Option<_>| document.map_or(Given::Unknown, Given::Is);
        let facts = Facts {
            id: case.id,
            data: given(case.data),
            fixed: &[],
            new: given(case.new),
            now: Given::Is(case.now),
        };
        let Some((right, rule)) = self.rule(case.collection, case.right) else {
            return Judgement { granted: Some(self.allows), rule: None, conditions: Vec::new() };
        };
        let mut conditions = Vec::new();
        for part in rule.node.conditions() {
            let words = match facts.judge(part, case.right, right, &case.by, case.collection) {
                Outcome::Granted => "true".into(),
                Outcome::Refused(None) => "false".into(),
                Outcome::Refused(Some(why)) => format!("fails: {why}"),
                Outcome::Depends => "depends on what is not known".into(),
            };
            conditions.push((part.to_string(), words));
        }
        let outcome = facts.judge(&rule.node, case.right, right, &case.by, case.collection);
        let granted = match outcome {
            Outcome::Granted => Some(true),
            Outcome::Refused(_) => Some(false),
            Outcome::Depends => None,
        };
        Judgement { granted, rule: Some(right), conditions }
    }

    /// The access to the records of which this is known.
    fn access_to(&self, fixed: &[Fixed<'_>], by: &Asker<'_>, collection: &Collection) -> Access {
        let (missing, id) = (Given::Missing, None);
        let unknown = Facts { id, data: Given::Unknown, fixed, new: missing, now: Given::Missing };
        // other records may come and go while the stream is open
        let by = Asker { records: None, ..*by };
        match self.allows(&unknown, &by, collection, Right::Read) {
            Outcome::Granted => Access::All,
            Outcome::Refused(_) => Access::None,
            Outcome::Depends => match self.rule(collection, Right::Read) {
                Some((_, rule)) if !rule.looks.is_empty() => Access::Related,
                Some(_) | None => Access::Some,
            },
        }
    }

    /// The rule about a right, with the right that it was set for.
    fn rule(&self, collection: &Collection, right: Right) -> Option<(Right, &Rule)> {
        let rules = self.collections.get(collection)?;
        let or_write = (right != Right::Read).then_some(Right::Write);
        let mut rights = [Some(right), or_write].into_iter().flatten();
        rights.find_map(|right| Some((right, rules.get(&right)?)))
    }

    fn allows(
        &self,
        facts: &Facts<'_>,
        by: &Asker<'_>,
        collection: &Collection,
        right: Right,
    ) -> Outcome {
        match self.rule(collection, right) {
            Some((of, rule)) => facts.judge(&rule.node, right, of, by, collection),
            None if self.allows => Outcome::Granted,
            None => Outcome::Refused(None),
        }
    }
}

/// The facts that a rule may ask about, besides who asks.
struct Facts<'a> {
    id: Option<&'a RecordId>,
    data: Given<&'a Document>,
    /// The known parts of `data` where that is unknown.
    fixed: &'a [Fixed<'a>],
    new: Given<&'a Document>,
    now: Given<Timestamp>,
}

impl Facts<'_> {
    /// Judges by a rule that was set for the right `of`.
    fn judge(
        &self,
        rule: &Node,
        right: Right,
        of: Right,
        by: &Asker<'_>,
        collection: &Collection,
    ) -> Outcome {
        let changed = match (self.data, self.new) {
            (Given::Is(data), Given::Is(new)) => Some(changed(data, new)),
            (_, _) => None,
        };
        // `write` has one name for the record, be it the old one or a new one
        let data = if of == Right::Write && right == Right::Create { self.new } else { self.data };
        let scene = Scene {
            by,
            collection,
            id: self.id.map_or(Given::Unknown, |id| Given::Is(id)),
            data,
            fixed: self.fixed,
            new: self.new,
            changed: changed.as_deref().map_or(Given::Unknown, Given::Is),
            now: match self.now {
                Given::Is(now) => Given::Is(now.0),
                Given::Unknown => Given::Unknown,
                Given::Missing => Given::Missing,
            },
        };
        judge(rule, &scene)
    }
}

/// The names of the fields in which two documents differ.
fn changed<'a>(data: &'a Document, new: &'a Document) -> Vec<&'a str> {
    let mut names = Vec::new();
    names.extend(data.iter().filter(|(name, text)| new.text(name) != Some(text)).map(|(n, _)| n));
    names.extend(new.iter().filter(|(name, _)| data.text(name).is_none()).map(|(name, _)| name));
    names
}

impl Policy for Rules {
    fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
        self.access(&Asker { user, claims: None, records: None }, collection)
    }

    fn access(&self, by: &Asker<'_>, collection: &Collection) -> Access {
        self.access_to(&[], by, collection)
    }

    fn access_to_scope(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        parts: &[(String, String)],
    ) -> Access {
        // what can be no scope fixes nothing
        let parts = Scope::of(parts).map_or(&[][..], |_| parts);
        let fixed: Vec<_> = parts.iter().map(|(part, json)| Fixed::new(part, json)).collect();
        self.access_to(&fixed, by, collection)
    }

    fn stamp(&self, by: &Asker<'_>, collection: &Collection) -> u64 {
        self.rule(collection, Right::Read).map_or(0, |(_, rule)| rule.stamp(by.claims))
    }

    fn looks_at(&self, _: &Asker<'_>, collection: &Collection) -> Option<BTreeSet<Collection>> {
        self.rule(collection, Right::Read).map(|(_, rule)| rule.looks.clone())
    }

    fn shows(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
    ) -> bool {
        let facts = Facts {
            id: Some(id),
            data: Given::Is(document),
            fixed: &[],
            new: Given::Missing,
            now: Given::Missing,
        };
        self.allows(&facts, by, collection, Right::Read) == Outcome::Granted
    }

    fn permits(&self, by: &Asker<'_>, write: &ProposedWrite<'_>) -> Result<(), String> {
        let ProposedWrite { collection, id, before, change, now } = *write;
        let after = change.apply(before);
        let right = match (before, change.kind) {
            (None, WriteKind::Insert) => Right::Create,
            (Some(_), WriteKind::Insert) | (_, WriteKind::Update) => Right::Update,
            (_, WriteKind::Delete) => Right::Delete,
        };
        // an update or a deletion of what is not there changes nothing: only a rule that refuses it
        // whatever the record is has something to say
        let absent = before.is_none() && right != Right::Create;
        let given = |document: Option<_>| match document {
            Some(document) => Given::Is(document),
            None if absent => Given::Unknown,
            None => Given::Missing,
        };
        let facts = Facts {
            id: Some(id),
            data: given(before),
            fixed: &[],
            new: given(after.as_ref()),
            now: Given::Is(now),
        };
        match self.allows(&facts, by, collection, right) {
            Outcome::Granted => Ok(()),
            Outcome::Depends if absent => Ok(()),
            Outcome::Refused(_) | Outcome::Depends => Err(match self.rule(collection, right) {
                Some((of, _)) => {
                    format!("the rule `{of}` of {collection} does not permit this {right}")
                }
                None => format!("no rule of {collection} permits a {right}"),
            }),
        }
    }
}
