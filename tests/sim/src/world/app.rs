//! The calls of a device's app.

use synclayer_core::{
    Collection, Command, Delta, Document, FateId, Misuse, Mono, RecordId, Token, TransactionDraft,
    Update, Write, Written,
};

use crate::invariants::Invariant;

use super::{Place, World, document};

impl World {
    pub(super) fn watch_all(&mut self, device: usize) {
        for collection in self.devices[device].collections() {
            let mut actions = Vec::new();
            let this = &mut self.devices[device];
            if let Ok(watch) = this.replica.watch(&collection, &mut actions) {
                this.watches.insert(collection, (watch, false));
            }
            self.carry_out(device, actions);
        }
        self.watch_queries(device);
    }

    /// The parts of a watched collection that the app of a device has not seen.
    pub fn take(&mut self, device: usize, collection: &Collection) -> Option<Update> {
        let this = &mut self.devices[device];
        let (watch, told) = this.watches.get_mut(collection)?;
        *told = false;
        this.replica.take(*watch)
    }

    /// The app of a device watches nothing any more.
    pub fn unwatch_all(&mut self, device: usize) {
        let this = &mut self.devices[device];
        for (watch, _) in std::mem::take(&mut this.watches).into_values() {
            this.replica.unwatch(watch);
        }
        self.unwatch_queries(device);
    }

    /// Collections of which a device's app was told that there is something to take.
    #[must_use]
    pub fn to_take(&self, device: usize) -> Vec<Collection> {
        let watches = self.devices[device].watches.iter();
        watches.filter(|(_, (_, told))| *told).map(|(collection, _)| collection.clone()).collect()
    }

    // --- what apps do ---

    /// The app of a device saves a whole record.
    ///
    /// # Errors
    /// As the replica says.
    pub fn save(
        &mut self,
        device: usize,
        collection: &Collection,
        id: &RecordId,
        json: &str,
    ) -> Result<Written, Misuse> {
        self.count("save");
        self.note(|| format!("device {device} saves {collection}/{id} {json}"));
        let document = document(json);
        self.with(device, |replica, now, actions| {
            replica.write(now, Write::Save(collection.clone(), id.clone(), document), actions)
        })
    }

    /// The app of a device sets and removes some fields.
    ///
    /// # Errors
    /// As the replica says.
    pub fn update(
        &mut self,
        device: usize,
        collection: &Collection,
        id: &RecordId,
        json: &str,
        unset: &[&str],
    ) -> Result<Written, Misuse> {
        self.count("update");
        self.note(|| format!("device {device} updates {collection}/{id} {json} without {unset:?}"));
        let unset = unset.iter().map(|name| (*name).into()).collect();
        let delta = Delta::new(document(json), unset);
        self.with(device, |replica, now, actions| {
            replica.write(now, Write::Update(collection.clone(), id.clone(), delta), actions)
        })
    }

    /// The app of a device makes of a record what `change` makes of what it is.
    ///
    /// # Errors
    /// As the replica says.
    pub fn modify(
        &mut self,
        device: usize,
        collection: &Collection,
        id: &RecordId,
        change: impl FnOnce(Option<&Document>) -> Option<Document> + Send + 'static,
    ) -> Result<Written, Misuse> {
        self.count("modify");
        let record = self.devices[device].replica.get(collection, id);
        if record.is_ok_and(|record| record.is_some_and(|record| record.pending)) {
            self.count("modify on pending writes");
        }
        self.note(|| format!("device {device} modifies {collection}/{id}"));
        self.with(device, |replica, now, actions| {
            replica.write(
                now,
                Write::Modify(
                    collection.clone(),
                    id.clone(),
                    Box::new(move |seen| Ok(change(seen))),
                ),
                actions,
            )
        })
    }

