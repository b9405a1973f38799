//! Directed schedules: orders of events that chance alone seldom finds. Each is drawn with its own
//! details, and is played in the middle of whatever else goes on.

mod scopes;

use std::time::Duration;

use crate::draw::Draw;
use crate::run::Run;
use crate::world::{CommitFate, Move, Place, World};
use crate::writes::AppWrite;
use synclayer_core::testing::SimulatedDisk;

/// The parts in a schedule.
struct Cast {
    /// The device that it happens to.
    hero: usize,
    /// The device that writes meanwhile.
    other: usize,
    place: Place,
}

/// Kinds of writes that a schedule chooses from.
const EDITS: [AppWrite; 8] = [
    AppWrite::Hot,
    AppWrite::Unique,
    AppWrite::Both,
    AppWrite::Append,
    AppWrite::Delete,
    AppWrite::Flag,
    AppWrite::Hot,
    AppWrite::Save,
];

impl Run {
    pub(crate) fn schedule(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
        if self.sums() || self.world.devices.len() < 2 {
            return Ok(());
        }
        if self.plan.scoping.is_some() && draw.below(2) == 1 {
            return self.schedule_of_scopes(draw);
        }
        let which = draw.below(20);
        let hero = self.device(draw);
        let other =
            (hero + 1 + draw.below(self.world.devices.len() - 1)) % self.world.devices.len();
        let cast = Cast { hero, other, place: self.place(draw) };
        self.world.count("schedule");
        self.world.note(|| format!("schedule {which}: device {hero}, {other} meanwhile"));
        match which {
            0 => self.catch_up_is_cut(&cast, draw),
            1 => self.ack_is_lost(&cast, draw),
            2 | 3 => self.change_beside_a_write_in_flight(&cast, draw),
            4 => self.deleted_and_inserted_again(&cast, draw),
            5 => self.snapshot_is_interrupted(&cast, draw),
            6 => self.old_connection_writes(&cast, draw),
            7 => self.ring_overruns(&cast, draw),
            8 => self.horizon_passes(&cast, draw),
            9 => self.server_is_restored(&cast, draw),
            10 => self.replica_is_copied(&cast, draw),
            11 => self.crash_after_acks(&cast, draw),
            12 => self.writes_are_refused(&cast, draw),
            13 => self.outcome_is_unknown(&cast, draw),
            14 => self.verdicts_of_two_collections(&cast, draw),
            15 | 16 => self.swept_record_is_written(&cast, draw),
            17 | 18 => self.writer_is_forgotten(&cast, draw),
            _ => self.answers_wait_beside_the_stream(&cast, draw),
        }
    }

    /// Everybody but one is brought up to date.
    fn others(&mut self, hero: usize) -> Result<(), String> {
        self.drive(400, |world, one| world.device_of(one) != Some(hero))
    }

    fn everybody(&mut self) -> Result<(), String> {
        self.drive(400, |_, _| true)
    }

    fn leave(&mut self, cast: &Cast) {
        self.world.devices[cast.hero].cut_off = true;
        self.cut_device(cast.hero);
    }

    fn come_back(&mut self, cast: &Cast) {
        self.world.devices[cast.hero].cut_off = false;
        self.world.devices[cast.hero].disk_paused = false;
        self.world.dial(cast.hero);
    }

    fn edits(
        &mut self,
        device: usize,
        place: &Place,
        n: usize,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        for _ in 0..n {
            self.write(device, place, EDITS[draw.below(EDITS.len())])?;
        }
        Ok(())
    }

