//! One field of a message: located, not yet decoded.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::super::document::{Document, DocumentError};
use super::super::super::json;
use super::super::super::limits::Limits;
use super::super::super::message::ErrorCode;
use super::super::super::name::NameError;
use super::super::super::time::Timestamp;
use super::super::WireError;

/// An error in a message whose subject is not known yet.
pub(in super::super) struct Fault {
    code: ErrorCode,
    message: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidMessage, message: message.into() }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::PayloadTooLarge, message: message.into() }
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::new(format!("`{name}` is missing"))
    }

    /// The error of a message without any other readable part.
    pub(super) fn about_nothing(self) -> WireError {
        WireError {
            code: self.code,
            message: self.message,
            mutation: None,
            member: None,
            collection: None,
            record_id: None,
        }
    }
}

/// The value, or the fault that it is missing.
pub(super) fn required<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::missing(name))
}

/// A field's JSON text; empty if the field is absent or null.
#[derive(Clone, Copy, Default)]
pub(super) struct Field<'a>(Option<&'a str>);

impl<'a> Field<'a> {
    pub(super) fn is_some(self) -> bool {
        self.present().is_some()
    }

    pub(super) fn is_true(self) -> bool {
        self.0 == Some("true")
    }

    /// This field, or the other one if this is empty.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.present().or(other.present()))
    }

    /// The JSON text as received.
    pub(super) fn json(self) -> &'a str {
        self.0.unwrap_or("null")
    }

    fn present(self) -> Option<&'a str> {
        self.0.filter(|&json| json != "null")
    }

    pub(super) fn text(self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        let text = json::unescape(json);
        text.map(Some).ok_or_else(|| Fault::new(format!("`{name}` is not a text")))
    }

    /// An integer below 2⁵³, so that every peer can hold it.
    pub(super) fn number(self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        match json.parse() {
            Ok(number) if number < 1 << 53 => Ok(Some(number)),
            Ok(_) | Err(_) => {
                Err(Fault::new(format!("`{name}` is not an integer from 0 to 2^53-1")))
            }
        }
    }

    /// A number of things that fit into memory, or as many as do.
    pub(super) fn size(self, name: &str) -> Result<Option<usize>, Fault> {
        let number = self.number(name)?;
        Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    }

    pub(super) fn timestamp(self, name: &str) -> Result<Option<Timestamp>, Fault> {
        self.parsed(name, Timestamp::parse)
    }

    /// A text of a certain form.
    pub(super) fn parsed<T>(
        self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let value = parse(&text);
        value.map(Some).ok_or_else(|| Fault::new(format!("`{name}` does not have its form")))
    }

    pub(super) fn name<N>(
        self,
        name: &str,
        make: impl FnOnce(&str) -> Result<N, NameError>,
    ) -> Result<Option<N>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        make(&text)
            .map(Some)
            .map_err(|error| Fault::new(format!("`{name}` can't be used: {error}")))
    }

    pub(super) fn document(self, name: &str, limits: &Limits) -> Result<Option<Document>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        Document::parse(json, limits).map(Some).map_err(|error| {
            let text = format!("`{name}`: {error}");
            match error {
                DocumentError::TooLarge { .. } => Fault::too_large(text),
                DocumentError::NotJson(_)
                | DocumentError::NotAnObject
                | DocumentError::TooDeep { .. }
                | DocumentError::TooManyFields { .. }
                | DocumentError::NameTooLong { .. }
                | DocumentError::Duplicate(_)
                | DocumentError::NoField(_)
                | DocumentError::Shape { .. } => Fault::new(text),
            }
        })
    }

    pub(super) fn object<T: Fields<'a>>(self, name: &str) -> Result<Option<T>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        if !json.starts_with('{') {
            return Err(Fault::new(format!("`{name}` is not a JSON object")));
        }
        object(json).map(Some)
    }

    /// The members of an object that has at most `max` of them, each with its JSON text.
    pub(super) fn texts(
        self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<(String, String)>>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        if !json.starts_with('{') {
            return Err(Fault::new(format!("`{name}` is not a JSON object")));
        }
        let mut texts = Vec::new();
        json::members(json, |member, value| {
            if texts.len() == max {
                return Err(Fault::new(format!("`{name}` has more than {max} fields")));
            }
            texts.push((String::from(member), String::from(value.text)));
            Ok(())
        })?;
        Ok(Some(texts))
    }

    /// The elements of a list of at most `max` elements.
    pub(super) fn list(self, name: &str, max: usize) -> Result<Option<Vec<Self>>, Fault> {
        let Some(json) = self.present() else { return Ok(None) };
        if !json.starts_with('[') {
            return Err(Fault::new(format!("`{name}` is not a list")));
        }
        let mut list = Vec::new();
        json::elements(json, |element| {
            if list.len() == max {
                return Err(Fault::new(format!("`{name}` holds more than {max} elements")));
            }
            list.push(Self(Some(element.text)));
            Ok(())
        })?;
        Ok(Some(list))
    }
}

impl From<json::Broken> for Fault {
    fn from(broken: json::Broken) -> Self {
        Self::new(format!("the message is not valid JSON: {broken}"))
    }
}

/// A type whose values are the fields of an object, found by their names.
pub(super) trait Fields<'a>: Default {
    /// The slot of the field with this name, if the type has one.
    fn slot(&mut self, name: &str) -> Option<&mut Field<'a>>;
}

/// Defines a type that has [`Fields`], each with its name on the wire.
macro_rules! fields {
    ($(#[$doc:meta])* $vis:vis struct $type:ident { $($field:ident: $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        $vis struct $type<'a> {
            $($vis $field: Field<'a>,)*
        }

        impl<'a> Fields<'a> for $type<'a> {
            fn slot(&mut self, name: &str) -> Option<&mut Field<'a>> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}
pub(super) use fields;

/// Locates the fields of a message, or of an object in one.
pub(super) fn object<'a, T: Fields<'a>>(json: &'a str) -> Result<T, Fault> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Fault::new("the message is not a JSON object"));
    }
    let mut fields = T::default();
    json::members(json, |name, value| {
        if let Some(slot) = fields.slot(&name) {
            if slot.0.is_some() {
                return Err(Fault::new(format!("the field `{name}` occurs twice")));
            }
            slot.0 = Some(value.text);
        }
        Ok(())
    })?;
    Ok(fields)
}
