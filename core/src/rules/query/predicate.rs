//! Predicates: which documents a query is about.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::error::QueryError;
use super::operator::{Operator, Takes};
use super::path::FieldPath;
use super::value::{self, successor};
use crate::protocol::document::{Document, json_string};
use crate::protocol::json;

/// The maximal nesting of `and`, `or` and `not`.
pub(super) const MAX_DEPTH: usize = 16;
/// The maximal number of conditions, `and`, `or` and `not` counted.
pub(super) const MAX_CONDITIONS: usize = 256;
/// The maximal number of values of all conditions together.
pub(super) const MAX_VALUES: usize = 1000;

/// A condition on documents: one of a field, or several joined by `and`, `or` and `not`. The default
/// is met by every document.
///
/// A condition is met or not, and nothing between. A field that is missing meets no condition but
/// those that deny one: `isNotEqualTo`, `whereNotIn` and `isNotNull` are met exactly where
/// `isEqualTo`, `whereIn` and `isNull` are not. A missing field is not null; `exists` tells them
/// apart.
///
/// | operator | is met by a field that |
/// | --- | --- |
/// | `isEqualTo` (`==`), `isNotEqualTo` (`!=`) | equals the value: numbers exactly (`1` = `1.0`), arrays and objects in full |
/// | `isLessThan` (`<`), `isLessThanOrEqualTo` (`<=`), `isGreaterThan` (`>`), `isGreaterThanOrEqualTo` (`>=`) | is of the same kind as the value and below or above it: `isLessThan` 5 is met by numbers only |
/// | `startsWith`, `endsWith`, `contains` | is a text with this text in it |
/// | `arrayContains` | is an array with this element |
/// | `arrayContainsAny` | is an array with one of these elements |
/// | `whereIn` (`in`), `whereNotIn` (`!in`) | equals one of these values |
/// | `isNull`, `isNotNull` | is null, with `true`; the opposite with `false` |
/// | `exists` | exists, with `true`; the opposite with `false` |
///
/// Values have the order null, `false`, `true`, numbers, texts (by the bytes of UTF-8), arrays
/// (element by element), objects.
///
/// The form in JSON, which [`parse`](Self::parse) reads and `Display` writes:
///
/// ```
/// use synclayer_core::{Document, Limits, Predicate, QueryError};
///
/// let urgent = Predicate::parse(
///     r#"{"and": [{"field": "done", "isEqualTo": false}, {"field": "priority", "isGreaterThan": 1}]}"#,
/// )?;
/// let todo = |json| Document::parse(json, &Limits::default()).unwrap();
/// assert!(urgent.matches(&todo(r#"{"done": false, "priority": 2}"#)));
/// assert!(!urgent.matches(&todo(r#"{"done": false, "priority": 1.0}"#)));
/// assert!(!urgent.matches(&todo(r#"{"done": false}"#)));
///
/// let wrong = Predicate::parse(r#"{"not": {"field": "done", "is": false}}"#).unwrap_err();
/// assert!(wrong.to_string().starts_with("not: there is no operator \"is\""));
/// # Ok::<(), QueryError>(())
/// ```
///
/// `and`, `or` and `not` nest at most 16 levels deep; there are at most 256 conditions with at most
/// 1,000 values.
#[derive(Clone, PartialEq, Eq)]
pub struct Predicate {
    pub(super) node: Node,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Field(FieldPath, Test),
}

/// An operator with its values.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Test {
    operator: Operator,
    values: Vec<Literal>,
}

/// A value of a condition.
#[derive(Clone, PartialEq, Eq)]
struct Literal {
    /// As it was written.
    json: String,
    key: Vec<u8>,
}

impl Predicate {
    /// A condition on one field: the operator by its name, and its value as JSON.
    ///
    /// # Errors
    /// When there is no such operator, or it does not take the value.
    pub fn field(path: FieldPath, operator: &str, json: &str) -> Result<Self, QueryError> {
        let test = Test::read(operator, json)?;
        Self::checked(Node::Field(path, test))
    }

