//! The app's commands: to connect, to synchronise, to use a collection or leave it.

use super::edit::Edit;
use super::interface::{Command, SyncId};
use super::machine::Client;
use super::output::Outputs;
use super::stream::Stream;
use crate::protocol::message::Token;
use crate::protocol::name::Collection;
use crate::protocol::time::Now;
use crate::store::Rows;

impl Client {
    /// See [`Replica::command`](crate::client::replica::Replica::command).
    pub(crate) fn command(
        &mut self,
        now: Now,
        command: Command,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.carry_out(edit, command);
            Ok(())
        });
    }

    fn carry_out(&mut self, edit: &mut Edit<'_>, command: Command) {
        match command {
            Command::Connect => {
                self.fallback.want(true);
                self.try_at_once(edit, self.config.enable_auto_sync);
            }
            Command::Disconnect => {
                self.fallback.want(false);
                self.give_everything_up(edit, "the app has disconnected");
            }
            Command::SetToken(token) => self.set_token(edit, token),
            Command::SetOnline(online) => self.set_online(edit, online),
            Command::SyncNow => self.sync_now(edit),
            Command::Subscribe(collection) => {
                self.want(&collection);
                self.streams.used(&collection).subscribe();
            }
            Command::Unsubscribe(collection) => self.leave(edit, &collection),
            Command::UseScope(collection, scope) => self.use_scope(&collection, scope),
            Command::ReleaseScope(collection, scope) => {
                if let Some(stream) = self.streams.get_mut(&collection) {
                    stream.release_scope(&scope);
                }
            }
            Command::KeepScope(collection, scope, kept) => {
                let stream = self.streams.used(&collection);
                stream.keep_scope(scope, kept);
                edit.put_stream(&collection, &stream.row);
                edit.flush = true;
            }
            Command::Release(collection) => {
                if let Some(stream) = self.streams.get_mut(&collection) {
                    stream.release();
                }
            }
        }
    }

    fn set_token(&mut self, edit: &mut Edit<'_>, token: Token) {
        self.config.token = Some(token);
        self.token_due = self.link.is_up();
        self.ask_refused_again(false);
        if core::mem::take(&mut self.token_needed) {
            self.forget_old_token(edit);
            self.try_at_once(edit, true);
        }
    }

    fn set_online(&mut self, edit: &mut Edit<'_>, online: bool) {
        self.fallback.set_online(online);
        if online {
            self.probe_connection(edit);
            self.try_at_once(edit, self.config.enable_auto_sync);
        } else {
            self.give_everything_up(edit, "the app says that there is no network");
        }
    }

    fn sync_now(&mut self, edit: &mut Edit<'_>) {
        self.probe_connection(edit);
        self.ask_refused_again(true);
        if self.link.ready_since().is_some() {
            self.back_up(true);
        } else {
            self.try_at_once(edit, true);
        }
    }

    /// Tells whether a collection is subscribed and not released.
    #[must_use]
    pub(crate) fn holds(&self, collection: &Collection) -> bool {
        self.streams.get(collection).is_some_and(Stream::is_subscribed)
    }

    /// See [`Replica::synced`](crate::client::replica::Replica::synced).
    pub(crate) fn synced(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) -> SyncId {
        self.ratchet(now);
        let id = self.syncs.call(self.outbox.end());
        let _ = self.step(store, out, |client, edit| {
            if client.at_other_database {
                client.fail_syncs(edit);
            }
            Ok(())
        });
        id
    }
}
