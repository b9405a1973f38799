//! Refusals: a replica that refuses what a peer says is as it was before, but for the end of the
//! connection or of the exchange by HTTP.
//!
//! Every handler decides before it writes, so that whatever is refused in the middle of its way leaves
//! nothing behind. Here one copy of a replica gets any frame or answer; if it refuses that, another
//! copy gets one of which nothing can count, and both must be the same then: their digests, which
//! leave out the counters, and their stores.
//!
//! | file | story |
//! | --- | --- |
//! | `answers` | answers by HTTP, of servers of both levels |
//! | `any` | messages of any kind, with any of their parts left out or wrong |

mod answers;
mod any;

use std::collections::BTreeMap;

use fastrand::Rng;
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ClientConfig, ConnId, Disconnect, Event, EventKind, HttpTicket, Input,
    MemoryClientStore, MemoryRows, NetAction, Now, Replica,
};

use self::any::any_message;
use crate::draw::{Draw, HEADER, STEP};
use crate::fuzz::each_state;
use crate::plain_server::Ways;
use crate::plain_world::{Faults, PlainWorld};
use crate::run::Run;
use crate::world::todos;

/// A replica in some state, and what it waits for.
pub struct State<'a> {
    /// The replica.
    pub replica: &'a Replica<MemoryClientStore>,
    /// Its time.
    pub now: Now,
    /// The connection that it counts on.
    pub conn: Option<ConnId>,
    /// The requests by HTTP that are out.
    pub calls: Vec<OpenCall<'a>>,
}

/// A request that is out.
pub struct OpenCall<'a> {
    /// The request.
    pub ticket: &'a HttpTicket,
    /// The status and body with which the server answers it, if that is known.
    pub answer: Option<(u16, Vec<u8>)>,
}

/// The number of refusals that were checked, by what was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refusals(BTreeMap<&'static str, u64>);

impl Refusals {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds those of another check.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    /// The number of refusals of `what`.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

/// Refusals that leave something behind on purpose: the replica remembers that its server speaks level 2.
const TEACHES: &str = "the server speaks level 2 after all";
/// A message that can't be read.
const UNREADABLE: &str = r#"{"type":"batch"}"#;

/// Hands so many frames, and so many answers to each open request, to copies of a replica.
///
/// # Errors
/// Says what has left something behind although it was refused.
pub fn check(state: &State<'_>, draw: &mut Rng, count: usize) -> Result<Refusals, String> {
    let mut refusals = Refusals::default();
    for _ in 0..count {
        if let Some(conn) = state.conn {
            match draw.u8(..3) {
                0 => check_batch(state, conn, &any_messages(draw), &mut refusals)?,
                _ => check_frame(state, conn, &any_frame(draw), &mut refusals)?,
            }
        }
        for call in &state.calls {
            answers::check(state, call, draw, &mut refusals)?;
        }
    }
    Ok(refusals)
}

fn check_frame(
    state: &State<'_>,
    conn: ConnId,
    frame: &str,
    refusals: &mut Refusals,
) -> Result<(), String> {
    let refuses = state.after(Input::Frame { conn, frame: frame.as_bytes() });
    let Some(why) = refuses.refusal().filter(|why| *why != TEACHES) else { return Ok(()) };
    let why = Disconnect::Lost(why.into());
    let loses = state.after(Input::Disconnected { conn, why });
    refusals.count("frames");
    refuses.is_as(&loses).map_err(|what| format!("a refused frame has changed {what}: {frame}"))
}

/// The messages of one frame count one after the other, up to the first that is refused, or ends the
/// connection in another way.
fn check_batch(
    state: &State<'_>,
    conn: ConnId,
    messages: &[String],
    refusals: &mut Refusals,
) -> Result<(), String> {
    let after = |messages: &[String]| {
        let frame = batch(messages);
        state.after(Input::Frame { conn, frame: frame.as_bytes() })
    };
    let whole = after(messages);
    if !whole.closes() {
        return Ok(());
    }
    let broken = |what: &str, why: &str| format!("{why} has changed {what}: {}", batch(messages));
    if whole.refusal() == Some(answers::ACKS_APART) {
        refusals.count("whole batches");
        let unreadable = after(&[UNREADABLE.into()]);
        return whole.is_as(&unreadable).map_err(|what| broken(what, "what is refused as a whole"));
    }
    let Some(last) = (1..=messages.len()).find(|count| after(&messages[..*count]).closes()) else {
        return Err(format!("no message of them ends the connection: {}", batch(messages)));
    };
    let ends = after(&messages[..last]);
    whole.is_as(&ends).map_err(|what| broken(what, "what stands behind the end"))?;
    refusals.count("ends in a batch");
    if ends.refusal().is_none_or(|why| why == TEACHES) {
        return Ok(());
    }
    let mut others = messages[..last].to_vec();
    others[last - 1] = UNREADABLE.into();
    refusals.count("batches");
    ends.is_as(&after(&others)).map_err(|what| broken(what, "a refused message of a batch"))
}

fn batch(messages: &[String]) -> String {
    format!(r#"{{"type":"batch","messages":[{}]}}"#, messages.join(","))
}

impl State<'_> {
    /// The state after an input.
    fn after(&self, input: Input<'_>) -> After {
        let (mut replica, mut actions) = (self.replica.clone(), Vec::new());
        replica.handle(self.now, input, &mut actions);
        After { replica, actions }
    }
}

/// A copy of a replica after an input.
struct After {
    replica: Replica<MemoryClientStore>,
    actions: Vec<Action>,
}

impl After {
    /// The reason for which the connection was given up.
    fn refusal(&self) -> Option<&str> {
        self.actions.iter().find_map(|action| {
            let Action::Event(Event { kind: EventKind::Error { message, .. }, .. }) = action else {
                return None;
            };
            message.strip_prefix("the connection is given up: ")
        })
    }

