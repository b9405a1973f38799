//! No false alarm: nothing is mended that is not broken, and nothing impossible is counted.

use synclayer_core::{Event, EventKind, Transport};

use crate::guarantees::ledger::Ledger;
use crate::world::World;

/// Errors that an app is told of, each with the trouble that explains it.
const EXPLAINED: &[(&str, &str)] = &[
    ("a hello failed: ", "failed call"),
    ("a pull failed: ", "failed call"),
    ("a push failed: ", "failed call"),
    ("the server answered", "declined call"),
    ("a hello was not answered in time", "delayed call"),
    ("a pull was not answered in time", "delayed call"),
    ("a push was not answered in time", "delayed call"),
    // after a jump of the clock what is under way is not waited for as long
    ("a hello was not answered in time", "clock trouble"),
    ("a pull was not answered in time", "clock trouble"),
    ("a push was not answered in time", "clock trouble"),
    ("a page does not fit what this replica knows", "server restart"),
    ("the store has failed", "disk failure"),
    ("the server can't go on from", "sweep"),
    // rights that were others for a moment
    ("the server can't go on from", "other rules"),
    ("the server can't go on from", "other claims"),
    ("RATE_LIMIT_EXCEEDED", "rate limit"),
    ("a hello was not answered in time", "slept"),
    ("a pull was not answered in time", "slept"),
    ("a push was not answered in time", "slept"),
    ("a request was not answered in time", "slept"),
    ("a request was not answered in time", "delayed call"),
    // while one sleeps, what the others have sent lies on its way
    ("the server does not answer the subscription", "slept"),
    // a seldom device takes a turn more to do what its calls have led to
    ("the server does not answer the subscription", "shared commit"),
    ("the answer to", "call answered on the way"),
    ("the server knows no level 2", "call answered on the way"),
    ("the server knows no level 2", "body broken off"),
    ("the server speaks level 2 after all", "call answered on the way"),
    ("the server speaks level 2 after all", "body broken off"),
    ("todos", "call answered on the way"),
    ("notes", "call answered on the way"),
    ("todos", "declined call"),
    ("notes", "declined call"),
    ("a request failed", "failed call"),
    ("the connection is given up: the server's", "server disk failure"),
    ("the connection is given up: this user has", "client id too many"),
];

/// Nothing was mended that should not have been broken: no replica took the server for one that
/// lost changes, itself for a copy, or its records for wrong, where nothing was restored.
///
/// # Errors
/// The event that tells of it.
pub fn nothing_was_mended(ledger: &Ledger, world: &World) -> Result<(), String> {
    let restored = ledger.loose || ledger.plan.rates.restore > 0;
    for (index, device) in world.devices.iter().enumerate() {
        for event in &device.events {
            // A replica that was restored is noticed before anything is compared. One that was
            // cloned is not, where the last write of both was the same; and by a conflict a replica
            // may have learnt what a restored server has lost.
            let compared = matches!(event.kind, EventKind::ChecksumMismatch { .. });
            let excused = ["replica cloned", "server restored"];
            let excused = excused.iter().any(|cause| world.counts.contains_key(cause));
            if restored && !compared || excused {
                continue;
            }
            let fine = match &event.kind {
                EventKind::ChecksumMismatch { .. }
                | EventKind::ServerLostChanges { .. }
                | EventKind::ReplicaCopied { .. } => false,
                // a lost connection is no alarm, and what breaks the protocol is told apart
                EventKind::Error { cause: Some(_), .. }
                    if event.transport == Some(Transport::WebSocket) =>
                {
                    true
                }
                EventKind::Error { message, .. } => EXPLAINED.iter().any(|(start, cause)| {
                    let happened = world.counts.get(cause).is_some_and(|times| *times > 0);
                    message.starts_with(start)
                        && (happened || *cause == "rate limit" && ledger.plan.rate_limit > 0)
                }),
                // the client's own reasons
                EventKind::OperationFailed { code, .. }
                    if matches!(code.as_str(), "LOST" | "PRECONDITION_FAILED") =>
                {
                    ledger.plan.units > 0
                }
                EventKind::OperationFailed { .. } => {
                    world.counts.contains_key("forbidden")
                        || world.counts.contains_key("rights")
                        || world.counts.contains_key("write beyond a cap")
                        || ledger.plan.partial
                }
                _ => true,
            };
            if !fine {
                return Err(format!("device {index} tells {event:?}"));
            }
        }
    }
    Ok(())
}

/// No counter of impossible events is non-zero: no replica was told what it did not ask for, and
/// no session got an answer that it did not wait for, or what it does not understand.
///
/// # Errors
/// Names what was counted.
pub fn nothing_impossible(ledger: &Ledger, world: &World) -> Result<(), String> {
    let restored = ledger.loose || ledger.plan.rates.restore > 0;
    // what still comes of a subscription that has ended is not listened to
    let calm = ledger.plan.rates.subscription == 0 && !world.counts.contains_key("sweep");
    let gave_up = |event: &Event| match &event.kind {
        EventKind::Error { message, .. } => {
            message.starts_with("the server does not answer the subs")
        }
        _ => false,
    };
    for (index, device) in world.devices.iter().enumerate().filter(|_| calm && !restored) {
        // nor to the late answer to a subscription that was given up
        if device.unexplained_frames() > 0 && !device.events.iter().any(gave_up) {
            return Err(format!("device {index} ignored {} frames", device.unexplained_frames()));
        }
    }
    match world.counts.get("out of order") {
        Some(times) if !restored => Err(format!("{times} writes came out of order")),
        Some(_) | None => Ok(()),
    }
}
