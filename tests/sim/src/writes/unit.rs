//! Transactions of apps in a run.

use synclayer_core::WriteId;

use crate::draw::Draw;
use crate::guarantees::Write;
use crate::invariants::Invariant;
use crate::run::Run;
use crate::world::{Place, document};

impl Run {
    /// The app of a device makes two or three writes with one fate, and now and then expects that a
    /// record is as it is seen.
    pub(super) fn write_unit(
        &mut self,
        draw: &mut Draw<'_>,
        device: usize,
        first: Place,
    ) -> Result<(), String> {
        let mut places = vec![first];
        for _ in 0..draw.within(1, 2) {
            let place = self.place(draw);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let expected = draw.one_in(3).then(|| self.place(draw));
        let keeps_won = draw.one_in(4);
        if self.world.devices[device].has_halted() {
            return Ok(());
        }
        let (mut members, mut writes) = (Vec::new(), Vec::new());
        for (n, place) in (self.ledger.next_token()..).zip(&places) {
            let inserts = self.world.view(device, &place.0, &place.1).is_none();
            // what others contest is a field that nobody keeps account of
            let fields = match inserts {
                true => format!(r#"{{"hot":[0,{n}],"flag":{n},"t{n}":{n}}}"#),
                false => format!(r#"{{"flag":{n},"t{n}":{n}}}"#),
            };
            members.push((place.clone(), document(&fields)));
            let saw = if inserts { 0 } else { self.hot_seen(device, place) };
            let write = Write::new(device, place.clone());
            writes.push((n, Write { inserts, saw, unique: true, ..write }));
        }
        if expected.is_some() {
            self.world.count("transaction with an expectation");
        }
        let before = u64::from(expected.is_some());
        let made = match self.world.transact(device, members, expected, keeps_won) {
            Ok(made) => made,
            Err(error) if self.world.devices[device].has_halted() => {
                self.world.note(|| format!("not saved: {error}"));
                return Ok(());
            }
            Err(error) => {
                let refused = Err(format!("a sound transaction is refused: {error}"));
                return self.ledger.keep(Invariant::Contract, refused);
            }
        };
        self.world.await_commit(device, made.commit);
        let first = made.transaction.map_or(0, |first| first.0);
        let count = writes.len();
        // what goes singly may be refused by half, and what a strategy gives up is not refused
        let followed = self.ledger.is_atomic() && !keeps_won;
        let fate = followed.then(|| self.world.follow(device, made));
        for (index, (n, write)) in writes.into_iter().enumerate() {
            let place = write.place.clone();
            let position = Some(WriteId(first + before + index as u64));
            let fate = fate.filter(|_| index == 0);
            self.ledger.enter(Write { position, commit: made.commit, fate, ..write });
            self.ledger.times.made(n, &self.world, device, &place);
        }
        self.ledger.enter_unit(count, keeps_won);
        Ok(())
    }
}
