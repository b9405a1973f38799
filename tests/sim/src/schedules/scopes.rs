//! Schedules around sets of scopes.

use std::time::Duration;

use synclayer_core::Collection;

use super::Cast;
use crate::draw::Draw;
use crate::run::Run;
use crate::scoping::{any_scope, popular_scope};
use crate::world::{Place, record};
use crate::writes::AppWrite;

impl Run {
    /// A schedule that happens to a device that holds a collection by scopes, where there is one.
    pub(super) fn schedule_of_scopes(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
        let holds = |device: &usize| !self.world.devices[*device].config.scopes.is_empty();
        let holders: Vec<_> = (0..self.world.devices.len()).filter(holds).collect();
        let Some(hero) = draw.pick(&holders) else { return Ok(()) };
        let names: Vec<_> = self.world.devices[hero].config.scopes.keys().cloned().collect();
        let name = names[draw.below(names.len())].clone();
        let other =
            (hero + 1 + draw.below(self.world.devices.len() - 1)) % self.world.devices.len();
        let cast = Cast { hero, other, place: (name, self.place(draw).1) };
        let which = draw.below(8);
        self.world.count("schedule of scopes");
        self.world.note(|| format!("schedule of scopes {which}: device {hero}, {other} meanwhile"));
        match which {
            0 | 1 => self.load_is_cut(&cast, draw),
            2 => self.records_move_while_away(&cast, draw),
            3 => self.set_changes_at_every_step(&cast, draw),
            4 => self.held_whole_for_a_while(&cast, draw),
            _ => self.load_is_overtaken(&cast, draw),
        }
    }

    /// Another record of the same collection.
    fn near(&self, collection: &Collection, draw: &mut Draw<'_>) -> Place {
        (collection.clone(), self.place(draw).1)
    }

    /// The other one moves some records between scopes, and changes or deletes some.
    fn moves(&mut self, cast: &Cast, n: usize, draw: &mut Draw<'_>) -> Result<(), String> {
        for _ in 0..n {
            let place = match draw.below(2) {
                0 => cast.place.clone(),
                _ => self.near(&cast.place.0, draw),
            };
            let kinds = [AppWrite::Move, AppWrite::Move, AppWrite::Hot, AppWrite::Delete];
            self.write(cast.other, &place, kinds[draw.below(4)])?;
        }
        Ok(())
    }

    fn change_scope(&mut self, cast: &Cast, used: bool, draw: &mut Draw<'_>) {
        self.world.use_scope(cast.hero, &cast.place.0, &any_scope(draw), used);
    }

    /// The load of a scope ends in the middle; before it goes on, records move, tombstones go, the server
    /// starts anew, or the set becomes another.
    fn load_is_cut(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        self.moves(cast, draw.within(2, 6), draw)?;
        self.everybody()?;
        self.change_scope(cast, true, draw);
        if draw.one_in(3) {
            self.backup = Some(self.world.backup());
        }
        self.drive(draw.within(3, 24), |_, _| true)?;
        self.moves(cast, draw.below(3), draw)?;
        self.drive(draw.within(1, 12), |_, _| true)?;
        self.leave(cast);
        self.moves(cast, draw.below(4), draw)?;
        self.others(cast.hero)?;
        match draw.below(8) {
            0 => self.world.crash_server(),
            1 if self.plan.rates.restore > 0 => self.restore_server()?,
            2 | 3 => {
                self.world.pass(1_000);
                self.world.sweep(Duration::ZERO, 100);
            }
            4 => self.crash(cast.hero, draw),
            5 => self.change_scope(cast, false, draw),
            _ => {}
        }
        self.others(cast.hero)?;
        self.come_back(cast);
        self.drive(draw.within(4, 40), |_, _| true)?;
        self.moves(cast, draw.below(3), draw)?;
        self.everybody()
    }

