//! Failures of commands: exit code and message.
// the libraries' errors may grow in number; those that aren't named have no code of their own
#![allow(clippy::wildcard_enum_match_arm)]

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

use synclayer_server::StartError;
use synclayer_tokio::{DocumentError, Misuse, OpenError, StoreError, StoreErrorKind, SyncError};

/// The exit codes besides 0. What they mean is documented with the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    Waiting = 3,
    Missing = 4,
    Refused = 5,
    InUse = 6,
    Damaged = 7,
    Undecided = 8,
    NotInSync = 9,
    Foreign = 10,
    GivenUp = 11,
}

impl Code {
    /// The code's name, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Waiting => "waiting",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::InUse => "in-use",
            Self::Damaged => "damaged",
            Self::Undecided => "undecided",
            Self::NotInSync => "not-in-sync",
            Self::Foreign => "foreign",
            Self::GivenUp => "given-up",
        }
    }
}

/// The reason why a command ends with a code other than 0.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The message still to be printed; `None` if the command has printed everything.
    pub(crate) message: Option<String>,
    /// A line behind the message.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), hint: None }
    }

    /// The same with a line behind its message.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A failure that has no code of its own.
    pub(crate) fn plain(message: impl Display) -> Self {
        Self::new(Code::Failed, message.to_string())
    }

    /// The command has said what there is to say.
    pub(crate) fn said(code: Code) -> Self {
        Self { code, message: None, hint: None }
    }

    pub(crate) fn no_record(collection: &str, id: &str) -> Self {
        Self::new(Code::Missing, format!("there is no record {id} in {collection}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or_default())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match error.kind {
            StoreErrorKind::InUse => Code::InUse,
            StoreErrorKind::Damaged => Code::Damaged,
            StoreErrorKind::Foreign => Code::Foreign,
            _ => Code::Failed,
        };
        Self::new(code, error.message)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => error.into(),
            OpenError::Insecure { host } => Self::new(
                Code::Usage,
                format!(
                    "the token would be sent unencrypted to {host}; use https://, or \
                     --allow-insecure if the network is trusted"
                ),
            ),
            error @ (OpenError::Address { .. }
            | OpenError::Token
            | OpenError::Collection { .. }) => Self::new(Code::Usage, error.to_string()),
            error => Self::plain(error),
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Store(error) => error.into(),
            SyncError::Misuse(Misuse::NoSuchRecord { collection, record_id }) => {
                Self::no_record(&collection, &record_id)
            }
            SyncError::Misuse(Misuse::NoSuchRejected(write)) => {
                Self::new(Code::Missing, format!("there is no rejected write {write}"))
            }
            SyncError::Misuse(Misuse::NotStalled(write)) => {
                let text = format!(
                    "write {write} does not stall, and nothing was done: `synclayer status` names the \
                     write that does, if there is one"
                );
                Self::new(Code::Missing, text)
            }
            error @ SyncError::Name { .. } => {
                Self::new(Code::Usage, format!("{error}; nothing was done: choose another one"))
            }
            SyncError::Document(error) => unusable(&error),
            error => Self::plain(error),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Exposed(_) => Self::new(Code::Usage, error.to_string()),
            StartError::Store(error) => error.into(),
            StartError::Setting { field, why } => {
                let option = field.trim_end_matches('s').replace('_', "-");
                Self::new(Code::Usage, format!("--{option} {why}"))
            }
            StartError::Listen(address, error) => {
                let why = match error.kind() {
                    io::ErrorKind::AddrInUse => "another program listens there; end it, or choose \
                                                 another port with --listen"
                        .to_owned(),
                    io::ErrorKind::AddrNotAvailable => "this machine does not have that address; \
                                                        0.0.0.0 stands for all that it has"
                        .to_owned(),
                    io::ErrorKind::PermissionDenied => "ports below 1024 are for privileged \
                                                        programs; choose one above with --listen"
                        .to_owned(),
                    _ => error.to_string(),
                };
                Self::plain(format!("can't listen on {address}: {why}"))
            }
            error => Self::plain(error),
        }
    }
}

/// Says that a document can't be used, why, and what to do now.
pub(crate) fn unusable(error: &DocumentError) -> Failure {
    let advice = advice(error);
    let text = format!("the JSON can't be used: {error}; nothing was saved: {advice}");
    Failure::new(Code::Usage, text)
}

/// Says what to do about a document that can't be used.
pub(crate) fn advice(error: &DocumentError) -> &'static str {
    match error {
        DocumentError::NotJson(_) => "correct the JSON there",
        DocumentError::NotAnObject => "a record has named fields",
        DocumentError::TooLarge { .. } => "divide it into several records",
        DocumentError::TooDeep { .. } => {
            "write the inner part as a text, or as a record of its own"
        }
        DocumentError::TooManyFields { .. } => "put some of them together in one field",
        DocumentError::NameTooLong { .. } => "give the field a shorter name",
        DocumentError::Duplicate(_) => "leave one of the two out",
        _ => "change it",
    }
}

/// Says that a file can't be read, why, and what to do now.
pub(crate) fn unreadable(file: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => {
            "let the user who runs this read it (chown, chmod), or name another file"
        }
        _ => "check the file, or name another one",
    };
    format!("{} can't be read: {error}; {advice}", file.display())
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::plain(error)
    }
}