    /// One replica is away while another writes to one record again and again; then a cut in the
    /// middle of the catch-up, and more writes before it comes back.
    fn catch_up_is_cut(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        self.edits(cast.other, &cast.place, 1, draw)?;
        self.everybody()?;
        self.leave(cast);
        let (before, between) = (draw.within(1, 3), draw.below(3));
        if draw.below(2) == 1 {
            self.edits(cast.hero, &cast.place, 1, draw)?;
        }
        for _ in 0..before {
            self.edits(cast.other, &cast.place, 1, draw)?;
            self.others(cast.hero)?;
        }
        let near = self.place(draw);
        self.edits(cast.other, &near, draw.below(3), draw)?;
        self.others(cast.hero)?;
        self.come_back(cast);
        self.drive(draw.within(4, 24), |_, _| true)?;
        self.leave(cast);
        if draw.one_in(4) {
            self.world.crash_server();
        }
        self.edits(cast.other, &cast.place, between, draw)?;
        self.edits(cast.hero, &cast.place, draw.below(2), draw)?;
        self.others(cast.hero)?;
        self.come_back(cast);
        self.everybody()
    }

    /// A write is taken and its ack lost; somebody else changes the record; the writer comes back
    /// and writes on.
    fn ack_is_lost(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        self.everybody()?;
        self.edits(cast.hero, &cast.place, draw.within(1, 3), draw)?;
        self.write_reaches_server(cast)?;
        self.leave(cast);
        self.edits(cast.other, &cast.place, draw.below(3), draw)?;
        if draw.one_in(3) {
            self.edits(cast.hero, &cast.place, 1, draw)?;
        }
        self.others(cast.hero)?;
        self.come_back(cast);
        self.drive(draw.within(2, 20), |_, _| true)?;
        // what the old connection had on its way down turns up on the new one
        for _ in 0..draw.below(4) {
            self.world.deliver_late(cast.hero);
            self.look()?;
        }
        self.edits(cast.hero, &cast.place, 1, draw)?;
        self.everybody()
    }

    /// Commits the hero's writes, and lets nothing come back.
    fn write_reaches_server(&mut self, cast: &Cast) -> Result<(), String> {
        let hero = cast.hero;
        self.drive(60, |world, one| {
            // an answer by HTTP may open the way for the write, but for that to the write itself
            let opens = matches!(one, Move::Reply(call) if !world.is_push(call));
            let up = matches!(one, Move::Up(_) | Move::Ask(_) | Move::Sync(_) | Move::Connect(_));
            matches!(one, Move::Commit | Move::Answer | Move::Read)
                || world.device_of(one) == Some(hero) && (up || opens)
        })
    }

    /// A write is in flight while a remote change of its record arrives and waits beside it; the
    /// app writes on, so that the next write is sent with what the record's base then is.
    fn change_beside_a_write_in_flight(
        &mut self,
        cast: &Cast,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        let hero = cast.hero;
        self.edits(cast.other, &cast.place, 1, draw)?;
        self.everybody()?;
        // the remote change is committed first, and the hero's frames wait on their way up
        let first = EDITS[draw.below(4)];
        let remote = EDITS[draw.below(EDITS.len())];
        self.write(cast.hero, &cast.place, first)?;
        self.drive(40, |world, one| {
            world.device_of(one) == Some(hero) && matches!(one, Move::Sync(_))
        })?;
        self.write(cast.other, &cast.place, remote)?;
        self.drive(200, |world, one| {
            world.device_of(one) != Some(hero) || !matches!(one, Move::Up(_))
        })?;
        self.edits(cast.hero, &cast.place, draw.within(1, 2), draw)?;
        self.drive(draw.within(0, 30), |world, one| {
            world.device_of(one) != Some(hero) || !matches!(one, Move::Up(_))
        })?;
        if draw.one_in(4) {
            self.edits(cast.other, &cast.place, 1, draw)?;
        }
        match draw.below(5) {
            1 => self.cut_device(hero),
            2 => self.crash(hero, draw),
            _ => {}
        }
        self.everybody()
    }

