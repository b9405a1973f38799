//! The rules: pure functions and row formats for conflicts, transactions, reads and policies.

pub(crate) mod clocks;
pub(crate) mod conflict;
pub(crate) mod forgotten;
pub(crate) mod lookups;
pub(crate) mod merge;
pub(crate) mod page;
pub(crate) mod plain;
pub(crate) mod policy;
pub(crate) mod query;
pub(crate) mod rebuild;
pub(crate) mod record;
pub(crate) mod rights;
pub(crate) mod row;
pub(crate) mod salvage;
pub(crate) mod scope;
pub(crate) mod transaction;
pub(crate) mod verify;
pub(crate) mod view;

pub use self::conflict::{Conflict, ConflictStrategy, FieldStates, Resolver, ResolverFailure};
pub use self::merge::FieldWise;
pub use self::page::{
    Content, FoundRecord, HttpQuery, Next, Page, PageChange, PageLimits, Position, ReadAnswer,
    ReadRequest, Reader,
};
pub use self::policy::{
    Access, AllowAll, Asker, Bucket, Policy, ProposedWrite, Rate, Records, User,
};
pub use self::query::{
    Direction, Explanation, FieldPath, Index, Predicate, Query, QueryChange, QueryCursor,
    QueryError, QuerySnapshot, QueryUpdate,
};
pub use self::rebuild::{Kept, Lost, Rebuild, Rebuilt};
pub use self::record::database;
pub use self::rights::{Judgement, Right, RuleCase, RuleError, Rules};
pub use self::row::Rejected;
pub use self::salvage::{Owner, SalvagedWrites, UnsentWrite, owner, salvage};
pub use self::scope::{NamedScope, ScopeKey};
pub use self::transaction::{
    Context, HelloAnswer, Outcome, PlainUnit, PlainWrite, Published, Push, PushOutcome, Run, Sweep,
    SweepPlace, Swept, TransactError, Transaction, TransactionAnswer, Verdict,
};
pub use self::verify::{Report, verify};
pub use self::view::{Record, RecordChange, Slot, Snapshot, Update};
