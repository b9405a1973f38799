//! Server-side reads: pages of a catch-up, whole collections, and HTTP queries.
//!
//! Every page is read from one consistent view of the rows, and bounded in records and bytes.
//! Between two pages only their [`Position`] is kept.

mod delta;
mod limits;
mod query;
mod reader;
mod rights;
mod scope;
mod set;
mod snapshot;
mod start;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use self::limits::Budget;
pub use self::limits::PageLimits;
pub use self::query::{FoundRecord, HttpQuery};
pub use self::reader::Reader;
use self::scope::{NoScope, ScopeAt};
pub(crate) use self::set::SetPosition;
use super::lookups::{LookUps, Looked};
use super::policy::{Access, Asker, Policy};
use super::record::{self, ClientRow, EpochRow, Head, RecordRow, database};
use super::scope::Scope;
use crate::protocol::document::Document;
use crate::protocol::hash::{Checksum, RightsTag};
use crate::protocol::message::{
    Cursor, DeleteReason, ErrorCode, Mode, PageRange, Resume, ServerChange, SyncRecord,
};
use crate::protocol::name::{ClientId, DatabaseId, Epoch, MutationNumber, RecordId, Seq};
use crate::protocol::scopes::{LeftRecord, ScopePlace};
use crate::protocol::times::FieldTimes;
use crate::protocol::write::Change;
use crate::store::{Rows, Scan, StoreError};

/// A read request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadRequest {
    /// The next page of a catch-up.
    CatchUp {
        /// The reader.
        reader: Reader,
        /// The position at which the page begins.
        position: Position,
        /// The limits of the page.
        limits: PageLimits,
    },
    /// A page of a catch-up by HTTP, with the data of a hello that a connection would have, from
    /// the same view of the rows.
    Pull {
        /// The reader.
        reader: Reader,
        /// The position at which the page begins.
        position: Position,
        /// The limits of the page.
        limits: PageLimits,
        /// The client whose last mutation is requested.
        client: Option<ClientId>,
    },
    /// Every record of a collection at once, up to a size limit.
    Whole {
        /// The reader.
        reader: Reader,
        /// The maximal size in bytes.
        bytes: usize,
    },
    /// A query by HTTP.
    Query {
        /// The reader.
        reader: Reader,
        /// The query.
        query: HttpQuery,
        /// The maximal size in bytes.
        bytes: usize,
    },
}

/// The answer to a [`ReadRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadAnswer {
    /// The answer to [`ReadRequest::CatchUp`].
    Page(Page),
    /// The answer to [`ReadRequest::Pull`].
    Pulled(Pulled),
    /// The answer to [`ReadRequest::Whole`].
    Whole(Whole),
    /// The answer to [`ReadRequest::Query`]; `None` if it would be too large.
    Found(Option<Vec<FoundRecord>>),
    /// The request can't be answered, or not yet: then the code is [`ErrorCode::ServerError`].
    Refused {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
}

/// A whole collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    /// The records in order of their ids; `None` if they would be too large.
    pub records: Option<Vec<SyncRecord>>,
    /// The records that the policy has looked at, besides those that it judged.
    pub(crate) looked: Box<Looked>,
}

/// A page by HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulled {
    /// The page.
    pub page: Page,
    /// The identity of the database.
    pub database: Option<DatabaseId>,
    /// The current epoch.
    pub epoch: Epoch,
    /// The number of the client's last applied write; `None` if it was not requested, or the server
    /// knows no such client of this user.
    pub last_mutation: Option<MutationNumber>,
}

/// A position in the run of a catch-up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Position {
    /// Before the run, with the reader's cursor and resume.
    Start {
        /// The reader's cursor.
        cursor: Option<Cursor>,
        /// The position in an interrupted run.
        resume: Option<Resume>,
    },
    /// Before the run of a reader who was shown by some rights what they hold: if those are not the
    /// rights of now, it counts for nothing.
    ShownBy {
        /// The tag of those rights.
        rights: Option<RightsTag>,
        /// `true` if the records are followed at which they have looked.
        followed: bool,
        /// The place that the reader has reached.
        start: Box<Self>,
    },
    /// Before the run over a set of scopes, with what the reader holds of each.
    StartOfSet {
        /// The reader's cursor.
        cursor: Option<Cursor>,
        /// The position in an interrupted run.
        resume: Option<Resume>,
        /// The scopes, each with its place.
        places: Vec<(Scope, ScopePlace)>,
    },
    /// In a run over a set of scopes.
    Set(Box<SetPosition>),
    /// Behind the run: the reader wants only the changes from now on.
    Now,
    /// Among the changes above a floor.
    Delta {
        /// The seq up to which the reader knows the fields.
        floor: Seq,
        /// The seq of the last record that was sent.
        after: Seq,
    },
    /// In a snapshot.
    Snapshot {
        /// The head when the snapshot began.
        snapshot_seq: Seq,
        /// The last covered key.
        after: Option<RecordId>,
    },
}