    /// A record is deleted and inserted again around a cut, while someone has seen what was
    /// there, or edits it.
    fn deleted_and_inserted_again(
        &mut self,
        cast: &Cast,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        let place = (cast.place.0.clone(), crate::world::record("x"));
        self.edits(cast.other, &place, draw.within(1, 2), draw)?;
        self.everybody()?;
        if draw.below(2) == 0 {
            self.leave(cast);
        }
        let edit = draw.below(3);
        self.edits(cast.hero, &place, edit, draw)?;
        self.write(cast.other, &place, AppWrite::Delete)?;
        if draw.below(2) == 1 {
            self.others(cast.hero)?;
            self.come_back(cast);
            self.drive(draw.within(2, 14), |_, _| true)?;
            self.leave(cast);
        }
        self.write(cast.other, &place, AppWrite::Both)?;
        self.edits(cast.other, &place, draw.below(2), draw)?;
        self.others(cast.hero)?;
        self.edits(cast.hero, &place, draw.below(2), draw)?;
        self.come_back(cast);
        self.everybody()
    }

    /// A snapshot is cut between two pages, while records in front of and behind its place come
    /// and go.
    fn snapshot_is_interrupted(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        for _ in 0..draw.within(1, 4) {
            let place = self.place(draw);
            self.edits(cast.other, &place, 1, draw)?;
        }
        self.everybody()?;
        let hero = if self.world.devices.len() < self.plan.devices + 2 {
            let config = self.world.devices[cast.hero].config.clone();
            let store = synclayer_core::MemoryClientStore::when_told();
            self.world.count("replica joined");
            self.world.add_device(config, store)
        } else {
            cast.hero
        };
        let cast = &Cast { hero, other: cast.other, place: cast.place.clone() };
        for _ in 0..draw.within(1, 2) {
            self.drive(draw.within(4, 30), |world, one| {
                world.device_of(one) == Some(hero) || world.device_of(one).is_none()
            })?;
            self.edits(hero, &cast.place, draw.below(2), draw)?;
            self.leave(cast);
            for _ in 0..draw.within(1, 4) {
                let place = self.place(draw);
                self.edits(cast.other, &place, 1, draw)?;
            }
            self.others(hero)?;
            if draw.one_in(3) {
                self.world.pass(1_000);
                self.world.sweep(Duration::ZERO, 50);
                self.others(hero)?;
            }
            self.come_back(cast);
        }
        self.everybody()
    }

    /// A connection that its client has given up delivers its writes after the next one has said
    /// hello, or beside it.
    fn old_connection_writes(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let hero = cast.hero;
        self.everybody()?;
        self.edits(hero, &cast.place, draw.within(1, 3), draw)?;
        self.drive(40, |world, one| {
            world.device_of(one) == Some(hero) && matches!(one, Move::Sync(_))
        })?;
        let Some(old) = self.connection(hero) else { return Ok(()) };
        self.world.cut(old);
        self.world.dial(hero);
        // the old connection's frames wait while the new one gets as far as this
        self.drive(draw.within(2, 40), move |world, one| {
            !matches!(one, Move::Up(conn) | Move::Pump(conn) if conn == old)
                && (world.device_of(one) == Some(hero) || world.device_of(one).is_none())
        })?;
        if draw.below(2) == 1 {
            self.edits(cast.other, &cast.place, 1, draw)?;
            self.others(hero)?;
        }
        // now they come, and wait in one batch with whatever else there is
        self.drive(20, move |_, one| matches!(one, Move::Up(conn) if conn == old))?;
        self.everybody()
    }

    /// A live stream is not read while others write more than the ring holds, and verdicts wait.
    fn ring_overruns(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let hero = cast.hero;
        self.everybody()?;
        self.edits(hero, &cast.place, draw.below(3), draw)?;
        let quiet = move |world: &World, one: Move| {
            world.device_of(one) != Some(hero) || !matches!(one, Move::Pump(_) | Move::Down(_))
        };
        for n in 0..draw.within(3, 30) {
            let place = if n % 3 == 0 { cast.place.clone() } else { self.place(draw) };
            self.edits(cast.other, &place, 1, draw)?;
            if n % 4 == 0 {
                self.edits(hero, &cast.place, draw.below(2), draw)?;
            }
            self.drive(60, quiet)?;
        }
        if draw.one_in(3) {
            self.drive(draw.within(1, 12), |_, _| true)?;
            self.cut_device(hero);
        }
        self.everybody()
    }

