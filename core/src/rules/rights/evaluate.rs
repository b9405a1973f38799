//! The value of an expression, as far as it is known.

use core::cmp::Ordering;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::syntax::{Comparison, Name, Node, TextTest};
use super::value::Value;
use crate::protocol::document::Document;
use crate::protocol::name::RecordId;
use crate::rules::policy::{Asker, Records};

/// Something that an expression asks about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<T> {
    /// It is this.
    Is(T),
    /// It is there, and nothing is known of it yet.
    Unknown,
    /// There is no such thing.
    Missing,
}

/// A part of a scope's key with its value: something that is known of `data` before there is a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed<'a> {
    field: &'a str,
    /// `true` if the value is an element of the array in the field.
    each: bool,
    /// The JSON text of the value.
    json: &'a str,
}

impl<'a> Fixed<'a> {
    pub(super) fn new(part: &'a str, json: &'a str) -> Self {
        let array = part.strip_suffix("[]");
        Self { field: array.unwrap_or(part), each: array.is_some(), json: json.trim() }
    }
}

/// Everything that an expression can ask about.
pub(super) struct Scene<'a> {
    pub(super) by: &'a Asker<'a>,
    pub(super) collection: &'a str,
    pub(super) id: Given<&'a str>,
    pub(super) data: Given<&'a Document>,
    /// The known parts of `data` where that is unknown.
    pub(super) fixed: &'a [Fixed<'a>],
    pub(super) new: Given<&'a Document>,
    /// The names of the fields in which `data` and `new` differ.
    pub(super) changed: Given<&'a [&'a str]>,
    /// Milliseconds since 1970.
    pub(super) now: Given<i64>,
}

/// The outcome of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Granted,
    /// Refused, with the reason why the expression has no value, if it has none.
    Refused(Option<Cow<'static, str>>),
    /// It depends on what is not known.
    Depends,
}

/// The reason why an expression has no value.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stop {
    Unknown,
    Failed(Cow<'static, str>),
}

type Evaluated<'a> = Result<Value<'a>, Stop>;

/// Evaluates a rule. Whatever is granted or refused here is so too when more is known.
pub(super) fn judge(rule: &Node, scene: &Scene<'_>) -> Outcome {
    match scene.evaluate(rule) {
        Ok(Value::Bool(true)) => Outcome::Granted,
        Ok(Value::Bool(false)) => Outcome::Refused(None),
        Ok(_) => Outcome::Refused(Some("it is neither true nor false".into())),
        Err(Stop::Unknown) => Outcome::Depends,
        Err(Stop::Failed(why)) => Outcome::Refused(Some(why)),
    }
}

fn failed<T>(why: impl Into<Cow<'static, str>>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

impl<'a> Fixed<'a> {
    /// The value of the field: of an array only an element is known.
    fn value(&self) -> Evaluated<'a> {
        if self.each {
            return Err(Stop::Unknown);
        }
        found(Ok(Some(self.json)), self.field)
    }
}

impl<T> Given<T> {
    fn get(self, name: &str) -> Result<T, Stop> {
        match self {
            Self::Is(value) => Ok(value),
            Self::Unknown => Err(Stop::Unknown),
            Self::Missing => failed(format!("there is no {name}")),
        }
    }
}

