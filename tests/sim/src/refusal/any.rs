//! Messages of any kind.

use fastrand::Rng;

/// A message of one of some kinds, with any of its parts left out or wrong.
pub(super) fn any_message(draw: &mut Rng, kinds: &str) -> String {
    let kind = one_of(draw, kinds);
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