    /// Tombstones are swept while someone who has not seen them is away, or in the middle of
    /// catching up.
    fn horizon_passes(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let place = (cast.place.0.clone(), crate::world::record("xy"));
        for _ in 0..draw.within(1, 3) {
            let near = self.place(draw);
            self.edits(cast.other, &near, 1, draw)?;
        }
        self.edits(cast.other, &place, 1, draw)?;
        self.everybody()?;
        self.leave(cast);
        self.edits(cast.hero, &place, draw.below(2), draw)?;
        self.write(cast.other, &place, AppWrite::Delete)?;
        self.write(cast.other, &cast.place, AppWrite::Flag)?;
        for _ in 0..draw.within(1, 4) {
            let near = self.place(draw);
            self.edits(cast.other, &near, 1, draw)?;
        }
        // of this one the last page would tell
        self.write(
            cast.other,
            &(cast.place.0.clone(), crate::world::record("x")),
            AppWrite::Delete,
        )?;
        self.others(cast.hero)?;
        let early = draw.below(2) == 0;
        if early {
            self.world.pass(2_000);
            self.world.sweep(Duration::from_millis(500), 100);
            self.others(cast.hero)?;
        }
        self.come_back(cast);
        self.drive(draw.within(4, 20), |_, _| true)?;
        if !early {
            self.write(cast.other, &cast.place, AppWrite::Flag)?;
            self.world.pass(100);
            self.world.sweep(Duration::ZERO, 100);
        }
        self.everybody()
    }

    /// A record is deleted and its tombstone swept, while someone away writes to it, who comes back
    /// and sends that before having caught up.
    fn swept_record_is_written(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let place = (cast.place.0.clone(), crate::world::record("xz"));
        self.write(cast.other, &place, AppWrite::Save)?;
        self.everybody()?;
        self.leave(cast);
        if draw.below(2) == 1 {
            self.write(cast.hero, &place, AppWrite::Delete)?;
        }
        self.edits(cast.hero, &place, draw.within(1, 2), draw)?;
        self.write(cast.other, &place, AppWrite::Delete)?;
        self.others(cast.hero)?;
        self.world.pass(100);
        self.world.sweep(Duration::ZERO, 100);
        self.others(cast.hero)?;
        self.come_back(cast);
        self.drive(60, |_, one| one != Move::Read)?;
        self.world.pass(3_000);
        self.drive(60, |_, one| one != Move::Read)?;
        self.everybody()
    }

    /// An insert is taken and its ack lost. Its writer stays away until the server has forgotten it,
    /// and the record too, which somebody else has deleted.
    fn writer_is_forgotten(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let place = (cast.place.0.clone(), crate::world::record("xw"));
        self.everybody()?;
        if self.world.view(cast.hero, &place.0, &place.1).is_some() {
            self.write(cast.other, &place, AppWrite::Delete)?;
            self.everybody()?;
        }
        self.write(cast.hero, &place, AppWrite::Save)?;
        self.edits(cast.hero, &place, draw.below(2), draw)?;
        self.write_reaches_server(cast)?;
        self.leave(cast);
        if draw.one_in(3) {
            let near = (cast.place.0.clone(), crate::world::record("xv"));
            self.write(cast.hero, &near, AppWrite::Save)?;
        }
        self.others(cast.hero)?;
        let was_taken = self.world.view(cast.other, &place.0, &place.1).is_some();
        self.write(cast.other, &place, AppWrite::Delete)?;
        self.others(cast.hero)?;
        if was_taken && self.world.view(cast.other, &place.0, &place.1).is_none() {
            self.world.count("insert deleted before its ack");
        }
        self.world.pass(2_000);
        // the others are heard of again, and are not forgotten
        self.write(cast.other, &cast.place, AppWrite::Hot)?;
        self.others(cast.hero)?;
        self.world.sweep(Duration::from_millis(1_000), 100);
        self.others(cast.hero)?;
        if draw.one_in(3) {
            self.crash(cast.hero, draw);
        }
        self.come_back(cast);
        if draw.below(2) == 1 {
            self.drive(draw.within(4, 30), |_, _| true)?;
            self.cut_device(cast.hero);
            self.world.dial(cast.hero);
        }
        self.everybody()
    }