impl<'a> Scene<'a> {
    fn evaluate(&self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Null => Ok(Value::Null),
            Node::Bool(is) => Ok(Value::Bool(*is)),
            Node::Number(text) => Ok(Value::Number(Cow::Borrowed(text))),
            Node::Text(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Node::List(parts) => self.values(parts).map(Value::List),
            Node::Name(name) => self.name(*name),
            Node::Field(inner, name) => match self.fixed(inner, name) {
                Some(fixed) => fixed.value(),
                None => found(self.evaluate(inner)?.field(name), name),
            },
            Node::Item(pair) => match self.fixed_field(node) {
                Some(fixed) => fixed.value(),
                None => self.item(pair),
            },
            Node::Not(inner) => Ok(Value::Bool(!truth(self.evaluate(inner))?)),
            Node::All(parts) => self.join(parts, false),
            Node::Any(parts) => self.join(parts, true),
            Node::Compare(comparison, pair) => self.compare(*comparison, pair),
            Node::In(pair) if self.is_fixed_in(pair) => Ok(Value::Bool(true)),
            Node::In(pair) => {
                let (wanted, holder) = self.both(pair)?;
                match holder.holds(&wanted) {
                    Some(holds) => Ok(Value::Bool(holds)),
                    None => failed("`in` looks in a list, or for a name in an object"),
                }
            }
            Node::Join(parts) => self.text(parts).map(|text| Value::Text(text.into())),
            Node::Has(inner, name) if self.fixed(inner, name).is_some() => Ok(Value::Bool(true)),
            Node::Has(inner, name) => match self.evaluate(inner)?.field(name) {
                Ok(found) => Ok(Value::Bool(found.is_some())),
                Err(()) => failed(format!("{name} is asked of a value that has no fields")),
            },
            Node::Size(inner) => match self.evaluate(inner)?.size() {
                Some(size) => Ok(Value::Number(format!("{size}").into())),
                None => failed("size() is asked of a value that has none"),
            },
            Node::Test(test, pair) => match self.both(pair)? {
                (Value::Text(text), Value::Text(part)) => Ok(Value::Bool(test.fits(&text, &part))),
                (_, _) => failed(format!("{} is asked of a value that is no text", test.as_str())),
            },
            Node::Exists(collection, id) => {
                let Value::Text(id) = self.evaluate(id)? else {
                    return failed("the id of exists() is no text");
                };
                let Ok(id) = RecordId::new(&id) else {
                    return failed("the id of exists() can't be one of a record");
                };
                let records = self.by.records.ok_or(Stop::Unknown)?;
                Ok(Value::Bool(Records::exists(records, collection, &id)))
            }
        }
    }