    /// The condition that is met where all of these are.
    ///
    /// # Errors
    /// When it is too large.
    pub fn all(conditions: impl IntoIterator<Item = Self>) -> Result<Self, QueryError> {
        Self::checked(Node::All(conditions.into_iter().map(|of| of.node).collect()))
    }

    /// The condition that is met where one of these is.
    ///
    /// # Errors
    /// When it is too large.
    pub fn any(conditions: impl IntoIterator<Item = Self>) -> Result<Self, QueryError> {
        Self::checked(Node::Any(conditions.into_iter().map(|of| of.node).collect()))
    }

    /// The condition that is met where this one is not.
    ///
    /// # Errors
    /// When it is too large.
    pub fn negated(self) -> Result<Self, QueryError> {
        Self::checked(Node::Not(Box::new(self.node)))
    }

    /// Returns `true` if a document meets the condition.
    #[must_use]
    pub fn matches(&self, document: &Document) -> bool {
        self.node.matches(document, &mut Vec::new())
    }

    /// The tests of fields that all documents meet which meet the condition.
    pub(super) fn conjuncts(&self) -> Vec<(&FieldPath, &Test)> {
        let mut tests = Vec::new();
        self.node.add_conjuncts(&mut tests);
        tests
    }

    /// The condition that is met where these are, which are parts of one that was checked.
    pub(super) fn of_all(node: Node, mut rest: Vec<Node>) -> Self {
        rest.insert(0, node);
        Self { node: Node::All(rest) }
    }

    /// Since every part was checked before, one level is added at a time.
    pub(super) fn checked(node: Node) -> Result<Self, QueryError> {
        let size = node.size();
        let problem = if size.depth > MAX_DEPTH {
            format!("`and`, `or` and `not` are nested {} deep, at most {MAX_DEPTH}", size.depth)
        } else if size.conditions > MAX_CONDITIONS {
            format!("there are {} conditions, at most {MAX_CONDITIONS}", size.conditions)
        } else if size.values > MAX_VALUES {
            format!("the conditions have {} values, at most {MAX_VALUES}", size.values)
        } else {
            return Ok(Self { node });
        };
        Err(QueryError::new(format!("the condition is too large: {problem} are allowed")))
    }
}

impl Default for Predicate {
    fn default() -> Self {
        Self { node: Node::All(Vec::new()) }
    }
}

struct Size {
    depth: usize,
    conditions: usize,
    values: usize,
}

impl Node {
    /// `scratch` saves an allocation for each field that is compared.
    fn matches(&self, document: &Document, scratch: &mut Vec<u8>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(document, scratch)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(document, scratch)),
            Self::Not(node) => !node.matches(document, scratch),
            Self::Field(path, test) => test.holds(path.find(document), scratch),
        }
    }

    fn size(&self) -> Size {
        let (nodes, values) = match self {
            Self::All(nodes) | Self::Any(nodes) => (&nodes[..], 0),
            Self::Not(node) => (core::slice::from_ref(&**node), 0),
            Self::Field(_, test) => {
                return Size { depth: 0, conditions: 1, values: test.values.len() };
            }
        };
        nodes.iter().map(Self::size).fold(Size { depth: 1, conditions: 1, values }, |sum, size| {
            Size {
                depth: sum.depth.max(size.depth + 1),
                conditions: sum.conditions + size.conditions,
                values: sum.values + size.values,
            }
        })
    }
}

impl Node {
    fn add_conjuncts<'a>(&'a self, tests: &mut Vec<(&'a FieldPath, &'a Test)>) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.add_conjuncts(tests)),
            Self::Field(path, test) => tests.push((path, test)),
            Self::Any(_) | Self::Not(_) => {}
        }
    }
}

impl Node {
    /// The parts that all documents meet which meet the whole.
    pub(super) fn conjunct_nodes(&self) -> Vec<&Self> {
        match self {
            Self::All(nodes) => nodes.iter().flat_map(Self::conjunct_nodes).collect(),
            Self::Field(..) | Self::Any(_) | Self::Not(_) => Vec::from([self]),
        }
    }