    /// A backup of the server comes back, or what is left of a damaged store; what has seqs of its own by now has them twice.
    fn server_is_restored(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        if self.plan.rates.restore == 0 {
            return Ok(());
        }
        self.everybody()?;
        self.backup = Some(self.world.backup());
        self.edits(cast.hero, &cast.place, draw.within(1, 3), draw)?;
        if draw.below(2) == 0 {
            self.everybody()?;
        }
        self.edits(cast.other, &cast.place, draw.below(2), draw)?;
        self.drive(draw.below(60), |_, _| true)?;
        if draw.below(2) == 0 {
            self.leave(cast);
        }
        self.edits(cast.hero, &cast.place, draw.below(2), draw)?;
        if draw.one_in(3) {
            self.repair_server(draw)?;
        } else {
            self.restore_server()?;
        }
        self.edits(cast.other, &cast.place, draw.within(0, 4), draw)?;
        for _ in 0..draw.below(3) {
            let place = self.place(draw);
            self.edits(cast.other, &place, 1, draw)?;
        }
        self.world.dial(cast.other);
        self.others(cast.hero)?;
        self.come_back(cast);
        self.everybody()
    }

    /// A device's directory is copied with writes under way, and both go on.
    fn replica_is_copied(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        if self.plan.rates.restore == 0 {
            return Ok(());
        }
        self.edits(cast.hero, &cast.place, draw.below(3), draw)?;
        self.drive(draw.below(10), |_, _| true)?;
        self.copy_device(cast.hero);
        self.edits(cast.hero, &cast.place, draw.below(3), draw)?;
        self.drive(draw.below(60), |_, _| true)?;
        self.restore_device(draw.below(2) == 0);
        self.edits(cast.hero, &cast.place, draw.below(2), draw)?;
        self.everybody()
    }

    /// Acks arrive, and the device crashes before it has made their traces durable.
    fn crash_after_acks(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let hero = cast.hero;
        self.everybody()?;
        self.edits(hero, &cast.place, draw.within(1, 4), draw)?;
        self.drive(40, |world, one| {
            world.device_of(one) == Some(hero) && matches!(one, Move::Sync(_))
        })?;
        self.drive(
            draw.within(2, 60),
            |_, one| !matches!(one, Move::Sync(device) if device == hero),
        )?;
        self.edits(hero, &cast.place, draw.below(2), draw)?;
        self.crash(hero, draw);
        self.edits(cast.other, &cast.place, draw.below(2), draw)?;
        self.everybody()
    }

    /// Several writes are under way, and the server refuses one of them.
    fn writes_are_refused(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        self.everybody()?;
        let near = self.place(draw);
        self.edits(cast.hero, &cast.place, draw.below(2), draw)?;
        self.write(cast.hero, &cast.place, AppWrite::Forbidden)?;
        self.edits(cast.hero, &cast.place, draw.below(3), draw)?;
        self.edits(cast.hero, &near, draw.below(2), draw)?;
        if draw.below(2) == 1 {
            self.edits(cast.other, &cast.place, 1, draw)?;
        }
        match draw.below(4) {
            1 => {
                self.drive(draw.within(2, 30), |_, _| true)?;
                self.cut_device(cast.hero);
            }
            2 => {
                self.drive(draw.within(2, 30), |_, _| true)?;
                self.crash(cast.hero, draw);
            }
            _ => {}
        }
        self.everybody()
    }