    /// A scope is held in part when its device is away. Then the server begins a new epoch, or what was loaded
    /// leaves the scope.
    fn load_is_overtaken(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let (hero, name, scope) = (cast.hero, cast.place.0.clone(), popular_scope());
        for device in [hero, cast.other] {
            self.world.devices[device].cut_off = false;
            self.world.dial(device);
        }
        self.world.release(hero, &name);
        self.world.use_scope(hero, &name, &scope, false);
        self.world.pass(2_000);
        self.everybody()?;
        let members = draw.within(4, 9);
        // the first write to a record creates it
        for kind in [AppWrite::Hot, AppWrite::Join] {
            self.write_members(cast, members, kind)?;
        }
        self.others(hero)?;
        let early = self.world.backup();
        self.moves(cast, draw.within(1, 4), draw)?;
        self.others(hero)?;
        self.world.use_scope(hero, &name, &scope, true);
        self.drive(200, |world, _| !world.is_loading(hero, &name, &scope))?;
        self.leave(cast);
        match draw.below(6) {
            0 if self.plan.rates.restore > 0 => {
                self.backup = Some(early);
                self.restore_server()?;
            }
            0 | 1 => self.world.crash_server(),
            2 | 3 => self.write_members(cast, 3, AppWrite::Delete)?,
            _ => self.write_members(cast, 5, AppWrite::Move)?,
        }
        self.others(hero)?;
        self.come_back(cast);
        self.drive(draw.within(4, 40), |_, _| true)?;
        self.everybody()
    }

    /// The other one writes to some records that are, or will be, in the popular scope.
    fn write_members(&mut self, cast: &Cast, n: usize, kind: AppWrite) -> Result<(), String> {
        (0..n).try_for_each(|number| {
            let place = (cast.place.0.clone(), record(&format!("k{number}")));
            self.write(cast.other, &place, kind)
        })
    }

    /// Records leave the scopes of one who is away, and come back, whatever he writes to them meanwhile.
    fn records_move_while_away(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        self.moves(cast, draw.within(1, 4), draw)?;
        self.everybody()?;
        self.leave(cast);
        self.edits(cast.hero, &cast.place, draw.below(3), draw)?;
        for _ in 0..draw.within(1, 5) {
            self.moves(cast, draw.within(1, 2), draw)?;
            self.others(cast.hero)?;
        }
        if draw.one_in(3) {
            self.world.pass(1_000);
            self.world.sweep(Duration::from_millis(500), 100);
            self.moves(cast, 1, draw)?;
        }
        if draw.one_in(3) {
            self.write(cast.hero, &cast.place, AppWrite::Move)?;
            self.edits(cast.hero, &cast.place, draw.below(2), draw)?;
        }
        self.others(cast.hero)?;
        self.come_back(cast);
        self.drive(draw.within(4, 40), |_, _| true)?;
        self.edits(cast.hero, &cast.place, draw.below(3), draw)?;
        self.moves(cast, draw.below(2), draw)?;
        self.everybody()
    }

    /// The set of a live subscription becomes another again and again, while records move.
    fn set_changes_at_every_step(
        &mut self,
        cast: &Cast,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        self.everybody()?;
        for _ in 0..draw.within(3, 12) {
            let used = draw.below(2) == 0;
            self.change_scope(cast, used, draw);
            match draw.below(4) {
                0 => self.moves(cast, 1, draw)?,
                1 => self.write(cast.hero, &cast.place, AppWrite::Move)?,
                2 => self.world.pass(1_100),
                _ => {}
            }
            self.drive(draw.within(0, 10), |_, _| true)?;
        }
        self.everybody()
    }

    /// The app uses the whole collection for a while.
    fn held_whole_for_a_while(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let name = cast.place.0.clone();
        self.world.subscribe(cast.hero, &name, true);
        self.drive(draw.within(2, 40), |_, _| true)?;
        if draw.below(2) == 0 {
            self.everybody()?;
        }
        self.moves(cast, draw.below(3), draw)?;
        self.change_scope(cast, true, draw);
        self.world.release(cast.hero, &name);
        for _ in 0..3 {
            self.world.pass(2_000);
            self.drive(draw.within(2, 40), |_, _| true)?;
            self.moves(cast, draw.below(2), draw)?;
        }
        self.everybody()
    }
}
