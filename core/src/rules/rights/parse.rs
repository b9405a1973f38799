//! The text of an expression, read into its tree.

use core::mem;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::syntax::{Comparison, Name, Node, TextTest};
use super::token::{Token, Tokens};
use crate::protocol::name::Collection;

/// The longest expression, in bytes.
const MAX_BYTES: usize = 4096;
/// The largest number of parts of an expression.
const MAX_PARTS: usize = 256;
/// The deepest nesting of an expression's parts.
const MAX_DEPTH: usize = 32;

/// The error of an expression: where it is wrong, and how to write it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
#[non_exhaustive]
pub struct RuleError {
    /// The line in the expression, the first one is 1.
    pub line: usize,
    /// The letter in that line, the first one is 1.
    pub column: usize,
    /// The reason, for people.
    pub message: String,
}

impl RuleError {
    /// An error at a place of a text, in bytes.
    pub(super) fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let in_line = before.rsplit('\n').next().unwrap_or_default();
        Self { line, column: in_line.chars().count() + 1, message: message.into() }
    }
}

/// Reads an expression in which these names have a value.
pub(super) fn parse(text: &str, names: &[Name]) -> Result<Node, RuleError> {
    if text.len() > MAX_BYTES {
        let message =
            format!("the expression has {} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(RuleError::new(text, 0, message));
    }
    let mut tokens = Tokens::new(text);
    let (at, next) = tokens.next()?;
    let mut parser = Parser { tokens, at, next, names, parts: 0, depth: 0 };
    let node = parser.any()?;
    if parser.next == Token::End {
        return Ok(node);
    }
    Err(parser.wrong(if parser.next == Token::Sign("?") {
        "there is no `? :` here; use && and ||"
    } else {
        "the expression should end here, or go on with an operator"
    }))
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    /// The place of the next word.
    at: usize,
    next: Token,
    names: &'a [Name],
    parts: usize,
    /// The number of functions under way, of which each may call itself.
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, RuleError> {
        self.several("||", Self::all, Node::Any)
    }

    fn all(&mut self) -> Result<Node, RuleError> {
        self.several("&&", Self::relation, Node::All)
    }

    fn sum(&mut self) -> Result<Node, RuleError> {
        self.several("+", Self::unary, Node::Join)
    }

    fn several(
        &mut self,
        sign: &'static str,
        part: fn(&mut Self) -> Result<Node, RuleError>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Node, RuleError> {
        let first = part(self)?;
        if self.next != Token::Sign(sign) {
            return Ok(first);
        }
        let mut parts = Vec::from([first]);
        while self.eat(sign)? {
            parts.push(part(self)?);
        }
        self.made(join(parts))
    }

    fn relation(&mut self) -> Result<Node, RuleError> {
        let left = self.sum()?;
        let is_in = self.next == Token::Name("in".into());
        let comparison =
            Comparison::ALL.into_iter().find(|it| self.next == Token::Sign(it.as_str()));
        if !is_in && comparison.is_none() {
            return Ok(left);
        }
        self.advance()?;
        let pair = Box::new((left, self.sum()?));
        let again = matches!(self.next, Token::Sign("==" | "!=" | "<" | "<=" | ">" | ">="));
        if again || self.next == Token::Name("in".into()) {
            return Err(self.wrong("put brackets around one of the two comparisons"));
        }
        self.made(
            comparison.map_or_else(|| Node::In(pair.clone()), |it| Node::Compare(it, pair.clone())),
        )
    }

    fn unary(&mut self) -> Result<Node, RuleError> {
        if self.eat("!")? {
            let inner = self.nested(Self::unary)?;
            return self.made(Node::Not(Box::new(inner)));
        }
        if self.eat("-")? {
            let Token::Number(number) = self.advance()? else {
                return Err(self.wrong("behind a minus there has to be a number, like -5"));
            };
            let number = Node::Number(format!("-{number}").into());
            let number = self.made(number)?;
            return self.members(number);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Node, RuleError> {
        let at = self.at;
        let node = match self.advance()? {
            Token::Number(number) => Node::Number(number.into()),
            Token::Text(text) => Node::Text(text.into()),
            Token::Name(name) => return self.named(&name, at),
            Token::Sign("(") => {
                let inner = self.nested(Self::any)?;
                self.expect(")")?;
                return self.members(inner);
            }
            Token::Sign("[") => Node::List(self.elements("]")?),
            Token::End => return Err(self.wrong_at(at, "the expression ends too early")),
            Token::Sign(sign) => {
                return Err(self.wrong_at(at, format!("a value should stand here, not {sign}")));
            }
        };
        let node = self.made(node)?;
        self.members(node)
    }

    fn named(&mut self, name: &str, at: usize) -> Result<Node, RuleError> {
        let node = match name {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            "null" => Node::Null,
            "has" if self.next == Token::Sign("(") => {
                let inside = self.at;
                match self.arguments(1, "has(data.room)")?.pop() {
                    Some(Node::Field(inner, name)) => Node::Has(inner, name),
                    Some(_) | None => {
                        let message = "has() asks for a field, like has(data.room)";
                        return Err(self.wrong_at(inside, message));
                    }
                }
            }
            "size" if self.next == Token::Sign("(") => {
                let argument = self.arguments(1, "size(data.members)")?.pop();
                Node::Size(Box::new(argument.unwrap_or(Node::Null)))
            }
            "exists" if self.next == Token::Sign("(") => self.exists()?,
            _ => match Name::ALL.into_iter().find(|it| it.as_str() == name) {
                Some(known) if self.names.contains(&known) => Node::Name(known),
                Some(_) => return Err(self.wrong_at(at, self.not_here(name))),
                None => {
                    let names = list(Name::ALL.iter().map(|name| name.as_str()));
                    let message = format!(
                        "there is no {name:?}: the names are {names}, the functions has(), size() \
                         and exists(); a text stands in quotes"
                    );
                    return Err(self.wrong_at(at, message));
                }
            },
        };
        let node = self.made(node)?;
        self.members(node)
    }

    fn not_here(&self, name: &str) -> String {
        let names = list(self.names.iter().map(|name| name.as_str()));
        match name {
            "now" => format!(
                "{name} has no value in a rule about reading, since a stream would not notice when its \
                 time has come: let the token expire; the names are {names}"
            ),
            _ => format!("{name} has no value in this rule; the names are {names}"),
        }
    }

    fn exists(&mut self) -> Result<Node, RuleError> {
        const LIKE: &str = "exists(\"memberships\", data.room + \":\" + user)";
        let inside = self.at;
        let mut arguments = self.arguments(2, LIKE)?;
        let (Some(id), Some(collection)) = (arguments.pop(), arguments.pop()) else {
            return Err(self.wrong_at(inside, format!("write it like {LIKE}")));
        };
        if id.any(&mut |part| matches!(part, Node::Exists(..))) {
            let message = "exists() can't stand inside exists(): it looks at one record";
            return Err(self.wrong_at(inside, message));
        }
        let Node::Text(name) = collection else {
            let message = format!("the collection is a text in quotes, as in {LIKE}");
            return Err(self.wrong_at(inside, message));
        };
        let collection = Collection::new(&name).map_err(|error| {
            self.wrong_at(inside, format!("{name:?} is no collection's name: {error}"))
        })?;
        Ok(Node::Exists(collection, Box::new(id)))
    }

    /// Reads the rest of a value: fields, items, and tests of texts.
    fn members(&mut self, mut node: Node) -> Result<Node, RuleError> {
        let mut length = 0;
        loop {
            let made = if self.eat(".")? {
                let at = self.at;
                let Token::Name(name) = self.advance()? else {
                    let message = "a field's name should stand here; another one as [\"…\"]";
                    return Err(self.wrong_at(at, message));
                };
                if self.next == Token::Sign("(") {
                    self.method(node, &name, at)?
                } else {
                    Node::Field(Box::new(node), name.into())
                }
            } else if self.eat("[")? {
                let key = self.nested(Self::any)?;
                self.expect("]")?;
                Node::Item(Box::new((node, key)))
            } else {
                return Ok(node);
            };
            node = self.made(made)?;
            length += 1;
            if self.depth + length > MAX_DEPTH {
                return Err(self.too_deep());
            }
        }
    }

    fn method(&mut self, node: Node, name: &str, at: usize) -> Result<Node, RuleError> {
        if name == "size" {
            self.arguments(0, "data.members.size()")?;
            return Ok(Node::Size(Box::new(node)));
        }
        let Some(test) = TextTest::ALL.into_iter().find(|test| test.as_str() == name) else {
            let message = format!(
                "there is no .{name}(): a text has .startsWith(), .endsWith() and .contains()"
            );
            return Err(self.wrong_at(at, message));
        };
        let argument = self.arguments(1, "data.room.startsWith(\"a\")")?.pop();
        Ok(Node::Test(test, Box::new((node, argument.unwrap_or(Node::Null)))))
    }

    fn arguments(&mut self, count: usize, like: &str) -> Result<Vec<Node>, RuleError> {
        let at = self.at;
        self.expect("(")?;
        let arguments = self.elements(")")?;
        if arguments.len() == count {
            return Ok(arguments);
        }
        let message =
            format!("there are {} arguments, not {count}: write it like {like}", arguments.len());
        Err(self.wrong_at(at, message))
    }

    fn elements(&mut self, end: &'static str) -> Result<Vec<Node>, RuleError> {
        let mut elements = Vec::new();
        if self.eat(end)? {
            return Ok(elements);
        }
        loop {
            elements.push(self.nested(Self::any)?);
            if self.eat(end)? {
                return Ok(elements);
            }
            self.expect(",")?;
        }
    }

    fn nested(
        &mut self,
        inner: fn(&mut Self) -> Result<Node, RuleError>,
    ) -> Result<Node, RuleError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let node = inner(self)?;
        self.depth -= 1;
        Ok(node)
    }

    /// Counts a part.
    fn made(&mut self, node: Node) -> Result<Node, RuleError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let message =
                format!("the expression has more than {MAX_PARTS} parts: make it shorter");
            return Err(self.wrong(message));
        }
        Ok(node)
    }

    fn too_deep(&self) -> RuleError {
        self.wrong(format!("the expression is nested deeper than {MAX_DEPTH} levels"))
    }

    fn advance(&mut self) -> Result<Token, RuleError> {
        let (at, next) = self.tokens.next()?;
        self.at = at;
        Ok(mem::replace(&mut self.next, next))
    }

    fn eat(&mut self, sign: &'static str) -> Result<bool, RuleError> {
        let found = self.next == Token::Sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), RuleError> {
        if self.eat(sign)? {
            Ok(())
        } else {
            Err(self.wrong(format!("{sign:?} should stand here")))
        }
    }

    fn wrong(&self, message: impl Into<String>) -> RuleError {
        self.wrong_at(self.at, message)
    }

    fn wrong_at(&self, at: usize, message: impl Into<String>) -> RuleError {
        RuleError::new(self.tokens.text(), at, message)
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