    /// The conditions of which one has to be met, where they are several.
    pub(super) fn alternatives(&self) -> Option<Vec<Self>> {
        match self {
            Self::Any(nodes) if nodes.len() > 1 => Some(nodes.clone()),
            Self::Field(path, test) if test.operator == Operator::In && test.values.len() > 1 => {
                let one = |value: &Literal| {
                    Self::Field(
                        path.clone(),
                        Test { operator: Operator::In, values: vec![value.clone()] },
                    )
                };
                Some(test.values.iter().map(one).collect())
            }
            Self::Field(..) | Self::Any(_) | Self::All(_) | Self::Not(_) => None,
        }
    }
}

impl Test {
    /// The encoding of the only value that meets the test, if there is just one.
    pub(super) fn only_value(&self) -> Option<&[u8]> {
        match (self.operator, &self.values[..]) {
            (Operator::EqualTo | Operator::In, [value]) => Some(&value.key),
            (Operator::Null, _) if self.flag() => Some(&[value::NULL]),
            (Operator::Exists, _) if !self.flag() => Some(&[value::MISSING]),
            _ => None,
        }
    }

    /// The encodings between which every value lies that meets the test, the second one excluded.
    pub(super) fn range(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let [value] = &self.values[..] else { return None };
        let key = || value.key.clone();
        let (first, behind) = value::kind_of(&value.key);
        match self.operator {
            Operator::LessThan => Some((first, key())),
            Operator::LessThanOrEqualTo => Some((first, successor(key()))),
            Operator::GreaterThan => Some((successor(key()), behind)),
            Operator::GreaterThanOrEqualTo => Some((key(), behind)),
            Operator::StartsWith => {
                let beginning = value::beginning(&value.text());
                Some((beginning.clone(), successor(beginning)))
            }
            Operator::EqualTo
            | Operator::NotEqualTo
            | Operator::EndsWith
            | Operator::Contains
            | Operator::ArrayContains
            | Operator::ArrayContainsAny
            | Operator::In
            | Operator::NotIn
            | Operator::Null
            | Operator::NotNull
            | Operator::Exists => None,
        }
    }

    pub(super) fn read(operator: &str, json: &str) -> Result<Self, QueryError> {
        let found = Operator::of_name(operator).ok_or_else(|| {
            let names: Vec<_> =
                super::operator::OPERATORS.iter().map(|(_, name, _)| *name).collect();
            let problem =
                format!("there is no operator {operator:?}; there are {}", names.join(", "));
            QueryError::new(problem)
        })?;
        let json = json.trim_matches([' ', '\n', '\r', '\t']);
        json::check(json).map_err(|broken| {
            QueryError::new(format!("the value of {operator:?} is not JSON: {broken}"))
        })?;
        let takes = |what: &str| {
            Err(QueryError::new(format!("{operator:?} takes {what}, and not {}", beginning(json))))
        };
        let values = match found.takes() {
            Takes::Value => vec![Literal::new(json)],
            Takes::Text if json.starts_with('"') => vec![Literal::new(json)],
            Takes::Text => return takes("a text in quotes"),
            Takes::Flag if json == "true" || json == "false" => vec![Literal::new(json)],
            Takes::Flag => return takes("true or false"),
            Takes::List if json.starts_with('[') => list(json)?,
            Takes::List => return takes("a list of values, like [1, 2]"),
        };
        Ok(Self { operator: found, values })
    }

    /// `text` is the field's value, if it exists.
    fn holds(&self, text: Option<&str>, scratch: &mut Vec<u8>) -> bool {
        match self.operator {
            Operator::NotEqualTo | Operator::NotIn => !self.is_one(text, scratch),
            Operator::EqualTo | Operator::In => self.is_one(text, scratch),
            Operator::LessThan => self.compares(text, scratch, core::cmp::Ordering::is_lt),
            Operator::LessThanOrEqualTo => self.compares(text, scratch, core::cmp::Ordering::is_le),
            Operator::GreaterThan => self.compares(text, scratch, core::cmp::Ordering::is_gt),
            Operator::GreaterThanOrEqualTo => {
                self.compares(text, scratch, core::cmp::Ordering::is_ge)
            }
            Operator::StartsWith => self.is_text(text, |text, part| text.starts_with(part)),
            Operator::EndsWith => self.is_text(text, |text, part| text.ends_with(part)),
            Operator::Contains => self.is_text(text, contains),
            Operator::ArrayContains | Operator::ArrayContainsAny => {
                text.is_some_and(|text| self.has_element(text, scratch))
            }
            Operator::Null => self.flag() == (text == Some("null")),
            Operator::NotNull => self.flag() == (text != Some("null")),
            Operator::Exists => self.flag() == text.is_some(),
        }
    }

