//! Predicates from their form in JSON.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::QueryError;
use super::path::FieldPath;
use super::predicate::{MAX_CONDITIONS, MAX_DEPTH, Node, Predicate, Test};
use crate::protocol::json::{self, Broken};

/// The maximal length of a predicate's form, in bytes.
const MAX_BYTES: usize = 64 << 10;

impl Predicate {
    /// Reads the form in JSON: `{"field": "priority", "isGreaterThan": 1}`, `{"and": […]}`,
    /// `{"or": […]}`, `{"not": …}`. Several operators of one field are joined by `and`.
    ///
    /// # Errors
    /// When the text is something else, names an operator that does not exist, or is too large; the
    /// error says what is wrong, and where.
    pub fn parse(json: &str) -> Result<Self, QueryError> {
        if json.len() > MAX_BYTES {
            let problem = format!("it has {} bytes, at most {MAX_BYTES} are allowed", json.len());
            return Err(QueryError::at("", problem));
        }
        json::check(json)
            .map_err(|broken| QueryError::at("", format!("it is not JSON: {broken}")))?;
        let mut reading = Reading { conditions: 0 };
        Self::checked(reading.node(json, "", 0)?)
    }
}

struct Reading {
    conditions: usize,
}

impl Reading {
    fn node(&mut self, json: &str, place: &str, depth: usize) -> Result<Node, QueryError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            let problem = format!("there are more than {MAX_CONDITIONS} conditions");
            return Err(QueryError::at(place, problem));
        }
        let members = members(json, place)?;
        let joined = members.iter().find(|(name, _)| matches!(&**name, "and" | "or" | "not"));
        let Some((name, inside)) = joined else { return field(&members, place) };
        if let Some((other, _)) = members.iter().find(|(other, _)| other != name) {
            let problem = format!("{name:?} stands alone, and not beside {other:?}");
            return Err(QueryError::at(place, problem));
        }
        if depth == MAX_DEPTH {
            let problem = format!("`and`, `or` and `not` are nested more than {MAX_DEPTH} deep");
            return Err(QueryError::at(place, problem));
        }
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        if name == "not" {
            return Ok(Node::Not(Box::new(self.node(inside, &place, depth + 1)?)));
        }
        let mut nodes = Vec::new();
        for (i, element) in elements(inside, &place)?.into_iter().enumerate() {
            nodes.push(self.node(element, &format!("{place}[{i}]"), depth + 1)?);
        }
        Ok(if name == "and" { Node::All(nodes) } else { Node::Any(nodes) })
    }
}

fn field(members: &[(String, &str)], place: &str) -> Result<Node, QueryError> {
    let at = |error: QueryError| QueryError::at(place, error);
    let named = members.iter().find(|(name, _)| name == "field");
    let path = named.and_then(|(_, json)| json::unescape(json));
    let Some(path) = path else {
        let problem = "it names no field; it has to be like {\"field\": \"done\", \"isEqualTo\": \
                       false}, {\"and\": […]}, {\"or\": […]} or {\"not\": …}";
        return Err(QueryError::at(place, problem));
    };
    let path: FieldPath = path.parse().map_err(at)?;
    let tests = members.iter().filter(|(name, _)| name != "field");
    let mut nodes = tests
        .map(|(name, json)| Ok(Node::Field(path.clone(), Test::read(name, json).map_err(at)?)))
        .collect::<Result<Vec<_>, _>>()?;
    match nodes.len() {
        0 => Err(QueryError::at(place, format!("it has no operator for the field {path:?}"))),
        1 => Ok(nodes.remove(0)),
        _ => Ok(Node::All(nodes)),
    }
}

/// The members of an object, in their order.
fn members<'a>(json: &'a str, place: &str) -> Result<Vec<(String, &'a str)>, QueryError> {
    let mut found: Vec<(String, &str)> = Vec::new();
    let all = json::members(json, |name, value| {
        found.push((name.to_string(), value.text));
        Ok::<(), Broken>(())
    });
    let problem = "it has to be an object like {\"field\": \"done\", \"isEqualTo\": false}";
    all.map_err(|_| QueryError::at(place, problem))?;
    let twice = |(i, (name, _)): &(usize, &(String, &str))| {
        found.iter().take(*i).any(|(before, _)| before == name)
    };
    match found.iter().enumerate().take(MAX_CONDITIONS).find(twice) {
        Some((_, (name, _))) => Err(QueryError::at(place, format!("{name:?} stands there twice"))),
        None => Ok(found),
    }
}

fn elements<'a>(json: &'a str, place: &str) -> Result<Vec<&'a str>, QueryError> {
    let mut found = Vec::new();
    let all = json::elements(json, |element| {
        found.push(element.text);
        Ok::<(), Broken>(())
    });
    all.map_err(|_| QueryError::at(place, "it has to be a list of conditions"))?;
    Ok(found)
}
