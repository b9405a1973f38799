//! The format of a scenario file.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// A file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Scenario {
    /// The subject, in a sentence.
    #[expect(dead_code, reason = "for people")]
    pub(super) title: String,
    /// The reason for it.
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    pub(super) about: Option<String>,
    /// The protocol's rules that it shows, by their numbers.
    #[serde(default)]
    #[expect(dead_code, reason = "for people, and a test that the rules exist")]
    pub(super) rules: Vec<String>,
    pub(super) kind: End,
    /// The name of the file in the same folder that this one continues.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// The setup; laid over that of the file that this one continues.
    #[serde(default)]
    pub(super) config: Value,
    pub(super) steps: Vec<Step>,
}

/// The end that a scenario drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum End {
    /// A replica; the file plays its app, its network, its server and its disk.
    Client,
    /// A server's sessions; the file plays their clients.
    Server,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Step {
    /// A note for people.
    #[serde(default)]
    pub(super) note: Option<String>,
    /// On which connection; the latest (client) or the first (server) where it isn't said.
    #[serde(default)]
    pub(super) conn: Option<u64>,
    #[serde(rename = "in")]
    pub(super) input: Value,
    /// Everything that comes out, in order.
    #[serde(default)]
    pub(super) out: Vec<Value>,
}

impl Step {
    /// A step of which nothing is expected.
    pub(crate) fn of(conn: Option<u64>, input: Value) -> Self {
        Self { note: None, conn, input, out: Vec::new() }
    }
}

impl Scenario {
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        Self::read_text(file).map(|(_, scenario)| scenario)
    }

    pub(super) fn read_text(file: &Path) -> Result<(String, Self), String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let scenario = Self::parse(&text)?;
        Ok((text, scenario))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// One object laid over another, field by field.
pub(super) fn merge(below: &Value, above: &Value) -> Value {
    let (Some(old), Some(new)) = (below.as_object(), above.as_object()) else {
        return if above.is_null() { below.clone() } else { above.clone() };
    };
    let mut merged = old.clone();
    merged.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(merged)
}

/// Reads a value as what it has to be.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}
