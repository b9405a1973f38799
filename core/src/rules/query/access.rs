//! Fields of documents by their paths: read as values, set and removed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::path::FieldPath;
use crate::protocol::document::{Document, DocumentError, json_string};
use crate::protocol::json;
use crate::protocol::limits::Limits;

impl Document {
    /// The value of a field, as a type of the caller's; `None` if there is no such field. The field may lie
    /// inside objects: `address.city`; a name that holds a dot or a quote is written as a JSON string. `null`
    /// is a value: read it as an `Option`.
    ///
    /// ```
    /// use synclayer_core::{Document, DocumentError, Limits};
    ///
    /// let json = r#"{"title": "milk", "address": {"city": "Ghent"}}"#;
    /// let mut todo = Document::parse(json, &Limits::default())?;
    /// assert_eq!(todo.get::<String>("address.city")?.as_deref(), Some("Ghent"));
    /// assert_eq!(todo.get::<u32>("priority")?, None);
    ///
    /// todo.set("priority", &2)?;
    /// todo.set("address.street", "Coupure")?;
    /// assert!(todo.remove("title")?);
    /// assert_eq!(
    ///     todo.to_string(),
    ///     r#"{"address":{"city":"Ghent","street":"Coupure"},"priority":2}"#
    /// );
    /// # Ok::<(), DocumentError>(())
    /// ```
    ///
    /// # Errors
    /// When the path is none, or the value does not have the type's shape.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DocumentError> {
        let Some(text) = parse(path)?.find(self) else { return Ok(None) };
        let value = serde_json::from_str(text).map_err(|error| DocumentError::Shape {
            field: path.to_string(),
            message: error.to_string(),
        })?;
        Ok(Some(value))
    }

    /// Sets a field, which may lie inside objects, to a value. Objects on the way to it that are missing
    /// are made; everything else stays as it was written.
    ///
    /// # Errors
    /// When the path is none, something on the way to the field is no object, or the value is nested too
    /// deep or can't be written as JSON. Then the document is as it was.
    pub fn set<T: Serialize + ?Sized>(
        &mut self,
        path: &str,
        value: &T,
    ) -> Result<(), DocumentError> {
        let json = serde_json::to_string(value)
            .map_err(|error| DocumentError::NotJson(error.to_string()))?;
        self.change(path, Some(&json)).map(drop)
    }

    /// Removes a field, which may lie inside objects. Returns `true` if there was one.
    ///
    /// # Errors
    /// When the path is none.
    pub fn remove(&mut self, path: &str) -> Result<bool, DocumentError> {
        if parse(path)?.find(self).is_none() {
            return Ok(false);
        }
        self.change(path, None)
    }

    fn change(&mut self, path: &str, json: Option<&str>) -> Result<bool, DocumentError> {
        let names = parse(path)?;
        let names: Vec<&str> = names.names().collect();
        let text = changed(Some(&self.to_string()), &names, json)
            .ok_or_else(|| DocumentError::NoField(path.to_string()))?;
        // the call that writes it looks at its size
        let (document_bytes, fields) = (usize::MAX, usize::MAX);
        let limits = Limits { document_bytes, fields, ..Limits::default() };
        *self = Self::parse(&text, &limits)?;
        Ok(true)
    }
}

fn parse(path: &str) -> Result<FieldPath, DocumentError> {
    path.parse().map_err(|_| DocumentError::NoField(path.to_string()))
}

/// The text of an object with another value of a member, which may lie inside its members; `None` if
/// something on the way is no object.
fn changed(object: Option<&str>, names: &[&str], json: Option<&str>) -> Option<String> {
    let Some((name, inside)) = names.split_first() else { return json.map(String::from) };
    let object = object.unwrap_or("{}");
    let mut members = Vec::new();
    json::pairs(object, |key, value| {
        members.push((key, value.text));
        Ok::<(), json::Broken>(())
    })
    .ok()?;
    let is_it = |key: &str| *json::string_bytes(key) == *name.as_bytes();
    // of several with one name the last counts
    let old = members.iter().rfind(|(key, _)| is_it(key)).map(|(_, text)| *text);
    let mut new = match (inside, json) {
        ([], None) => None,
        _ => Some(changed(old, inside, json)?),
    };
    let mut out = String::from("{");
    let mut put = |key: &str, text: &str| {
        let comma = if out.len() > 1 { "," } else { "" };
        out.push_str(&format!("{comma}{key}:{text}"));
    };
    for (key, text) in members {
        if !is_it(key) {
            put(key, text);
        } else if let Some(new) = new.take() {
            put(key, &new);
        }
    }
    if let Some(new) = new {
        put(&json_string(name), &new);
    }
    out.push('}');
    Some(out)
}

