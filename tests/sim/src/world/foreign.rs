//! A server that speaks of what nobody asked for: hostile, or mistaken.

use synclayer_core::{ConnId, Input};

use super::{Owner, World};

/// The endless messages about a collection `X`.
const WORDS: &[&str] = &[
    r#"{"type":"insert","collection":"X","recordId":"a","data":{"n":1},"timestamp":"2026-01-01T00:00:00Z","metadata":{"seq":1,"version":1}}"#,
    r#"{"type":"delete","collection":"X","recordId":"a","timestamp":"2026-01-01T00:00:00Z","metadata":{"seq":2,"version":2}}"#,
    r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"X"}}"#,
    r#"{"type":"error","code":"SERVER_ERROR","error":"no","metadata":{"collection":"X","retryAfterMs":9}}"#,
    r#"{"type":"subscribed","collection":"X","metadata":{"head":1,"mode":"snapshot"}}"#,
    r#"{"type":"sync","collection":"X","data":{"records":[{"id":"a","data":{"n":1},"seq":1,"version":1}]},"metadata":{"snapshotSeq":1}}"#,
    r#"{"type":"synced","collection":"X","metadata":{"epoch":"e1","seq":1,"count":1}}"#,
    r#"{"type":"unsubscribed","collection":"X"}"#,
];

impl World {
    /// The far end of a device's connection says something of a collection that nobody uses. Says
    /// whether there is such a connection.
    pub fn speak_of_foreign(&mut self, conn: ConnId, choice: usize) -> bool {
        let Some(Owner::Device(device)) = self.owner(conn) else { return false };
        let Some(link) = self.links.get(&conn).filter(|link| link.device_end && !link.silent)
        else {
            return false;
        };
        let local = link.local;
        self.count("foreign collection");
        let before = self.devices[device].replica.status().ignored_frames;
        let frame = WORDS[choice % WORDS.len()].replace("\"X\"", &format!("\"x{choice}\""));
        self.note(|| format!("{conn} < {frame} (foreign)"));
        self.with(device, |replica, now, actions| {
            let input = Input::Frame { conn: local, frame: frame.as_bytes() };
            replica.handle(now, input, actions);
        });
        let ignored = self.devices[device].replica.status().ignored_frames - before;
        // each of them has an explanation
        self.devices[device].late_given += ignored;
        true
    }
}