/// A page of a catch-up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Page {
    /// The beginning of the run, if it begins or begins anew with this page: the content of
    /// `subscribed`.
    pub opened: Option<Box<Opened>>,
    /// The content of the page.
    pub content: Content,
    /// The step after this page.
    pub next: Next,
    /// The records that the policy has looked at, besides those that it judged.
    pub(crate) looked: Box<Looked>,
}

impl Page {
    /// Changes what it says of the beginning of its run.
    fn opened_with(mut self, change: impl FnOnce(&mut Opened)) -> Self {
        if let Some(opened) = &mut self.opened {
            change(opened);
        }
        self
    }
}

/// The beginning of a run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Opened {
    /// The mode of the run.
    pub mode: Mode,
    /// The number of live records in the collection.
    pub count: u64,
    /// Its head.
    pub head: Seq,
    /// The scopes of the set that the run leaves out, since their keys are not declared.
    pub(crate) refused: Vec<Scope>,
    /// The rights by which the run is shown.
    pub(crate) rights: Option<RightsTag>,
    /// The rights by which the reader's cursor was reached, if it is valid and does not count for them alone.
    pub(crate) others: Option<Option<RightsTag>>,
}

/// The content of a page.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Content {
    /// Changes in the order of their seqs.
    Changes(Vec<PageChange>),
    /// All records in a range of keys.
    Snapshot {
        /// The records in the order of their ids.
        records: Vec<SyncRecord>,
        /// The range.
        range: PageRange,
    },
    /// The members of a scope in a range of seqs, whole, and what has left it.
    Load {
        /// The scope.
        scope: Scope,
        /// The members in the order of their seqs.
        records: Vec<SyncRecord>,
        /// The records that left.
        left: Vec<LeftRecord>,
        /// The exclusive start of the range; `None` is before the first seq.
        after: Option<Seq>,
        /// The inclusive end of the range; `None` for the last page.
        up_to: Option<Seq>,
        /// The head when the load began.
        snapshot_seq: Seq,
    },
    /// Several loads, of which all but the last are whole.
    Loads(Vec<Self>),
}

impl Content {
    /// Returns `true` if it shows nothing.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Changes(changes) if changes.is_empty())
    }
}

/// A change in a page.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageChange {
    /// The record.
    pub record_id: RecordId,
    /// The change.
    pub change: ServerChange,
    /// The reason for which it takes out a record that may still exist.
    pub reason: Option<DeleteReason>,
}

/// The step after a page.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Next {
    /// Another page.
    More(Position),
    /// The end of the run: the reader has everything up to here, as of the same view of the rows.
    Done {
        /// The cursor.
        cursor: Cursor,
        /// The number of live records; 0 for a partial reader.
        count: u64,
        /// Their checksum; `None` for a partial reader.
        checksum: Option<Checksum>,
    },
}

impl ReadRequest {
    /// The reader of the request.
    #[must_use]
    pub(crate) fn reader(&self) -> &Reader {
        match self {
            Self::CatchUp { reader, .. }
            | Self::Pull { reader, .. }
            | Self::Whole { reader, .. }
            | Self::Query { reader, .. } => reader,
        }
    }

    /// Executes the request.
    ///
    /// # Errors
    /// When the rows can't be read or are damaged.
    pub fn run(&self, rows: &dyn Rows, policy: &dyn Policy) -> Result<ReadAnswer, StoreError> {
        let of_set = match self {
            Self::CatchUp { position, .. } | Self::Pull { position, .. } => {
                matches!(position, Position::StartOfSet { .. } | Position::Set(_))
            }
            Self::Whole { .. } | Self::Query { .. } => false,
        };
        let view = match ReaderView::open(rows, policy, self.reader(), of_set)? {
            Ok(view) => view,
            Err((code, message)) => return Ok(ReadAnswer::Refused { code, message }),
        };
        let view = ReaderView { is_pull: matches!(self, Self::Pull { .. }), ..view };
        let mut answer = match self {
            Self::CatchUp { position, limits, .. } => match view.any_page(position, *limits)? {
                Ok(page) => ReadAnswer::Page(page),
                Err((code, message)) => ReadAnswer::Refused { code, message },
            },
            Self::Pull { position, limits, client, .. } => {
                match view.any_page(position, *limits)? {
                    Ok(page) => ReadAnswer::Pulled(view.pull(page, client.as_ref())?),
                    Err((code, message)) => ReadAnswer::Refused { code, message },
                }
            }
            Self::Whole { bytes, .. } => {
                let records = view.whole(*bytes)?;
                ReadAnswer::Whole(Whole { records, looked: Box::default() })
            }
            Self::Query { query, bytes, .. } => view.query(query, *bytes)?,
        };
        let looked = view.looks.finish()?;
        match &mut answer {
            ReadAnswer::Page(page) => *page.looked = looked,
            ReadAnswer::Whole(whole) => *whole.looked = looked,
            ReadAnswer::Pulled(_) | ReadAnswer::Found(_) | ReadAnswer::Refused { .. } => {}
        }
        Ok(answer)
    }
}

