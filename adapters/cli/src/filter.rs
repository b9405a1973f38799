//! Conditions and orders as they are written in the shell.

use serde_json::value::RawValue;
use synclayer_core::{Direction, FieldPath, Predicate, QueryError};

/// The nesting at which a condition is no longer read: that of predicates is less.
const DEEPEST: usize = 32;

/// Reads a condition: `done=false and (priority>=2 or title startsWith "Buy")`.
///
/// # Errors
/// A text for people, with the column at which something is wrong.
pub(crate) fn condition(text: &str) -> Result<Predicate, String> {
    let mut reading = Reading { text, at: 0 };
    let predicate = reading.any(0)?;
    match reading.rest() {
        "" => Ok(predicate),
        _ => Err(reading.wrong("`and`, `or` or the end is missing")),
    }
}

/// Reads an order: `-priority,title`, where `-` stands for the largest first.
///
/// # Errors
/// As [`condition`].
pub(crate) fn order(text: &str) -> Result<Vec<(String, Direction)>, String> {
    let mut reading = Reading { text, at: 0 };
    let mut fields = Vec::new();
    loop {
        let descending = reading.eat("-");
        let direction = if descending { Direction::Descending } else { Direction::Ascending };
        fields.push((reading.path()?.to_string(), direction));
        if reading.rest().is_empty() {
            return Ok(fields);
        }
        if !reading.eat(",") {
            return Err(reading.wrong("a comma or the end is missing"));
        }
    }
}

