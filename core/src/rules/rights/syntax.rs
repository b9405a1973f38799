//! Expressions as trees, and as text.

use core::fmt::{self, Write as _};

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::name::Collection;

/// A name that has a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Name {
    User,
    Claims,
    Data,
    New,
    Changed,
    Id,
    Collection,
    Now,
}

impl Name {
    pub(super) const ALL: [Self; 8] = [
        Self::User,
        Self::Claims,
        Self::Data,
        Self::New,
        Self::Changed,
        Self::Id,
        Self::Collection,
        Self::Now,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Claims => "claims",
            Self::Data => "data",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Id => "id",
            Self::Collection => "collection",
            Self::Now => "now",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) const ALL: [Self; 6] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// A test of a text by another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl TextTest {
    pub(super) const ALL: [Self; 3] = [Self::StartsWith, Self::EndsWith, Self::Contains];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
        }
    }
}

/// A part of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// The text of a JSON number.
    Number(Box<str>),
    Text(Box<str>),
    List(Vec<Self>),
    Name(Name),
    /// `a.name`
    Field(Box<Self>, Box<str>),
    /// `a[b]`
    Item(Box<(Self, Self)>),
    Not(Box<Self>),
    /// Two or more with `&&` between them.
    All(Vec<Self>),
    /// Two or more with `||` between them.
    Any(Vec<Self>),
    Compare(Comparison, Box<(Self, Self)>),
    In(Box<(Self, Self)>),
    /// Two or more texts with `+` between them.
    Join(Vec<Self>),
    /// `has(a.name)`
    Has(Box<Self>, Box<str>),
    Size(Box<Self>),
    Test(TextTest, Box<(Self, Self)>),
    /// `exists("collection", id)`
    Exists(Collection, Box<Self>),
}

impl Node {
    /// Returns `true` if a part of the tree fits.
    pub(super) fn any(&self, fits: &mut dyn FnMut(&Self) -> bool) -> bool {
        if fits(self) {
            return true;
        }
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Name(_) => false,
            Self::List(parts) | Self::All(parts) | Self::Any(parts) | Self::Join(parts) => {
                parts.iter().any(|part| part.any(fits))
            }
            Self::Field(inner, _)
            | Self::Not(inner)
            | Self::Has(inner, _)
            | Self::Size(inner)
            | Self::Exists(_, inner) => inner.any(fits),
            Self::Item(pair) | Self::Compare(_, pair) | Self::In(pair) | Self::Test(_, pair) => {
                pair.0.any(fits) || pair.1.any(fits)
            }
        }
    }

    /// The names of the claims that it asks for; `None` if it may ask for any.
    pub(super) fn claims(&self) -> Option<BTreeSet<Box<str>>> {
        let is_claims = |part: &Self| matches!(part, Self::Name(Name::Claims));
        let (mut names, mut all, mut named) = (BTreeSet::new(), 0_usize, 0_usize);
        self.any(&mut |part| {
            all += usize::from(is_claims(part));
            let name = if let Self::Field(inner, name) | Self::Has(inner, name) = part {
                is_claims(inner).then_some(name)
            } else if let Self::Item(pair) = part
                && let (holder, Self::Text(name)) = &**pair
            {
                is_claims(holder).then_some(name)
            } else {
                None
            };
            named += usize::from(name.is_some());
            names.extend(name.cloned());
            false
        });
        (all == named).then_some(names)
    }

    /// The collections at whose records it looks.
    pub(super) fn looks(&self) -> BTreeSet<Collection> {
        let mut collections = BTreeSet::new();
        self.any(&mut |part| {
            if let Self::Exists(collection, _) = part {
                collections.insert(collection.clone());
            }
            false
        });
        collections
    }

    /// The parts of a conjunction, or the expression itself.
    pub(super) fn conditions(&self) -> &[Self] {
        if let Self::All(parts) = self { parts } else { core::slice::from_ref(self) }
    }

    /// The strength with which the parts hold together: brackets are needed around a weaker part.
    fn strength(&self) -> u8 {
        match self {
            Self::Any(_) => 0,
            Self::All(_) => 1,
            Self::Compare(..) | Self::In(_) => 2,
            Self::Join(_) => 3,
            Self::Not(_) => 4,
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Name(_)
            | Self::Field(..)
            | Self::Item(_)
            | Self::Has(..)
            | Self::Size(_)
            | Self::Test(..)
            | Self::Exists(..) => 5,
        }
    }

    fn put(&self, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // a field of a number would read as its fraction
        let is_number = matches!(self, Self::Number(_)) && least == 5;
        if self.strength() < least || is_number {
            write!(f, "({self})")
        } else {
            write!(f, "{self}")
        }
    }

    fn put_all(parts: &[Self], sign: &str, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                f.write_str(sign)?;
            }
            part.put(least, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(is) => write!(f, "{is}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List(parts) => {
                f.write_char('[')?;
                Self::put_all(parts, ", ", 0, f)?;
                f.write_char(']')
            }
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Field(inner, name) => {
                inner.put(5, f)?;
                write!(f, ".{name}")
            }
            Self::Item(pair) => {
                pair.0.put(5, f)?;
                write!(f, "[{}]", pair.1)
            }
            Self::Not(inner) => {
                f.write_char('!')?;
                inner.put(4, f)
            }
            Self::All(parts) => Self::put_all(parts, " && ", 2, f),
            Self::Any(parts) => Self::put_all(parts, " || ", 1, f),
            Self::Compare(comparison, pair) => {
                pair.0.put(3, f)?;
                write!(f, " {} ", comparison.as_str())?;
                pair.1.put(3, f)
            }
            Self::In(pair) => {
                pair.0.put(3, f)?;
                f.write_str(" in ")?;
                pair.1.put(3, f)
            }
            Self::Join(parts) => Self::put_all(parts, " + ", 4, f),
            Self::Has(inner, name) => {
                f.write_str("has(")?;
                inner.put(5, f)?;
                write!(f, ".{name})")
            }
            Self::Size(inner) => write!(f, "size({inner})"),
            Self::Test(test, pair) => {
                pair.0.put(5, f)?;
                write!(f, ".{}({})", test.as_str(), pair.1)
            }
            Self::Exists(collection, id) => write!(f, "exists({}, {id})", quoted(collection)),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}
