//! The users of a scenario's server, and what they may do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use synclayer_core::{
    Access, Change, Collection, Document, Limits, Policy, RecordId, Right, Rules, User, UserId,
};

/// The user of a token, perhaps with claims.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenOf {
    User(String),
    Claims { user: String, claims: Value },
}

impl TokenOf {
    pub(super) fn user(&self) -> Result<User, String> {
        match self {
            Self::User(user) => known(user, None),
            Self::Claims { user, claims } => known(user, Some(claims)),
        }
    }
}

/// A policy as data: nobody reads or writes some collections, and of some each user sees only the
/// records whose field `owner` names them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Lists {
    unreadable: BTreeSet<String>,
    unwritable: BTreeSet<String>,
    owned: BTreeSet<String>,
}

impl Lists {
    fn owns(user: Option<&UserId>, document: &Document) -> bool {
        let owner = document.text("owner").map(|text| text.trim_matches('"').to_owned());
        user.is_some_and(|user| owner.as_deref() == Some(&**user))
    }
}

impl Policy for Lists {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if self.unreadable.contains(&**collection) {
            Access::None
        } else if self.owned.contains(&**collection) {
            Access::Some
        } else {
            Access::All
        }
    }

    fn read_record(
        &self,
        user: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        Self::owns(user, document)
    }

    fn write(
        &self,
        _: Option<&UserId>,
        collection: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        match self.unwritable.contains(&**collection) {
            true => Err(format!("nobody writes to {collection}")),
            false => Ok(()),
        }
    }
}

/// The rules of each collection: the expression of each right.
pub(super) type RuleTexts = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn known(user: &str, claims: Option<&Value>) -> Result<User, String> {
    Ok(User { id: user_id(user)?, claims: claims.map(document).transpose()? })
}

/// Rules without which nothing is allowed.
pub(super) fn rules(texts: &RuleTexts) -> Result<Rules, String> {
    let mut rules = Rules::new(false);
    for (collection, texts) in texts {
        let collection = Collection::new(collection).map_err(|error| error.to_string())?;
        for (right, text) in texts {
            let known = Right::ALL.into_iter().find(|known| known.as_str() == right);
            let right = known.ok_or_else(|| format!("there is no right {right}"))?;
            rules.set(collection.clone(), right, text).map_err(|error| error.to_string())?;
        }
    }
    Ok(rules)
}

fn document(value: &Value) -> Result<Document, String> {
    Document::parse(&value.to_string(), &Limits::default()).map_err(|error| error.to_string())
}

fn user_id(name: &str) -> Result<UserId, String> {
    UserId::new(name).map_err(|error| format!("{name}: {error}"))
}
