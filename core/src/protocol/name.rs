//! Names and numbers: newtypes, so that one can't be passed for another.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use alloc::string::String;
use alloc::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of a committed change in its collection: 1, 2, 3 … without gaps, below 2⁵³. 0
    /// means "before everything".
    Seq
}
number! {
    /// The number of a client's write: 1, 2, 3 … in the order of its outbox.
    MutationNumber
}
number! {
    /// The number of a client's connection. A larger one fences off the smaller ones.
    SessionNumber
}
number! {
    /// The number of a store commit. It also identifies the state machine that made it.
    CommitNumber
}
number! {
    /// The id of a write at its replica: its entry's place in the outbox's order. It never changes,
    /// whereas a mutation number is assigned when the entry is sent.
    WriteId
}
number! {
    /// The id of a connection, shared by its adapter and its state machine.
    ConnId
}

/// An error of reading a text as a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than its type allows.
    #[error("it is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// The length of the text.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The text contains a control character (below U+0020, or U+007F).
    #[error("it holds a control character")]
    Control,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The maximal length of a name, in bytes of UTF-8.
            const MAX_BYTES: usize = $max;

            /// Checks a text and converts it into a name.
            ///
            /// # Errors
            /// When the text is empty, too long, or contains a control character.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text, Self::MAX_BYTES)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        /// The name's text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// Reads a text, which is checked as by [`new`](Self::new).
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name! {
    /// The name of a collection: the unit of subscription, with an order of changes of its own.
    ///
    /// ```
    /// use synclayer_core::{Collection, NameError};
    ///
    /// let todos = Collection::new("todos")?;
    /// assert_eq!(&*todos, "todos");
    /// assert_eq!(Collection::new(""), Err(NameError::Empty));
    /// # Ok::<(), NameError>(())
    /// ```
    Collection, 128
}
name! {
    /// The id of a record, unique in its collection. Any text does that is not empty, at most 256
    /// bytes long and without control characters; a replica can
    /// [draw one](crate::Replica::new_record_id) that no other replica draws.
    RecordId, 256
}
name! {
    /// The durable id of a replica.
    ClientId, 64
}
name! {
    /// A user, as the server learns it from a token.
    UserId, 256
}
name! {
    /// The id of an epoch: the time between two openings of the server's database.
    Epoch, 64
}
name! {
    /// The identity of a server's database: random, given at its first opening, and kept by its
    /// copies and backups, by a repair, and by a move to another store.
    DatabaseId, 64
}

fn check_name(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { bytes: text.len(), max });
    }
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(NameError::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_printable() {
        assert!(Collection::new("todos").is_ok());
        assert!(RecordId::new("a/b c\u{1F600}").is_ok());
        assert_eq!(Collection::new(""), Err(NameError::Empty));
        assert_eq!(Collection::new("a\nb"), Err(NameError::Control));
        assert_eq!(Collection::new("a\0b"), Err(NameError::Control));
        let long = alloc::string::String::from_utf8(alloc::vec![b'a'; 129]).unwrap();
        assert_eq!(Collection::new(&long), Err(NameError::TooLong { bytes: 129, max: 128 }));
    }

    #[test]
    fn a_name_is_its_text_in_json_and_is_checked_when_it_is_read() {
        let id = RecordId::new("a\"b").unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, r#""a\"b""#);
        assert_eq!(serde_json::from_str::<RecordId>(&json).unwrap(), id);
        let error = serde_json::from_str::<RecordId>(r#""""#).unwrap_err();
        assert!(alloc::string::ToString::to_string(&error).contains("it is empty"), "{error}");
    }
}