/// Makes a document of a JSON object, within the default [`Limits`].
impl TryFrom<serde_json::Value> for Document {
    type Error = DocumentError;

    fn try_from(value: serde_json::Value) -> Result<Self, DocumentError> {
        Self::of(&value, &Limits::default())
    }
}

/// The document as a value. Numbers become what `serde_json` makes of them: those with many digits lose
/// some, and one that is too large for it is an error. The document keeps every digit.
impl TryFrom<&Document> for serde_json::Value {
    type Error = serde_json::Error;

    fn try_from(document: &Document) -> Result<Self, serde_json::Error> {
        document.to()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn document(json: &str) -> Document {
        Document::parse(json, &Limits::default()).unwrap()
    }

    #[test]
    fn a_field_is_read_as_the_type_that_it_is_asked_for() {
        let of = document(r#"{"a": {"b": [1, 2]}, "n": null, "x.y": 9007199254740993}"#);
        assert_eq!(of.get::<Vec<u8>>("a.b"), Ok(Some(vec![1, 2])));
        assert_eq!(of.get::<u64>(r#""x.y""#), Ok(Some(9_007_199_254_740_993)));
        assert_eq!(of.get::<Option<u8>>("n"), Ok(Some(None)), "null is a value");
        assert_eq!(of.get::<Option<u8>>("a.c"), Ok(None), "and this is missing");
        let error = of.get::<bool>("a.b").unwrap_err().to_string();
        assert!(error.starts_with("the field a.b has another shape: invalid type"), "{error}");
        assert_eq!(of.get::<bool>("a..b"), Err(DocumentError::NoField("a..b".into())));
    }

    #[test]
    fn a_field_is_set_and_removed_and_the_rest_stays_as_it_was_written() {
        let mut of = document(r#"{"a": {"b" : 1.50, "c": {}}, "n": 1e2}"#);
        of.set("a.c.d.e", &[true]).unwrap();
        of.set("m", "text").unwrap();
        of.set("a.b", &None::<u8>).unwrap();
        let expected = r#"{"a":{"b":null,"c":{"d":{"e":[true]}}},"m":"text","n":1e2}"#;
        assert_eq!(of.to_string(), expected);
        assert_eq!((of.remove("a.c.d"), of.remove("a.c.d")), (Ok(true), Ok(false)));
        assert_eq!((of.remove("n"), of.remove("none.at.all")), (Ok(true), Ok(false)));
        assert_eq!(of.to_string(), r#"{"a":{"b":null,"c":{}},"m":"text"}"#);
        let before = of.clone();
        for (path, error) in
            [("m.x", DocumentError::NoField("m.x".into())), ("", DocumentError::NoField("".into()))]
        {
            assert_eq!(of.set(path, &1), Err(error));
        }
        let deep = "a.".repeat(200) + "a";
        assert!(matches!(of.set(&deep, &1), Err(DocumentError::TooDeep { .. })));
        assert_eq!(of, before);
    }

    #[test]
    fn of_several_members_with_one_name_the_last_is_changed() {
        let mut of = document(r#"{"a": {"b": 1, "c": 2, "b": {"x": 3}}}"#);
        of.set("a.b.y", &4).unwrap();
        assert_eq!(of.to_string(), r#"{"a":{"b":{"x":3,"y":4},"c":2}}"#);
        assert_eq!(of.remove("a.b"), Ok(true));
        assert_eq!(of.to_string(), r#"{"a":{"c":2}}"#);
    }

    #[test]
    fn a_document_becomes_a_value_and_a_value_a_document() {
        let of = document(r#"{"a":[1,{"b":null}]}"#);
        let value = serde_json::Value::try_from(&of).unwrap();
        assert_eq!(value["a"][1]["b"], serde_json::Value::Null);
        assert_eq!(Document::try_from(value), Ok(of));
        let list = serde_json::Value::Array(Vec::new());
        assert_eq!(Document::try_from(list), Err(DocumentError::NotAnObject));
    }
}