    /// The app of a device makes several writes with one fate: of each record these fields are set, or
    /// the record is made of them. Another record is to stay as it is.
    ///
    /// # Errors
    /// As the replica says.
    pub fn transact(
        &mut self,
        device: usize,
        members: Vec<(Place, Document)>,
        expected: Option<Place>,
        keeps_won: bool,
    ) -> Result<Written, Misuse> {
        self.count("transaction");
        self.note(|| format!("device {device} makes {members:?}, expecting {expected:?}"));
        let body = move |draft: &mut TransactionDraft<'_>| {
            if keeps_won {
                draft.keep_what_won();
            }
            if let Some((collection, id)) = &expected {
                draft.expect_unchanged(collection, id)?;
            }
            members.iter().try_for_each(|((collection, id), fields)| {
                match draft.get(collection, id)? {
                    Some(_) => {
                        let delta = Delta::new(fields.clone(), Vec::new());
                        draft.update(collection, id, &delta)
                    }
                    None => draft.save(collection, id, fields.clone()),
                }
            })
        };
        self.with(device, |replica, now, actions| {
            replica.write(now, Write::Transaction(Box::new(body)), actions)
        })
    }

    /// The app of a device removes a record.
    ///
    /// # Errors
    /// As the replica says.
    pub fn delete(
        &mut self,
        device: usize,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Written, Misuse> {
        self.count("delete");
        self.note(|| format!("device {device} deletes {collection}/{id}"));
        self.with(device, |replica, now, actions| {
            replica.write(now, Write::Delete(collection.clone(), id.clone()), actions)
        })
    }

    /// The app of a device waits for what becomes of a write that it made just now.
    pub fn follow(&mut self, device: usize, written: Written) -> FateId {
        self.with(device, |replica, _, actions| replica.follow(written, actions))
    }

    /// The app of a device ends a subscription, or begins it again.
    pub fn subscribe(&mut self, device: usize, collection: &Collection, wanted: bool) {
        self.note(|| format!("device {device} wants {collection}: {wanted}"));
        let status = self.devices[device].replica.status().collections;
        let was_whole = status.get(collection).is_some_and(|of| of.scopes.is_none());
        if !(wanted && was_whole) {
            self.vouches_no_more(device, collection);
        }
        self.with(device, |replica, now, actions| {
            if wanted {
                replica.command(now, Command::Subscribe(collection.clone()), actions);
            } else {
                replica.command(now, Command::Unsubscribe(collection.clone()), actions);
            }
        });
    }

    /// The app of a device says that now is the time to connect.
    pub fn dial(&mut self, device: usize) {
        self.end_rests(device);
        self.with(device, |replica, now, actions| replica.command(now, Command::Connect, actions));
    }

    /// The app of a device wants to be in step now.
    pub fn sync_now(&mut self, device: usize) {
        self.count("in step at once");
        self.note(|| format!("device {device} is to be in step now"));
        self.end_rests(device);
        self.with(device, |replica, now, actions| replica.command(now, Command::SyncNow, actions));
    }

    /// The app of a device offers what the server lacks, or takes what it has.
    pub fn decide(&mut self, device: usize, offers: bool) {
        self.end_rests(device);
        self.devices[device].database = None;
        self.devices[device].decided = true;
        // a replica that begins anew gives up what it has asked
        self.devices[device].asked = None;
        self.with(device, |replica, now, actions| {
            let made = match offers {
                true => replica.write(now, Write::Offer, actions),
                false => replica.write(now, Write::Adopt, actions),
            };
            // a store that fails halts the replica, which shows by itself
            let _ = made;
        });
        let client = self.devices[device].replica.status().client_id;
        self.clients.insert(client, device);
    }

    /// The app of a device says whether there is a network.
    pub fn set_online(&mut self, device: usize, online: bool) {
        self.count("network by the app's word");
        self.note(|| format!("device {device} has a network: {online}"));
        self.end_rests(device);
        self.devices[device].offline = !online;
        if !online {
            self.devices[device].asked = None;
        }
        self.with(device, |replica, now, actions| {
            replica.command(now, Command::SetOnline(online), actions)
        });
    }

    /// A device turns to the server: not before the time that the server has asked for.
    pub(super) fn look_at_rest(&mut self, device: usize, rest: Option<Mono>) {
        let this = &mut self.devices[device];
        if this.hurries {
            return;
        }
        let rest = this.rests_until.take().max(rest);
        if rest.is_some_and(|until| self.now.mono < until) {
            self.fail(
                Invariant::Contract,
                format!("device {device} does not leave the server alone as it asked"),
            );
        } else if rest.is_some() {
            self.count("Retry-After obeyed");
        }
    }

    /// The app wants something at once, whatever the server has said.
    pub(super) fn end_rests(&mut self, device: usize) {
        let this = &mut self.devices[device];
        (this.rests_until, this.sockets_rest_until) = (None, None);
        this.hurries = true;
    }

    /// The app of a device gives a token.
    pub fn set_token(&mut self, device: usize, token: &str) {
        self.count("fresh token");
        self.note(|| format!("device {device} has a fresh token"));
        self.end_rests(device);
        self.devices[device].config.token = Some(Token::from(token));
        // what it had asked with the old one may be given up
        self.devices[device].asked = None;
        let token = Token::from(token);
        self.with(device, |replica, now, actions| {
            replica.command(now, Command::SetToken(token), actions)
        });
    }

    /// The state of a record that a device's app sees.
    ///
    /// # Panics
    /// When the store can't be read.
    #[must_use]
    pub fn view(&self, device: usize, collection: &Collection, id: &RecordId) -> Option<Document> {
        let record = self.devices[device].replica.get(collection, id).expect("the store is sound");
        record.map(|record| record.document)
    }
}