    /// Returns `true` if the connection was closed, and not because the store has failed.
    fn closes(&self) -> bool {
        let is_close = |action: &Action| matches!(action, Action::Net(NetAction::Close { .. }));
        self.actions.iter().any(is_close) && !self.halts()
    }

    fn halts(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Halted(_)))
    }

    /// Checks that another copy is the same, and says what differs.
    fn is_as(&self, other: &Self) -> Result<(), &'static str> {
        if self.replica.digest() != other.replica.digest() {
            return Err("the machine");
        }
        if self.rows() == other.rows() { Ok(()) } else { Err("the store") }
    }

    /// Returns `true` if another copy holds the same, whatever has become of connections and exchanges.
    fn holds_as(&self, other: &Self) -> bool {
        self.replica.held_digest() == other.replica.held_digest() && self.rows() == other.rows()
    }

    fn rows(&self) -> &MemoryRows {
        self.replica.store().memory_rows()
    }
}

/// Checks the states that a script of the fuzz target `client` comes by, with so many frames and
/// answers in each.
///
/// # Errors
/// As [`check`].
pub fn check_script(bytes: &[u8], count: usize) -> Result<Refusals, String> {
    let (mut draw, mut refusals) = (Rng::with_seed(bytes.len() as u64), Refusals::default());
    each_state(bytes, &mut |state| {
        refusals.add(&check(&state, &mut draw, count)?);
        Ok(())
    })?;
    Ok(refusals)
}

/// Checks the states that a run of the simulator comes by, with so many frames and answers in each.
///
/// # Errors
/// As [`check`], and when the run breaks a guarantee.
pub fn check_run(bytes: &[u8], count: usize) -> Result<Refusals, String> {
    let (mut run, mut draw) = (Run::new(bytes), Rng::with_seed(1));
    let mut refusals = Refusals::default();
    for (index, step) in bytes.get(HEADER..).unwrap_or_default().chunks(STEP).enumerate() {
        run.step(index, &mut Draw::new(step))?;
        for (index, device) in run.world.devices.iter().enumerate() {
            let state = State {
                replica: &device.replica,
                now: device.now(run.world.now),
                conn: run.connection(index),
                calls: run.world.open_calls_of(index),
            };
            refusals.add(&check(&state, &mut draw, count)?);
        }
    }
    Ok(refusals)
}

/// Checks the states that two replicas at a server of level 1 come by, with so many frames and answers
/// in each.
///
/// # Errors
/// As [`check`].
pub fn check_plain(seed: u64, count: usize) -> Result<Refusals, String> {
    let (mut draw, mut refusals) = (Rng::with_seed(seed), Refusals::default());
    let client = |websocket| {
        let mut config = ClientConfig::default();
        (config.collections, config.websocket, config.http) = (vec![todos()], websocket, true);
        config
    };
    let (ways, faults) = (Ways::of_bits(draw.u64(..)), Faults { cut: 6, lose: 5 });
    let mut world = PlainWorld::new(seed, ways, faults, vec![client(true), client(false)]);
    for _ in 0..40 {
        let (i, record) = (draw.usize(..2), ["a", "b"][draw.usize(..2)]);
        match draw.u8(..4) {
            0 => world.save(i, record, r#"{"x":1}"#),
            1 => world.update(i, record, r#"{"x":2}"#),
            2 => world.delete(i, record),
            _ => {}
        }
        world.run(draw.u64(..2_000));
        for i in 0..world.devices.len() {
            refusals.add(&check(&world.state(i), &mut draw, count)?);
        }
    }
    Ok(refusals)
}

/// A message, perhaps cut off.
fn any_frame(draw: &mut Rng) -> String {
    let mut message = any_message(draw, ANY);
    if draw.u8(..12) == 0 {
        message.truncate(draw.usize(..message.len()));
    }
    message
}

fn any_messages(draw: &mut Rng) -> Vec<String> {
    (0..draw.usize(1..6)).map(|_| any_message(draw, ANY)).collect()
}

/// The kinds of messages that a server sends, the usual ones more often.
const ANY: &str = "pong subscribed unsubscribed sync sync synced synced insert update delete ack ack error \
                   error error authenticated news";
