//! Refused frames: a replica that refuses what a peer says is as it was before, but for the end of the
//! connection.
//!
//! Every handler decides before it writes, so that a frame which is refused in the middle of its way
//! leaves nothing behind. Here a copy of a replica gets any frame; if it refuses that, another copy
//! loses its connection with the same words, and both must be the same then: their digests, which
//! leave out the counters, and their stores.

use fastrand::Rng;
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ConnId, Disconnect, Event, EventKind, Input, MemoryClientStore, Now, Replica,
};

use crate::draw::{Draw, HEADER, STEP};
use crate::fuzz::each_state;
use crate::run::Run;

/// A replica in some state, and its connection.
pub type State<'a> = (&'a Replica<MemoryClientStore>, Now, ConnId);

/// Refusals that leave something behind on purpose: the replica remembers that its server speaks level 2.
const TEACHES: &str = "the server speaks level 2 after all";

/// Hands frames to copies of a replica. Returns the number of those that it refuses.
///
/// # Errors
/// Says which refused frame has left something behind.
pub fn check(state: State<'_>, frames: &[String]) -> Result<u64, String> {
    let mut refused = 0;
    for frame in frames {
        refused += u64::from(check_frame(state, frame)?);
    }
    Ok(refused)
}

fn check_frame((replica, now, conn): State<'_>, frame: &str) -> Result<bool, String> {
    let (mut refuses, mut out) = (replica.clone(), Vec::new());
    refuses.handle(now, Input::Frame { conn, frame: frame.as_bytes() }, &mut out);
    let Some(why) = out.iter().find_map(refusal).filter(|why| *why != TEACHES) else {
        return Ok(false);
    };
    let (mut loses, why) = (replica.clone(), Disconnect::Lost(why.into()));
    loses.handle(now, Input::Disconnected { conn, why }, &mut Vec::new());
    let rows = |replica: &Replica<MemoryClientStore>| replica.store().memory_rows().clone();
    if refuses.digest() != loses.digest() {
        return Err(format!("a refused frame has changed the machine: {frame}"));
    }
    if rows(&refuses) != rows(&loses) {
        return Err(format!("a refused frame has changed the store: {frame}"));
    }
    Ok(true)
}

fn refusal(action: &Action) -> Option<&str> {
    let Action::Event(Event { kind: EventKind::Error { message, .. }, .. }) = action else {
        return None;
    };
    message.strip_prefix("the connection is given up: ")
}

/// Checks the states that a script of the fuzz target `client` comes by, with so many frames in each.
/// Returns the number of refused frames.
///
/// # Errors
/// As [`check`].
pub fn check_script(bytes: &[u8], frames: usize) -> Result<u64, String> {
    let (mut draw, mut refused) = (Rng::with_seed(bytes.len() as u64), 0);
    each_state(bytes, &mut |state| {
        refused += check(state, &any_frames(&mut draw, frames))?;
        Ok(())
    })?;
    Ok(refused)
}

/// Checks the states that a run of the simulator comes by, with so many frames in each. Returns the
/// number of refused frames.
///
/// # Errors
/// As [`check`], and when the run breaks a guarantee.
pub fn check_run(bytes: &[u8], frames: usize) -> Result<u64, String> {
    let (mut run, mut draw, mut refused) = (Run::new(bytes), Rng::with_seed(1), 0);
    for (index, step) in bytes.get(HEADER..).unwrap_or_default().chunks(STEP).enumerate() {
        run.step(index, &mut Draw::new(step))?;
        for (index, device) in run.world.devices.iter().enumerate() {
            let Some(conn) = run.connection(index) else { continue };
            let state = (&device.replica, device.now(run.world.now), conn);
            refused += check(state, &any_frames(&mut draw, frames))?;
        }
    }
    Ok(refused)
}

fn any_frames(draw: &mut Rng, count: usize) -> Vec<String> {
    (0..count).map(|_| any_frame(draw)).collect()
}

