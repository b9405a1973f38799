//! Additions of the second version: times of fields, clocks that are corrected, servers that lost
//! records or have another database.

use synclayer_core::testing::Checked;
use synclayer_core::{Command, Timestamp, Write};

use super::*;

/// Milliseconds that gina's clock is behind.
const BEHIND_MS: i64 = 3 * 24 * 60 * 60 * 1000;

impl Town {
    /// Joined writes, whose fields have times of their own at the server too.
    pub(super) fn dora_writes_offline(&mut self) {
        for n in 20..30 {
            let id = format!("n{n:03}");
            let (first, second) = (self.tick(), self.later());
            self.dora.update("notes", &id, r#"{"early":1,"text":"first"}"#, &["pinned"], first);
            self.dora.update("notes", &id, r#"{"late":2,"text":"second"}"#, &[], second);
        }
        self.dora.actions.clear();
    }

    /// Joined writes that wait.
    pub(super) fn joins(&mut self, ann: &mut Device<FjallClientStore>) {
        for n in [61, 62, 63, 65, 69] {
            let id = if n == 63 { "new-63".into() } else { format!("t{n:03}") };
            ann.update("todos", &id, &format!(r#"{{"later":{n}}}"#), &[], self.later());
        }
    }

    /// Gina writes in runs that do not know the server's time, and in one that learns it. What she
    /// sends then goes unanswered, and she writes on.
    pub(super) fn wrong_clock(&mut self) {
        for run in 0..2 {
            let mut gina = self.open_behind();
            gina.save("notes", &format!("slow-{run}"), r#"{"early":1,"text":"a"}"#, self.behind());
            self.later();
            let update = r#"{"late":2,"text":"b"}"#;
            gina.update("notes", &format!("slow-{run}"), update, &[], self.behind());
            gina.update("notes", "slow-0", &format!(r#"{{"run-{run}":true}}"#), &[], self.behind());
        }
        let mut gina = self.open_behind();
        gina.save("notes", "slow-2", r#"{"text":"before the hello"}"#, self.behind());
        self.later();
        let now = self.behind();
        gina.replica.command(now, Command::Connect, &mut gina.actions);
        gina.come_up(ConnId(21), &mut self.host, now);
        for _ in 0..2 {
            carry_by(&mut gina, self.behind(), &mut self.host, self.now);
            if gina.replica.status().knows_server_time {
                break;
            }
            self.host.settle(self.now);
        }
        assert!(gina.sent.iter().any(|frame| frame.contains("slow-2")), "{:?}", gina.sent);
        gina.replica.command(self.behind(), Command::Disconnect, &mut gina.actions);
        drop(gina);
        // the server has the first of them
        self.host.drop_line(ConnId(21), self.now);
        self.host.settle(self.now);
        self.keep();
        self.later();
        let mut gina = self.open_behind();
        gina.save("notes", "slow-3", r#"{"early":1}"#, self.behind());
        self.later();
        gina.update("notes", "slow-3", r#"{"late":2}"#, &[], self.behind());
        gina.replica.check().unwrap();
    }

    /// A server of its own goes back to an older state, and what it has lost is undecided, or on its
    /// way to it.
    pub(super) fn lost_records(&mut self, user: &str, decide: Option<Write>) {
        let mut host = Host::new(ServerLimits::default(), RingLimits::default(), self.now);
        let mut device = self.open(user);
        self.come(&mut device, &mut host);
        let mut old = None;
        for n in 0..40 {
            device.save("todos", &format!("l{n:03}"), &format!(r#"{{"n":{n}}}"#), self.tick());
            if n < 4 {
                device.save("boards", &format!("l{n:03}"), &format!(r#"{{"n":{n}}}"#), self.tick());
            }
            exchange(&mut device, &mut host, self.now);
            if n == 2 {
                old = Some(host.rows.clone());
            }
        }
        self.go(&mut device, &mut host);
        host.restart(old.unwrap(), self.now).unwrap();
        device.update("todos", "l030", r#"{"offline":true}"#, &[], self.later());
        device.save("todos", "new", r#"{"offline":true}"#, self.tick());
        self.come(&mut device, &mut host);
        let missing = device.replica.status().collections[&name("todos")].missing;
        assert!(missing.is_some_and(|missing| missing > 30), "{missing:?}");
        if let Some(decide) = decide {
            device.replica.write(self.tick(), decide, &mut device.actions).unwrap();
        }
        self.go(&mut device, &mut host);
    }

    /// A server of its own has another database at the next visit, which is undecided, or decided
    /// and not carried out.
    pub(super) fn other_database(&mut self, user: &str, decide: Option<Write>) {
        let mut host = Host::new(ServerLimits::default(), RingLimits::default(), self.now);
        let mut device = self.open(user);
        self.come(&mut device, &mut host);
        for n in 0..20 {
            device.save("todos", &format!("f{n:03}"), &format!(r#"{{"n":{n}}}"#), self.tick());
        }
        exchange(&mut device, &mut host, self.now);
        self.go(&mut device, &mut host);
        host.restart(MemoryRows::default(), self.now).unwrap();
        device.update("todos", "f003", r#"{"offline":true}"#, &[], self.later());
        device.save("todos", "new", r#"{"offline":true}"#, self.tick());
        self.come(&mut device, &mut host);
        assert!(device.replica.status().other_database.is_some());
        if let Some(decide) = decide {
            device.replica.write(self.tick(), decide, &mut device.actions).unwrap();
        }
        self.go(&mut device, &mut host);
    }

    /// A server of its own forgets a client that has not heard whether its last writes were applied.
    pub(super) fn forgotten_writes(&mut self) {
        let mut host = Host::new(ServerLimits::default(), RingLimits::default(), self.now);
        let mut ivan = self.open("ivan");
        self.come(&mut ivan, &mut host);
        for n in 0..5 {
            ivan.save("todos", &format!("i{n:03}"), &format!(r#"{{"n":{n}}}"#), self.tick());
        }
        exchange(&mut ivan, &mut host, self.now);
        for n in 5..8 {
            ivan.save("todos", &format!("i{n:03}"), &format!(r#"{{"n":{n}}}"#), self.tick());
        }
        carry(&mut ivan, &mut host, self.now);
        self.go(&mut ivan, &mut host);
        self.now.mono.0 += 3_600_000;
        self.now.wall.0 += 3_600_000;
        host.sweep(Duration::from_secs(60), 1000, self.now);
        ivan.save("todos", "never-sent", r#"{"n":8}"#, self.tick());
        ivan.replica.command(self.now, Command::Connect, &mut ivan.actions);
        ivan.come_up(ConnId(1), &mut host, self.now);
        for _ in 0..2 {
            carry(&mut ivan, &mut host, self.now);
            host.settle(self.now);
        }
        self.go(&mut ivan, &mut host);
        assert!(ivan.replica.status().pending_writes > 0);
    }

    /// A minute later.
    fn later(&mut self) -> Now {
        self.now.mono.0 += 60_000;
        self.now.wall.0 += 60_000;
        self.now
    }

    /// The time by gina's clock.
    fn behind(&self) -> Now {
        Now { wall: Timestamp(self.now.wall.0 - BEHIND_MS), ..self.now }
    }

    fn open_behind(&mut self) -> Device<FjallClientStore> {
        self.next_seed += 1;
        Device::open(self.client_store(), config_of("gina"), self.next_seed, self.behind())
    }

    fn come(&self, device: &mut Device<FjallClientStore>, host: &mut Host) {
        device.replica.command(self.now, Command::Connect, &mut device.actions);
        device.come_up(ConnId(1), host, self.now);
        exchange(device, host, self.now);
    }

    fn go(&self, device: &mut Device<FjallClientStore>, host: &mut Host) {
        device.replica.command(self.now, Command::Disconnect, &mut device.actions);
        device.actions.clear();
        device.replica.check().unwrap();
        host.drop_line(ConnId(1), self.now);
        host.settle(self.now);
    }
}

fn exchange(device: &mut Device<FjallClientStore>, host: &mut Host, now: Now) {
    for _ in 0..12 {
        carry(device, host, now);
        host.settle(now);
    }
}