    fn both(&self, pair: &'a (Node, Node)) -> Result<(Value<'a>, Value<'a>), Stop> {
        match (self.evaluate(&pair.0), self.evaluate(&pair.1)) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            // where one fails, it does not matter what the other one is
            (Err(Stop::Unknown), Err(stop)) | (Err(stop), _) | (_, Err(stop)) => Err(stop),
        }
    }

    fn values(&self, parts: &'a [Node]) -> Result<Vec<Value<'a>>, Stop> {
        let (mut values, mut stop) = (Vec::with_capacity(parts.len()), None);
        for part in parts {
            match self.evaluate(part) {
                Ok(value) => values.push(value),
                Err(Stop::Unknown) => stop = stop.or(Some(Stop::Unknown)),
                Err(failed) => return Err(failed),
            }
        }
        stop.map_or(Ok(values), Err)
    }

    fn name(&self, name: Name) -> Evaluated<'a> {
        Ok(match name {
            Name::User => self.by.user.map_or(Value::Null, |user| Value::Text(Cow::Borrowed(user))),
            Name::Claims => self.by.claims.map_or(Value::Object("{}"), Value::Document),
            Name::Data => Value::Document(self.data.get("data")?),
            Name::New => Value::Document(self.new.get("new")?),
            Name::Changed => {
                let names = self.changed.get("changed")?;
                Value::List(names.iter().map(|name| Value::Text(Cow::Borrowed(*name))).collect())
            }
            Name::Id => Value::Text(Cow::Borrowed(self.id.get("id")?)),
            Name::Collection => Value::Text(Cow::Borrowed(self.collection)),
            Name::Now => Value::Number(format!("{}", self.now.get("now")?).into()),
        })
    }

    /// The part of a field of this value that a scope fixes.
    fn fixed(&self, holder: &Node, field: &str) -> Option<&'a Fixed<'a>> {
        let (Node::Name(Name::Data), Given::Unknown) = (holder, self.data) else { return None };
        self.fixed.iter().find(|fixed| fixed.field == field)
    }

    /// The same for `data.field` and `data["field"]`.
    fn fixed_field(&self, node: &'a Node) -> Option<&'a Fixed<'a>> {
        if let Node::Field(holder, name) = node {
            return self.fixed(holder, name);
        }
        let Node::Item(pair) = node else { return None };
        if self.fixed.is_empty() {
            return None;
        }
        let Ok(Value::Text(name)) = self.evaluate(&pair.1) else { return None };
        self.fixed(&pair.0, &name)
    }

    /// Returns `true` if the scope alone says that this is in that: a name of a field in `data`, or an
    /// element in an array. That something is not in an array is never known.
    fn is_fixed_in(&self, (wanted, holder): &'a (Node, Node)) -> bool {
        if self.fixed.is_empty() {
            return false;
        }
        let Ok(wanted) = self.evaluate(wanted) else { return false };
        if let Value::Text(name) = &wanted
            && self.fixed(holder, name).is_some()
        {
            return true;
        }
        let array = self.fixed_field(holder).filter(|fixed| fixed.each);
        array.and_then(|fixed| Value::of(fixed.json)).is_some_and(|element| element.is(&wanted))
    }

    fn item(&self, pair: &'a (Node, Node)) -> Evaluated<'a> {
        let (holder, key) = self.both(pair)?;
        if let Value::Text(name) = &key {
            return found(holder.field(name), name);
        }
        let Value::Number(at) = &key else {
            return failed("a list is asked for a place, an object for a name");
        };
        holder.element(at).map_or_else(|| failed("there is no such element"), Ok)
    }

    /// `&&` and `||`: one operand that decides is enough, whatever the others are.
    fn join(&self, parts: &'a [Node], decides: bool) -> Evaluated<'a> {
        let mut stop = None;
        for part in parts {
            match truth(self.evaluate(part)) {
                Ok(is) if is == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                // what is unknown may still decide
                Err(Stop::Unknown) => stop = Some(Stop::Unknown),
                Err(failed) => stop = stop.or(Some(failed)),
            }
        }
        stop.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn compare(&self, comparison: Comparison, pair: &'a (Node, Node)) -> Evaluated<'a> {
        let (one, other) = self.both(pair)?;
        let order = || match one.order(&other) {
            Some(order) => Ok(order),
            None => failed("values of different kinds have no order"),
        };
        Ok(Value::Bool(match comparison {
            Comparison::Equal => one.is(&other),
            Comparison::NotEqual => !one.is(&other),
            Comparison::Less => order()? == Ordering::Less,
            Comparison::LessOrEqual => order()? != Ordering::Greater,
            Comparison::Greater => order()? == Ordering::Greater,
            Comparison::GreaterOrEqual => order()? != Ordering::Less,
        }))
    }

    fn text(&self, parts: &'a [Node]) -> Result<String, Stop> {
        let texts = self.values(parts)?.into_iter().map(|value| {
            let Value::Text(text) = value else { return failed("`+` joins texts") };
            Ok(text)
        });
        Ok(texts.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

impl TextTest {
    fn fits(self, text: &str, part: &str) -> bool {
        match self {
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
            Self::Contains => text.contains(part),
        }
    }
}

fn truth(value: Evaluated<'_>) -> Result<bool, Stop> {
    let Value::Bool(is) = value? else {
        return failed("a condition is neither true nor false");
    };
    Ok(is)
}

fn found<'a>(found: Result<Option<&'a str>, ()>, name: &str) -> Evaluated<'a> {
    match found {
        Ok(Some(json)) => {
            Value::of(json).ok_or_else(|| Stop::Failed(format!("{name} is no Unicode text").into()))
        }
        Ok(None) => failed(format!("there is no field {name}")),
        Err(()) => failed(format!("{name} is asked of a value that has no fields")),
    }
}