/// A message of any kind, with any of its parts left out or wrong. None stands behind others in a batch:
/// those would count, as in frames of their own.
fn any_frame(draw: &mut Rng) -> String {
    let mut message = any_message(draw);
    match draw.u8(..12) {
        0 => format!(r#"{{"type":"batch","messages":[{message}]}}"#),
        1 => {
            message.truncate(draw.usize(..message.len()));
            message
        }
        _ => message,
    }
}

fn any_message(draw: &mut Rng) -> String {
    let kind = one_of(
        draw,
        "pong subscribed unsubscribed sync sync synced synced insert update delete ack ack error \
         error error authenticated news",
    );
    let mut parts = Parts::default();
    parts.add(draw, r#""timestamp":"2026-01-01T00:00:00Z""#);
    parts.add_text(draw, "collection", "todos notes boards x");
    parts.add_text(draw, "recordId", "a b c r0 r1");
    match kind {
        "sync" => {
            let (n, record) = (draw.u64(..9), one_of(draw, "a b r0"));
            parts.add(
                draw,
                &format!(
                    r#""data":{{"records":[{{"id":"{record}","data":{{"n":{n}}},"version":1,"updatedAt":"2026-01-01T00:00:00Z","seq":{n}}}]}}"#
                ),
            );
        }
        "insert" | "update" | "ack" => parts.add(draw, r#""data":{"n":7}"#),
        "error" => {
            parts.add(draw, r#""error":"no""#);
            let codes = "AUTH_FAILED AUTH_EXPIRED UNAUTHORIZED INVALID_MESSAGE SERVER_ERROR CONFLICT \
                         OUT_OF_ORDER SESSION_SUPERSEDED RECORD_NOT_FOUND";
            parts.add_text(draw, "code", codes);
        }
        _ => {}
    }
    let metadata = any_metadata(draw, kind);
    parts.add(draw, &format!(r#""metadata":{{{metadata}}}"#));
    format!(r#"{{"type":"{kind}",{}}}"#, parts.joined())
}

fn any_metadata(draw: &mut Rng, kind: &str) -> String {
    let mut parts = Parts::default();
    match kind {
        "pong" => {
            parts.add_text(draw, "epoch", "e1 e2");
            parts.add_number(draw, "protocol", 4);
            parts.add_number(draw, "lastMutation", 12);
        }
        "subscribed" => {
            parts.add_text(draw, "mode", "snapshot delta");
            parts.add_number(draw, "head", 12);
        }
        "sync" => {
            parts.add_number(draw, "snapshotSeq", 12);
            parts.add_text(draw, "after", "a b");
            parts.add_text(draw, "upTo", "b c");
        }
        "synced" => {
            parts.add_text(draw, "epoch", "e1 e2");
            parts.add_text(draw, "checksum", "0000000000000000");
            parts.add_number(draw, "seq", 12);
            parts.add_number(draw, "count", 4);
        }
        _ => {
            let numbers = 1 << draw.u8(1..6);
            parts.add_number(draw, "mutation", numbers);
            parts.add_number(draw, "seq", 12);
            parts.add_number(draw, "version", 12);
        }
    }
    parts.joined()
}

fn one_of<'a>(draw: &mut Rng, words: &'a str) -> &'a str {
    let count = words.split_whitespace().count();
    words.split_whitespace().nth(draw.usize(..count)).unwrap_or_default()
}

/// The members of a JSON object, each of which may be missing.
#[derive(Default)]
struct Parts(Vec<String>);

impl Parts {
    fn add(&mut self, draw: &mut Rng, part: &str) {
        if draw.u8(..16) != 0 {
            self.0.push(part.into());
        }
    }

    fn add_text(&mut self, draw: &mut Rng, name: &str, words: &str) {
        let word = one_of(draw, words);
        self.add(draw, &format!(r#""{name}":"{word}""#));
    }

    fn add_number(&mut self, draw: &mut Rng, name: &str, below: u64) {
        let number = draw.u64(..below);
        self.add(draw, &format!(r#""{name}":{number}"#));
    }

    fn joined(&self) -> String {
        self.0.join(",")
    }
}
