//! Scopes, and the pages of their loads.

use alloc::vec::Vec;

use super::super::super::document::write_json_string;
use super::super::super::message::Level;
use super::super::super::scopes::{AskedScope, LoadPlace, ScopeName, ScopePage, ScopePlace};
use super::{Object, list, message, object};

/// A page of the load of a scope.
pub(super) fn load(page: &ScopePage, level: Level, out: &mut Vec<u8>) {
    message(out, "sync", |m| {
        m.text("collection", &page.collection);
        m.object("data", |data| {
            list(data.key("records"), &page.records, |out, record| {
                object(out, |fields| fields.sync_record(record, level));
            });
            if !page.left.is_empty() {
                list(data.key("left"), &page.left, |out, left| {
                    object(out, |fields| {
                        fields.text("id", &left.id);
                        fields.number("seq", left.seq.0);
                    });
                });
            }
        });
        m.object("metadata", |metadata| {
            metadata.number("set", page.set);
            metadata.object("scope", |scope| scope.scope_name(&page.scope));
            metadata.optional("after", page.after.map(|after| after.0));
            metadata.optional("upTo", page.up_to.map(|up_to| up_to.0));
            metadata.number("snapshotSeq", page.snapshot_seq.0);
        });
    });
}

impl Object<'_> {
    pub(super) fn set(&mut self, set: Option<u64>, scopes: &[AskedScope]) {
        self.optional("set", set);
        if !scopes.is_empty() {
            list(self.key("scopes"), scopes, |out, scope| {
                object(out, |fields| fields.asked_scope(scope));
            });
        }
    }

    fn asked_scope(&mut self, AskedScope { name, place }: &AskedScope) {
        self.scope_name(name);
        match place {
            ScopePlace::Loaded => {}
            ScopePlace::Loading(LoadPlace { epoch, snapshot_seq, after }) => {
                self.object("resume", |resume| {
                    resume.text("epoch", epoch);
                    resume.number("snapshotSeq", snapshot_seq.0);
                    resume.number("after", after.0);
                });
            }
            ScopePlace::Waiting => self.flag("new", true),
        }
    }

    pub(super) fn scope_names(&mut self, name: &str, scopes: &[ScopeName]) {
        if !scopes.is_empty() {
            list(self.key(name), scopes, |out, scope| {
                object(out, |fields| fields.scope_name(scope));
            });
        }
    }

    fn scope_name(&mut self, ScopeName { parts }: &ScopeName) {
        list(self.key("by"), parts, |out, (part, _)| write_json_string(out, part));
        list(self.key("is"), parts, |out, (_, value)| out.extend_from_slice(value.as_bytes()));
    }
}
