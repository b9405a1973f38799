//! The sizes of documents and collections, which no write may exceed.

use alloc::format;
use alloc::string::String;

use super::subject::Subject;
use super::write::Writer;
use crate::protocol::document::Document;

impl Writer<'_> {
    /// The reason why there may be no further record in a collection.
    pub(super) fn too_many(&self, subject: &Subject) -> Option<String> {
        let (limits, collection) = (self.context.limits, &subject.collection);
        let most = limits.collections;
        if subject.begins.as_ref().is_some_and(|totals| totals.collections >= most) {
            return Some(format!(
                "the server has {most} collections, and may have no more: {collection} can't be one, \
                 use one that is there"
            ));
        }
        let most = limits.collection_records;
        (subject.head.count >= most).then(|| {
            format!("{collection} has {most} records, and no collection may have more: delete some")
        })
    }

    /// The reason why a record may not grow to this size.
    pub(super) fn too_full(&self, subject: &Subject, size: u64) -> Option<String> {
        let (most, bytes) = (self.context.limits.collection_bytes, subject.head.bytes);
        let growth = size.saturating_sub(subject.size);
        (growth > 0 && bytes.saturating_add(growth) > most).then(|| {
            let collection = &subject.collection;
            format!(
                "{collection} has {bytes} of {most} bytes, {growth} more don't fit: delete some"
            )
        })
    }

    pub(super) fn too_large(&self, subject: &Subject, document: &Document) -> Option<String> {
        let limits = self.context.limits;
        if document.size() > limits.document_bytes {
            let max = limits.document_bytes;
            return Some(format!("the record would have {} bytes of {max}", document.size()));
        }
        if document.len() > limits.fields {
            let fields = document.len();
            return Some(format!("the record would have {fields} fields of {}", limits.fields));
        }
        subject.too_many_scopes(document)
    }
}
