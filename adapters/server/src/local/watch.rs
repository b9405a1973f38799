//! Watches of the server's own program.

use std::fmt;

use synclayer_core::rules::{Content, Next, Page, PageChange, PageLimits, Position};
use synclayer_core::{
    Access, Collection, Cursor, Document, ReadAnswer, ReadRequest, RecordId, UserId,
};
use tokio::sync::watch;

use super::{Local, LocalError, Sight, mixed_up};
use crate::ending::wait_for_end;

/// The changes of a collection since the last that a watch has told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalChanges {
    /// The changes in their order: each record once, as it is by now.
    pub changes: Vec<LocalChange>,
    /// `true` if the server no longer knows what was deleted since the last change that was told. Then
    /// every record comes anew, perhaps in several parts, and those that do not come are gone.
    pub anew: bool,
    /// The place behind these changes, for [`Local::watch_from`]; `None` where more come before it.
    pub cursor: Option<Cursor>,
}

/// A change of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalChange {
    /// The record.
    pub id: RecordId,
    /// The document now; `None` if it was deleted.
    pub document: Option<Document>,
    /// The number of the record's changes so far, where it is known.
    pub version: Option<u64>,
    /// The user who made the last change, where one did.
    pub user: Option<UserId>,
}

impl Local {
    /// Watches a collection: tells what was committed to it from now on, by whomever.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn watch(&self, collection: &str) -> Result<LocalWatch, LocalError> {
        self.watch_at(collection, Position::Now).await
    }

    /// Watches a collection from a place that was told earlier, perhaps before the server was started;
    /// `None` begins with every record that there is.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn watch_from(
        &self,
        collection: &str,
        cursor: Option<Cursor>,
    ) -> Result<LocalWatch, LocalError> {
        self.watch_at(collection, Position::Start { cursor, resume: None }).await
    }

    async fn watch_at(
        &self,
        collection: &str,
        position: Position,
    ) -> Result<LocalWatch, LocalError> {
        let collection = Collection::new(collection)?;
        // before the first read, so that no change falls between
        let moved = self.shared()?.feed.watch(&collection);
        let sight = self.sight(&collection)?;
        self.reader(&collection, sight)?;
        // which records have changed does not say which of them may be read since
        let begins_anew = sight.is_partial() && position != Position::Now;
        let position = if begins_anew { START } else { position };
        let mut watch = LocalWatch { local: self.clone(), collection, moved, sight, position };
        if watch.position == Position::Now {
            watch.page().await?;
        }
        Ok(watch)
    }
}

/// The beginning of everything that there is.
const START: Position = Position::Start { cursor: None, resume: None };

/// A watch of a collection by the server's own program. One that is slow misses no change, but is told
/// several of a record as one.
///
/// One [as a user](Local::as_user) goes by the user's rights of the moment. Where they change, it begins
/// anew; where none are left, it says so, and begins anew once there are some. One of a part of the records
/// has no cursors, and rules that look at other records can't be watched.
pub struct LocalWatch {
    local: Local,
    collection: Collection,
    moved: watch::Receiver<()>,
    /// The part of the collection that was seen up to the position.
    sight: Sight,
    /// The place at which the next page begins.
    position: Position,
}

impl LocalWatch {
    /// Waits for the next changes. One that is dropped before it is through loses none.
    ///
    /// # Errors
    /// When the store fails, or the user may read nothing any more; the next call tries again.
    /// [`LocalError::Ended`] when the server has ended.
    pub async fn next(&mut self) -> Result<LocalChanges, LocalError> {
        loop {
            self.moved.mark_unchanged();
            let told = self.page().await?;
            if !told.changes.is_empty() || told.anew {
                return Ok(told);
            }
            if !matches!(self.position, Position::Start { .. }) {
                continue;
            }
            tokio::select! {
                _ = self.moved.changed() => {}
                () = wait_for_end(&mut self.local.ending) => return Err(LocalError::Ended),
            }
        }
    }

    /// Reads the next page, and notes the place behind it.
    async fn page(&mut self) -> Result<LocalChanges, LocalError> {
        let page = loop {
            let sight = self.local.sight(&self.collection)?;
            if sight != self.sight {
                (self.sight, self.position) = (sight, START);
            }
            let page = self.read().await?;
            // what was read is shown by the rights of now
            if self.local.sight(&self.collection)? == sight {
                break page;
            }
        };
        let anew = matches!(page.content, Content::Snapshot { .. });
        let changes = match page.content {
            Content::Changes(changes) => changes.into_iter().map(LocalChange::from).collect(),
            // only who reads a set of scopes has several of them
            Content::Loads(_) => Vec::new(),
            Content::Snapshot { records, .. } | Content::Load { records, .. } => records
                .into_iter()
                .map(|record| LocalChange {
                    id: record.id,
                    document: Some(record.document),
                    version: record.version,
                    user: None,
                })
                .collect(),
        };
        let (next, cursor) = match page.next {
            Next::More(position) => (position, None),
            Next::Done { cursor, .. } => {
                let told = (!self.sight.is_partial()).then(|| cursor.clone());
                (Position::Start { cursor: Some(cursor), resume: None }, told)
            }
        };
        self.position = next;
        Ok(LocalChanges { changes, anew, cursor })
    }

    async fn read(&self) -> Result<Page, LocalError> {
        let reader = self.local.reader(&self.collection, self.sight)?;
        if self.sight.access == Access::Related {
            return Err(LocalError::Refused("rules that look at other records can't be watched"));
        }
        let (position, limits) = (self.position.clone(), PageLimits::default());
        let request = ReadRequest::CatchUp { reader, position, limits };
        match self.local.read(request).await? {
            ReadAnswer::Page(page) => Ok(page),
            ReadAnswer::Pulled(_)
            | ReadAnswer::Whole(_)
            | ReadAnswer::Found(_)
            | ReadAnswer::Refused { .. } => Err(mixed_up()),
        }
    }
}

impl fmt::Debug for LocalWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalWatch").field(&self.collection).finish()
    }
}

impl From<PageChange> for LocalChange {
    fn from(PageChange { record_id, change: news, .. }: PageChange) -> Self {
        let document = news.change.apply(None);
        Self { id: record_id, document, version: news.version, user: news.user_id }
    }
}