    fn is_one(&self, text: Option<&str>, scratch: &mut Vec<u8>) -> bool {
        scratch.clear();
        value::put(text, scratch);
        self.values.iter().any(|value| value.key == *scratch)
    }

    fn compares(
        &self,
        text: Option<&str>,
        scratch: &mut Vec<u8>,
        holds: impl Fn(core::cmp::Ordering) -> bool,
    ) -> bool {
        scratch.clear();
        value::put(text, scratch);
        let compared = |value: &Literal| {
            value::are_alike(scratch, &value.key) && holds((**scratch).cmp(&value.key))
        };
        self.values.iter().any(compared)
    }

    fn is_text(&self, text: Option<&str>, holds: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let Some(text) = text.filter(|text| text.starts_with('"')) else { return false };
        let text = json::string_bytes(text);
        self.values.iter().any(|value| holds(&text, &value.text()))
    }

    fn has_element(&self, text: &str, scratch: &mut Vec<u8>) -> bool {
        let mut found = false;
        // what is no array has no elements
        let _ = json::elements(text, |element| {
            found |= self.is_one(Some(element.text), scratch);
            Ok::<(), json::Broken>(())
        });
        found
    }

    fn flag(&self) -> bool {
        self.values.iter().any(|value| value.json == "true")
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\":", self.operator.name())?;
        let is_list = self.operator.takes() == Takes::List;
        f.write_str(if is_list { "[" } else { "" })?;
        for (i, value) in self.values.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "," } else { "" }, value.json)?;
        }
        f.write_str(if is_list { "]" } else { "" })
    }
}

impl Literal {
    /// The JSON text must be of a value.
    fn new(json: &str) -> Self {
        Self { json: json.into(), key: value::encode(json) }
    }

    fn text(&self) -> Cow<'_, [u8]> {
        json::string_bytes(&self.json)
    }
}

fn list(json: &str) -> Result<Vec<Literal>, QueryError> {
    let mut values = Vec::new();
    let all = json::elements(json, |element| {
        if values.len() == MAX_VALUES {
            return Err(None);
        }
        values.push(Literal::new(element.text));
        Ok(())
    });
    all.map_err(|error: Option<json::Broken>| match error {
        Some(broken) => QueryError::new(format!("the list is not JSON: {broken}")),
        None => QueryError::new(format!("the list has more than {MAX_VALUES} values")),
    })?;
    Ok(values)
}

/// The empty text is in every text.
fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// The first characters of a text that may be long.
fn beginning(text: &str) -> String {
    const CHARS: usize = 40;
    let mut shown: String = text.chars().take(CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The form in JSON.
impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.write(f)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Node {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |name: &str, nodes: &[Self], f: &mut fmt::Formatter<'_>| {
            write!(f, "{{\"{name}\":[")?;
            for (i, node) in nodes.iter().enumerate() {
                f.write_str(if i > 0 { "," } else { "" })?;
                node.write(f)?;
            }
            f.write_str("]}")
        };
        match self {
            Self::All(nodes) => several("and", nodes, f),
            Self::Any(nodes) => several("or", nodes, f),
            Self::Not(node) => {
                f.write_str("{\"not\":")?;
                node.write(f)?;
                f.write_str("}")
            }
            Self::Field(path, test) => {
                write!(f, "{{\"field\":{},", json_string(&format!("{path}")))?;
                test.write(f)?;
                f.write_str("}")
            }
        }
    }
}
