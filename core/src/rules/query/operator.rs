//! The operators, by the names of SyncLayer.

/// The test of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    EqualTo,
    NotEqualTo,
    LessThan,
    LessThanOrEqualTo,
    GreaterThan,
    GreaterThanOrEqualTo,
    StartsWith,
    EndsWith,
    Contains,
    ArrayContains,
    ArrayContainsAny,
    In,
    NotIn,
    Null,
    NotNull,
    Exists,
}

/// The values that an operator takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    /// Any value.
    Value,
    /// A text.
    Text,
    /// A list of values.
    List,
    /// `true`, or `false` for the opposite.
    Flag,
}

/// Each operator with its name and, where it has one, its short form.
pub(super) const OPERATORS: [(Operator, &str, &str); 16] = [
    (Operator::EqualTo, "isEqualTo", "=="),
    (Operator::NotEqualTo, "isNotEqualTo", "!="),
    (Operator::LessThan, "isLessThan", "<"),
    (Operator::LessThanOrEqualTo, "isLessThanOrEqualTo", "<="),
    (Operator::GreaterThan, "isGreaterThan", ">"),
    (Operator::GreaterThanOrEqualTo, "isGreaterThanOrEqualTo", ">="),
    (Operator::StartsWith, "startsWith", ""),
    (Operator::EndsWith, "endsWith", ""),
    (Operator::Contains, "contains", ""),
    (Operator::ArrayContains, "arrayContains", ""),
    (Operator::ArrayContainsAny, "arrayContainsAny", ""),
    (Operator::In, "whereIn", "in"),
    (Operator::NotIn, "whereNotIn", "!in"),
    (Operator::Null, "isNull", ""),
    (Operator::NotNull, "isNotNull", ""),
    (Operator::Exists, "exists", ""),
];

impl Operator {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let named = |(_, long, short): &&(Self, &str, &str)| *long == name || *short == name;
        OPERATORS.iter().find(named).filter(|_| !name.is_empty()).map(|(operator, ..)| *operator)
    }

    pub(super) fn name(self) -> &'static str {
        let found = OPERATORS.iter().find(|(operator, ..)| *operator == self);
        found.map_or("", |(_, name, _)| name)
    }

    pub(super) fn takes(self) -> Takes {
        match self {
            Self::EqualTo
            | Self::NotEqualTo
            | Self::LessThan
            | Self::LessThanOrEqualTo
            | Self::GreaterThan
            | Self::GreaterThanOrEqualTo
            | Self::ArrayContains => Takes::Value,
            Self::StartsWith | Self::EndsWith | Self::Contains => Takes::Text,
            Self::ArrayContainsAny | Self::In | Self::NotIn => Takes::List,
            Self::Null | Self::NotNull | Self::Exists => Takes::Flag,
        }
    }
}
