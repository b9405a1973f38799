//! The app of the replica, its user, and another client of the server.

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{Command, ConnId, Delta, Identity, RecordId, SessionInput, Token, Write};

use super::super::script::Script;
use super::{ClientBench, collection};

impl ClientBench {
    pub(super) fn app_writes(&mut self, script: &mut Script<'_>) {
        let (collection, id) = (collection(usize::from(script.chance(8))), record(script.below(3)));
        let document = script.document();
        match script.below(4) {
            0 => drop(self.with(|replica, now, actions| {
                replica.write(now, Write::Save(collection, id, document), actions)
            })),
            1 | 2 => {
                let delta = Delta::new(document, vec!["a".into()]);
                drop(self.with(|replica, now, actions| {
                    replica.write(now, Write::Update(collection, id, delta), actions)
                }));
            }
            _ => drop(self.with(|replica, now, actions| {
                replica.write(now, Write::Delete(collection, id), actions)
            })),
        }
    }

    pub(super) fn app_asks(&mut self, script: &mut Script<'_>) {
        let collection = collection(script.below(3));
        let choice = script.below(12);
        let rejected = self.replica.rejected().unwrap_or_default();
        let write = rejected.first().map_or(synclayer_core::WriteId(0), |r| r.write);
        let watch = self.watches.pop();
        let kept = self.with(|replica, now, actions| {
            match choice {
                0 => replica.command(now, Command::Subscribe(collection.clone()), actions),
                1 => replica.command(now, Command::Unsubscribe(collection.clone()), actions),
                2 => replica.command(now, Command::Connect, actions),
                3 => replica.command(now, Command::Disconnect, actions),
                4 => replica.command(now, Command::SetToken(Token::from("t")), actions),
                5 => drop(replica.synced(now, actions)),
                6 => drop(replica.write(now, Write::RetryRejected(write), actions)),
                7 => drop(replica.write(now, Write::DiscardRejected(write), actions)),
                8 => drop(replica.write(now, Write::RejectStalled(write), actions)),
                9 => return replica.watch(&collection, actions).ok(),
                10 => replica.command(now, Command::SetOnline(now.mono.0 % 2 == 0), actions),
                _ => replica.command(now, Command::SyncNow, actions),
            }
            watch.inspect(|watch| drop(replica.take(*watch)))
        });
        self.watches.extend(kept);
    }

    /// Another user signs in, or the same one on another way to the server.
    pub(super) fn change_user(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        if !self.config.user.is_empty() {
            let user = ["u", "v"][usize::from(choice & 1)];
            (self.config.user, self.config.token) = (user.into(), Some(Token::from(user)));
        }
        self.config.http = choice & 4 != 0;
        self.config.websocket = choice & 8 == 0;
        self.reopen(self.replica.store().clone().reopen());
    }

    /// Another client of the same server, of level 1.
    pub(super) fn somebody_else_writes(&mut self, script: &mut Script<'_>) {
        let other = ConnId(u64::MAX);
        if !self.host.down.contains_key(&other) || self.host.has_hung_up(other) {
            self.host.accept(other, Identity::Open, self.now);
        }
        let (id, document) = (record(script.below(3)), script.document());
        let kind = ["insert", "update", "delete"][script.below(3)];
        let frame = format!(
            r#"{{"type":"{kind}","collection":"todos","recordId":"{id}","data":{document}}}"#
        );
        if let Some(plain) = &mut self.plain {
            plain.open(other);
            let sent = plain.hear(other, frame.as_bytes(), self.now.wall);
            self.tell_all(sent);
        } else {
            self.host.tell(other, SessionInput::Frame(frame.as_bytes()), self.now);
            self.host.settle(self.now);
        }
        if let Some(down) = self.host.down.get_mut(&other) {
            down.clear();
        }
    }
}

fn record(index: usize) -> RecordId {
    RecordId::new(["a", "b", "c"][index % 3]).expect("an id")
}