/// A text with the place that is read next.
struct Reading<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reading<'a> {
    fn any(&mut self, depth: usize) -> Result<Predicate, String> {
        let mut all = vec![self.all(depth)?];
        while self.eat_word("or") {
            all.push(self.all(depth)?);
        }
        self.joined(all, Predicate::any)
    }

    fn all(&mut self, depth: usize) -> Result<Predicate, String> {
        let mut all = vec![self.one(depth)?];
        while self.eat_word("and") {
            all.push(self.one(depth)?);
        }
        self.joined(all, Predicate::all)
    }

    fn joined(
        &self,
        mut all: Vec<Predicate>,
        join: impl FnOnce(Vec<Predicate>) -> Result<Predicate, QueryError>,
    ) -> Result<Predicate, String> {
        if all.len() == 1 {
            Ok(all.remove(0))
        } else {
            join(all).map_err(|error| self.wrong(error))
        }
    }

    fn one(&mut self, depth: usize) -> Result<Predicate, String> {
        if depth == DEEPEST {
            return Err(self.wrong("the condition is nested too deeply"));
        }
        if self.eat_word("not") {
            let one = self.one(depth + 1)?;
            return one.negated().map_err(|error| self.wrong(error));
        }
        if self.eat("(") {
            let inside = self.any(depth + 1)?;
            return if self.eat(")") { Ok(inside) } else { Err(self.wrong("`)` is missing")) };
        }
        let path = self.path()?;
        let at = self.at;
        let (operator, json) = self.test()?;
        Predicate::field(path, operator, &json).map_err(|error| self.wrong_at(at, error))
    }

    /// A field's path, whose names may be in quotes.
    fn path(&mut self) -> Result<FieldPath, String> {
        let rest = self.rest();
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.find(|letter: char| {
            let ends = !quoted && !is_of_name(letter);
            quoted ^= letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let path = &rest[..end.unwrap_or(rest.len())];
        if path.is_empty() {
            return Err(self.wrong("the name of a field is missing"));
        }
        let read = path.parse().map_err(|error| self.wrong(error))?;
        self.at += path.len();
        Ok(read)
    }

    /// An operator and its value.
    fn test(&mut self) -> Result<(&'a str, String), String> {
        for (symbol, operator) in [
            ("==", "isEqualTo"),
            ("!=", "isNotEqualTo"),
            ("<=", "isLessThanOrEqualTo"),
            (">=", "isGreaterThanOrEqualTo"),
            ("=", "isEqualTo"),
            ("<", "isLessThan"),
            (">", "isGreaterThan"),
        ] {
            if self.eat(symbol) {
                return Ok((operator, self.value()?));
            }
        }
        if self.eat_word("is") {
            let operator = if self.eat_word("not") { "isNotNull" } else { "isNull" };
            let is_null = self.eat_word("null");
            return if is_null { Ok((operator, "true".into())) } else { Err(self.wrong(IS)) };
        }
        if self.eat_word("exists") {
            return Ok(("exists", "true".into()));
        }
        if self.eat_word("not") {
            let is_in = self.eat_word("in");
            return if is_in { Ok(("whereNotIn", self.value()?)) } else { Err(self.wrong(NOT)) };
        }
        if self.eat_word("in") {
            return Ok(("whereIn", self.value()?));
        }
        let name = self.word();
        if name.is_empty() {
            return Err(self.wrong(OPERATORS));
        }
        self.at += name.len();
        Ok((name, self.value()?))
    }

    /// A value: JSON, or a word that stands for a text.
    fn value(&mut self) -> Result<String, String> {
        let rest = self.rest();
        if rest.starts_with(['"', '[', '{']) {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Box<RawValue>>();
            return match values.next() {
                Some(Ok(json)) => {
                    self.at += json.get().len();
                    Ok(json.get().to_owned())
                }
                Some(Err(error)) => Err(self.wrong(format!("the value is not JSON: {error}"))),
                None => Err(self.wrong("a value is missing")),
            };
        }
        let word = self.word();
        if word.is_empty() {
            return Err(self.wrong("a value is missing"));
        }
        self.at += word.len();
        match serde_json::from_str::<Box<RawValue>>(word) {
            Ok(json) => Ok(json.get().to_owned()),
            Err(_) => serde_json::to_string(word).map_err(|error| error.to_string()),
        }
    }

    /// The text that comes next, without the spaces before it.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    /// The letters up to a space, a bracket, a comma or the sign of an operator.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        &rest[..rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len())]
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn eat_word(&mut self, wanted: &str) -> bool {
        let found = self.word().eq_ignore_ascii_case(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> String {
        self.wrong_at(self.at, problem)
    }

    fn wrong_at(&self, at: usize, problem: impl std::fmt::Display) -> String {
        let skipped = self.text[at..].len() - self.text[at..].trim_start().len();
        let column = self.text[..at + skipped].chars().count() + 1;
        format!("column {column}: {problem}")
    }
}

const IS: &str = "`is` takes `null` or `not null`; to compare, write =";
const NOT: &str = "`not` takes `in` here: priority not in [1, 2]";
const OPERATORS: &str = "an operator is missing: = != < <= > >= in, not in, is null, is not null, \
                         exists, startsWith, endsWith, contains, arrayContains, arrayContainsAny";

fn is_of_word(letter: char) -> bool {
    !letter.is_whitespace() && !"()[]{},=!<>\"".contains(letter)
}

fn is_of_name(letter: char) -> bool {
    is_of_word(letter) || letter == '"'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(text: &str, json: &str) {
        assert_eq!(condition(text).unwrap(), Predicate::parse(json).unwrap(), "{text}");
    }

    #[test]
    fn conditions_are_read() {
        let done = r#"{"field": "done", "isEqualTo": false}"#;
        let urgent = r#"{"field": "priority", "isGreaterThanOrEqualTo": 2}"#;
        same("done=false", done);
        same(" done == false ", done);
        same("done=false and priority>=2", &format!("{{\"and\": [{done}, {urgent}]}}"));
        same(
            "not done = false OR (priority >= 2 AND done = false)",
            &format!("{{\"or\": [{{\"not\": {done}}}, {{\"and\": [{urgent}, {done}]}}]}}"),
        );
        for (text, json) in [
            ("n in [1, \"a b\", null]", r#"{"field": "n", "whereIn": [1, "a b", null]}"#),
            ("n not in [1]", r#"{"field": "n", "whereNotIn": [1]}"#),
            ("n is null", r#"{"field": "n", "isNull": true}"#),
            ("n is not null", r#"{"field": "n", "isNotNull": true}"#),
            ("n exists", r#"{"field": "n", "exists": true}"#),
            ("n.\"a.b\"!=x", r#"{"field": "n.\"a.b\"", "isNotEqualTo": "x"}"#),
            ("t startsWith Buy", r#"{"field": "t", "startsWith": "Buy"}"#),
            ("t contains \"and so\"", r#"{"field": "t", "contains": "and so"}"#),
            ("at >= 2026-11-26T18:00", r#"{"field": "at", ">=": "2026-11-26T18:00"}"#),
            ("n<9007199254740993", r#"{"field": "n", "<": 9007199254740993}"#),
            ("tags arrayContains x", r#"{"field": "tags", "arrayContains": "x"}"#),
            ("o={\"a\": 1.50}", r#"{"field": "o", "isEqualTo": {"a": 1.5}}"#),
        ] {
            let read = condition(text).unwrap().to_string();
            let wanted = Predicate::parse(json).unwrap().to_string();
            assert_eq!(read.replace("1.50", "1.5"), wanted, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_column() {
        for (text, column, problem) in [
            ("", 1, "the name of a field is missing"),
            ("done", 5, "an operator is missing"),
            ("done=", 6, "a value is missing"),
            ("dé = ", 6, "a value is missing"),
            ("done=false priority>=2", 12, "`and`, `or` or the end is missing"),
            ("(done=false", 12, "`)` is missing"),
            ("done=false and", 15, "the name of a field is missing"),
            ("done=\"x", 6, "the value is not JSON"),
            ("a..b=1", 1, "\"a..b\" is no path of a field"),
            ("a is 1", 6, "`is` takes `null` or `not null`"),
            ("a not 1", 7, "`not` takes `in` here"),
            ("a like 1", 3, "there is no operator \"like\""),
            ("a in 3", 3, "\"whereIn\" takes a list of values"),
            ("a startsWith 3", 3, "\"startsWith\" takes a text in quotes, and not 3"),
        ] {
            let error = condition(text).unwrap_err();
            assert!(error.starts_with(&format!("column {column}: {problem}")), "{text}: {error}");
        }
        assert!(condition(&"(".repeat(100_000)).unwrap_err().contains("nested too deeply"));
        assert!(condition(&"not ".repeat(100_000)).unwrap_err().contains("nested too deeply"));
    }

    #[test]
    fn orders_are_read() {
        let fields = order("-priority, owner.name,\"a,b\"").unwrap();
        let (up, down) = (Direction::Ascending, Direction::Descending);
        let wanted = [("priority", down), ("owner.name", up), ("a,b", up)];
        assert_eq!(fields, wanted.map(|(name, direction)| (name.to_owned(), direction)));
        assert_eq!(order("a,").unwrap_err(), "column 3: the name of a field is missing");
        assert_eq!(order("a b").unwrap_err(), "column 3: a comma or the end is missing");
    }
}
