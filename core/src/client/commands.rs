//! The app's commands: to connect, to synchronise, to use a collection or leave it.

use super::interface::SyncId;
use super::machine::Client;
use super::output::Outputs;
use crate::protocol::message::Token;
use crate::protocol::name::Collection;
use crate::protocol::time::Now;
use crate::store::Rows;

impl Client {
    /// See [`Replica::connect`](crate::client::replica::Replica::connect).
    pub(crate) fn connect(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.wanted = true;
            client.try_at_once(edit, client.config.enable_auto_sync);
            Ok(())
        });
    }

    /// See [`Replica::disconnect`](crate::client::replica::Replica::disconnect).
    pub(crate) fn disconnect(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.wanted = false;
            client.give_everything_up(edit, "the app has disconnected");
            Ok(())
        });
    }

    /// See [`Replica::set_online`](crate::client::replica::Replica::set_online).
    pub(crate) fn set_online(
        &mut self,
        now: Now,
        online: bool,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.offline = !online;
            if online {
                client.probe_connection(edit);
                client.try_at_once(edit, client.config.enable_auto_sync);
            } else {
                client.give_everything_up(edit, "the app says that there is no network");
            }
            Ok(())
        });
    }

    /// See [`Replica::sync_now`](crate::client::replica::Replica::sync_now).
    pub(crate) fn sync_now(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.probe_connection(edit);
            client.ask_refused_again(true);
            if client.link.ready_since().is_some() {
                client.back_up(true);
            } else {
                client.try_at_once(edit, true);
            }
            Ok(())
        });
    }

    /// See [`Replica::set_token`](crate::client::replica::Replica::set_token).
    pub(crate) fn set_token(
        &mut self,
        now: Now,
        token: Token,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.config.token = Some(token);
            client.token_due = client.link.is_up();
            client.ask_refused_again(false);
            if core::mem::take(&mut client.token_needed) {
                client.forget_old_token(edit);
                client.try_at_once(edit, true);
            }
            Ok(())
        });
    }

    /// See [`Replica::subscribe`](crate::client::replica::Replica::subscribe).
    pub(crate) fn subscribe(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, _| {
            client.want(collection);
            client.streams.used(collection).held = true;
            Ok(())
        });
    }

    /// See [`Replica::unsubscribe`](crate::client::replica::Replica::unsubscribe).
    pub(crate) fn unsubscribe(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.leave(edit, collection);
            Ok(())
        });
    }

    /// See [`Replica::release`](crate::client::replica::Replica::release).
    pub(crate) fn release(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, _| {
            if let Some(stream) = client.streams.get_mut(collection) {
                stream.held = false;
            }
            Ok(())
        });
    }

    /// Whether a collection is subscribed and not released.
    #[must_use]
    pub(crate) fn holds(&self, collection: &Collection) -> bool {
        self.streams.get(collection).is_some_and(|stream| stream.held)
    }

    /// See [`Replica::synced`](crate::client::replica::Replica::synced).
    pub(crate) fn synced(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) -> SyncId {
        self.ratchet(now);
        let id = self.next_sync;
        self.next_sync = SyncId(id.0 + 1);
        self.syncs.push((id, self.outbox.end()));
        let _ = self.step(store, out, |client, edit| {
            if client.at_other_database {
                client.fail_syncs(edit);
            }
            Ok(())
        });
        id
    }
}