    /// The database's answer is lost: the write may have happened or not.
    fn outcome_is_unknown(&mut self, cast: &Cast, draw: &mut Draw<'_>) -> Result<(), String> {
        let hero = cast.hero;
        self.everybody()?;
        self.edits(hero, &cast.place, draw.within(1, 3), draw)?;
        self.drive(60, |world, one| {
            world.device_of(one) == Some(hero) && matches!(one, Move::Sync(_) | Move::Up(_))
        })?;
        if self.world.transactions() > 0 {
            let fates = [CommitFate::DoneUnsaid, CommitFate::LostUnsaid, CommitFate::Failed];
            self.world.commit(usize::MAX, fates[draw.below(3)]);
        }
        self.drive(draw.below(20), |_, _| true)?;
        if self.world.is_poisoned() {
            match draw.below(2) {
                0 => self.world.crash_server(),
                _ => self.world.reopen_store(),
            }
        }
        self.edits(cast.other, &cast.place, draw.below(2), draw)?;
        self.world.dial(cast.other);
        self.others(hero)?;
        self.world.dial(hero);
        self.everybody()
    }

    /// Writes to two collections, one of which is not live: their verdicts overtake each other, and
    /// one of them is an error.
    fn verdicts_of_two_collections(
        &mut self,
        cast: &Cast,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        let hero = cast.hero;
        self.everybody()?;
        let places = crate::plan::collections().into_iter().map(|c| (c, cast.place.1.clone()));
        let places: Vec<Place> = places.collect();
        // what others wrote lies in front of the verdicts of one collection's writes
        for _ in 0..draw.within(1, 4) {
            self.edits(cast.other, &places[0], 1, draw)?;
        }
        self.drive(80, |world, one| {
            world.device_of(one) != Some(hero) || !matches!(one, Move::Pump(_) | Move::Down(_))
        })?;
        for n in 0..draw.within(2, 4) {
            let kind = if draw.one_in(3) { AppWrite::Forbidden } else { EDITS[draw.below(8)] };
            self.write(hero, &places[n % 2], kind)?;
        }
        let room = draw.within(1, 400);
        self.drive(80, |world, one| {
            world.device_of(one) != Some(hero) || !matches!(one, Move::Pump(_))
        })?;
        if let Some(conn) = self.connection(hero) {
            self.world.pump(conn, room);
        }
        if draw.one_in(3) {
            self.drive(draw.within(1, 10), |_, _| true)?;
            self.cut_device(hero);
        }
        self.everybody()
    }

    /// A write without effect, or one in conflict, is judged while the stream is behind, and what
    /// others did after it passes.
    fn answers_wait_beside_the_stream(
        &mut self,
        cast: &Cast,
        draw: &mut Draw<'_>,
    ) -> Result<(), String> {
        let hero = cast.hero;
        let place = (cast.place.0.clone(), crate::world::record("x"));
        self.edits(cast.other, &place, 1, draw)?;
        self.everybody()?;
        // both do the same, so that the second changes nothing
        let same = [AppWrite::Delete, AppWrite::Flag, AppWrite::Delete][draw.below(3)];
        self.write(cast.other, &place, same)?;
        self.drive(80, |world, one| world.device_of(one) != Some(hero))?;
        self.edits(hero, &cast.place, draw.below(2), draw)?;
        self.write(hero, &place, same)?;
        if draw.below(2) == 0 {
            self.edits(hero, &place, 1, draw)?;
        }
        self.write_reaches_server(cast)?;
        self.edits(cast.other, &place, draw.within(1, 2), draw)?;
        self.others(hero)?;
        for _ in 0..draw.below(6) {
            if let Some(conn) = self.connection(hero) {
                self.world.pump(conn, draw.within(1, 300));
            }
            self.drive(draw.below(4), |_, _| true)?;
        }
        self.everybody()
    }
}