/// A collection as one reader sees it.
struct ReaderView<'a> {
    rows: &'a dyn Rows,
    policy: &'a dyn Policy,
    reader: &'a Reader,
    /// The head of the collection; for a reader of scopes their count, checksum and horizon.
    head: Head,
    scopes: Option<Vec<ScopeAt<'a>>>,
    /// It is read by HTTP: a page holds the load of one scope, and nobody follows what comes.
    is_pull: bool,
    looks: LookUps<'a>,
}

impl<'a> ReaderView<'a> {
    fn open(
        rows: &'a dyn Rows,
        policy: &'a dyn Policy,
        reader: &'a Reader,
        of_set: bool,
    ) -> Result<Result<Self, NoScope>, StoreError> {
        let mut head = Head::load(rows, &reader.collection)?;
        let mut scopes = None;
        if let Some(set) = reader.scopes.as_ref().filter(|_| !of_set) {
            match scope::open(rows, &reader.collection, set)? {
                Ok(found) => scopes = Some(found),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        if let Some(scopes) = &scopes {
            scope::sum(scopes, &mut head)?;
        }
        Ok(Ok(Self {
            rows,
            policy,
            reader,
            head,
            scopes,
            is_pull: false,
            looks: LookUps::new(rows),
        }))
    }

    fn any_page(
        &self,
        position: &Position,
        limits: PageLimits,
    ) -> Result<Result<Page, NoScope>, StoreError> {
        match position {
            Position::StartOfSet { cursor, resume, places } => {
                self.first_of_set(cursor.as_ref(), resume.as_ref(), places, limits)
            }
            Position::Set(position) => self.page_of_set(position, limits),
            Position::ShownBy { rights, followed, start } => {
                self.first_by(*rights, *followed, start, limits)
            }
            Position::Start { .. }
            | Position::Now
            | Position::Delta { .. }
            | Position::Snapshot { .. } => Ok(Ok(self.page(position, limits)?)),
        }
    }

    fn page(&self, position: &Position, limits: PageLimits) -> Result<Page, StoreError> {
        let (mut position, fresh) = match position {
            Position::Start { cursor, resume } => {
                (self.start(cursor.as_ref(), resume.as_ref())?, true)
            }
            Position::Now => {
                return Ok(Page {
                    opened: Some(self.opened(Mode::Delta)?.into()),
                    content: Content::Changes(Vec::new()),
                    next: self.done()?,
                    looked: Box::default(),
                });
            }
            Position::Delta { .. }
            | Position::Snapshot { .. }
            | Position::ShownBy { .. }
            | Position::StartOfSet { .. }
            | Position::Set(_) => (position.clone(), false),
        };
        let again = self.floor(&position) < self.head.horizon;
        if again {
            position = Position::Snapshot { snapshot_seq: self.head.seq, after: None };
        }
        let (mode, (content, next)) = match &position {
            Position::Snapshot { snapshot_seq, after } => {
                (Mode::Snapshot, self.snapshot(*snapshot_seq, after.as_ref(), limits)?)
            }
            Position::Delta { floor, after } => (Mode::Delta, self.delta(*floor, *after, limits)?),
            Position::Start { .. }
            | Position::ShownBy { .. }
            | Position::Now
            | Position::StartOfSet { .. }
            | Position::Set(_) => (Mode::Delta, (Content::Changes(Vec::new()), self.done()?)),
        };
        let opened = (fresh || again).then(|| self.opened(mode)).transpose()?;
        let opened = opened.map(Box::new);
        Ok(Page { opened, content, next, looked: Box::default() })
    }

    fn pull(&self, page: Page, client: Option<&ClientId>) -> Result<Pulled, StoreError> {
        let client = client.map(|id| ClientRow::load(self.rows, id)).transpose()?.flatten();
        // a user must not learn of another user's writes
        let own = client.filter(|client| client.user.as_ref() == self.asker().user);
        Ok(Pulled {
            page,
            database: database(self.rows)?,
            epoch: self.epoch()?,
            last_mutation: own.map(|client| client.last_mutation),
        })
    }

    /// The seq above which all tombstones must exist for a run to be complete.
    fn floor(&self, position: &Position) -> Seq {
        match position {
            Position::Delta { floor, .. } => *floor,
            Position::Snapshot { snapshot_seq, .. } => *snapshot_seq,
            Position::Start { .. }
            | Position::ShownBy { .. }
            | Position::Now
            | Position::StartOfSet { .. }
            | Position::Set(_) => self.head.seq,
        }
    }

    fn opened(&self, mode: Mode) -> Result<Opened, StoreError> {
        Ok(Opened {
            mode,
            count: self.head.count,
            head: self.head.seq,
            refused: Vec::new(),
            rights: self.rights()?,
            others: None,
        })
    }

    fn epoch(&self) -> Result<Epoch, StoreError> {
        let (_, epoch) = EpochRow::current(self.rows)?
            .ok_or_else(|| StoreError::damaged("the store has no epoch: begin one first"))?;
        Ok(epoch.id)
    }

    fn done(&self) -> Result<Next, StoreError> {
        self.done_with(self.head.count, self.head.checksum)
    }

    /// The end of a run, with the figures of what was read. Those of records that are withheld are nothing
    /// that the reader may know.
    fn done_with(&self, count: u64, checksum: Checksum) -> Result<Next, StoreError> {
        let cursor = Cursor { epoch: self.epoch()?, seq: self.head.seq };
        Ok(match self.reader.access.is_partial() {
            true => Next::Done { cursor, count: 0, checksum: None },
            false => Next::Done { cursor, count, checksum: Some(checksum) },
        })
    }

    /// Tombstones are shown to every reader: they have no content.
    fn shows(&self, id: &RecordId, record: &RecordRow) -> bool {
        let Reader { collection, access, .. } = self.reader;
        record.document.as_ref().is_none_or(|document| match access {
            Access::All => true,
            Access::Some | Access::Related => {
                self.policy.shows(&self.asker(), collection, id, document)
            }
            // the rights were others when it was asked for
            Access::None => false,
        })
    }

    fn asker(&self) -> Asker<'_> {
        Asker::new(self.reader.user.as_ref(), Some(&self.looks))
    }

    /// Visits the records whose last change is at or above a seq, in the order of the changes.
    fn changed(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(Seq, &RecordId, &RecordRow) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        let collection = &self.reader.collection;
        let to = record::index_of(collection).1;
        self.rows.scan(&record::index_key(collection, from), &to, &mut |key, id| {
            let seq = Seq(record::to_u64(&key[key.len().saturating_sub(8)..])?);
            if seq > self.head.seq {
                return Err(StoreError::damaged("the change index goes beyond the head"));
            }
            let id = record::record_id(&id)?;
            let record = RecordRow::load(self.rows, collection, &id)?
                .ok_or_else(|| StoreError::damaged("the change index names a missing record"))?;
            visit(seq, &id, &record)
        })
    }

    /// Visits the records behind an id, tombstones included, in the order of their ids.
    fn records(
        &self,
        after: Option<&RecordId>,
        visit: &mut dyn FnMut(&RecordId, &RecordRow) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        let collection = &self.reader.collection;
        let (first, to) = record::records_of(collection);
        let from = after.map_or_else(
            || first.clone(),
            |id| {
                let mut key = record::record_key(collection, id);
                key.push(0);
                key
            },
        );
        self.rows.scan(&from, &to, &mut |key, row| {
            visit(&record::record_id(&key[first.len()..])?, &RecordRow::from_row(row)?)
        })
    }
}

/// A record that is withheld from a reader, as a deletion.
pub(crate) fn hidden(seq: Seq) -> ServerChange {
    ServerChange {
        change: Change::delete(),
        seq: Some(seq),
        version: None,
        timestamp: None,
        at: Vec::new(),
        user_id: None,
    }
}

fn sync_record(id: &RecordId, record: &RecordRow, document: &Document) -> SyncRecord {
    SyncRecord {
        id: id.clone(),
        document: document.clone(),
        version: Some(record.last.version),
        updated_at: Some(record.last.at),
        seq: Some(record.last.seq),
        at: record.times(),
    }
}

/// The number of bytes of the fields' times on the wire.
fn bytes_of(at: &FieldTimes) -> usize {
    at.iter().map(|(name, _)| name.len() + 30).sum()
}

/// The approximate number of bytes of a change on the wire.
fn bytes_of_change(id: &RecordId, ServerChange { change, at, .. }: &ServerChange) -> usize {
    let unset: usize = change.delta.unset.iter().map(|name| name.len() + 3).sum();
    id.len() + change.delta.set.size() + unset + bytes_of(at)
}

#[cfg(test)]
mod tests;
