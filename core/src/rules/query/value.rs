//! The one order of JSON values, as bytes.
//!
//! The encoding of a value is equal for equal values, in the order of the values, and never the
//! beginning of another one: so encodings can be put behind each other, and the complement of one is
//! in the reverse order.
//!
//! null < false < true < numbers < texts < arrays (element by element) < objects (sorted by name,
//! then pair by pair). Before all of them comes the missing field.

use alloc::vec::Vec;

use super::number;
use crate::protocol::json::{self, Broken};

const END: u8 = 0x00;
const PAIR: u8 = 0x01;
pub(super) const MISSING: u8 = 0x10;
pub(super) const NULL: u8 = 0x20;
const FALSE: u8 = 0x30;
const TRUE: u8 = 0x31;
const STRING: u8 = 0x50;
const ARRAY: u8 = 0x60;
const OBJECT: u8 = 0x70;
/// A container that is nested deeper than documents may be.
const TOO_DEEP: u8 = 0x80;

/// The nesting at which containers are no longer looked into. Documents have less.
const DEEPEST: usize = 128;

/// Appends the encoding of the JSON text of a value, or of a field that is missing.
pub(super) fn put(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => put_value(text, 0, out),
        None => out.push(MISSING),
    }
}

/// The encoding of the JSON text of a value.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    put_value(text, 0, &mut out);
    out
}

/// Returns `true` if two encodings are of values that `<` compares: both null, both booleans, both
/// numbers and so on.
pub(super) fn are_alike(one: &[u8], other: &[u8]) -> bool {
    let kind = |key: &[u8]| key.first().map(|tag| tag >> 4);
    kind(one) == kind(other)
}

/// The bytes between which the encodings of a value's kind lie, the second one excluded.
pub(super) fn kind_of(encoded: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let tag = encoded.first().map_or(0, |tag| tag & 0xf0);
    (Vec::from([tag]), Vec::from([tag + 0x10]))
}

/// The bytes with which the encodings of all texts begin that begin with this one.
pub(super) fn beginning(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::from([STRING]);
    put_text(text, &mut out);
    out.truncate(out.len() - 2);
    out
}

/// The least bytes above all that begin with these.
pub(super) fn successor(mut bytes: Vec<u8>) -> Vec<u8> {
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return bytes;
        }
    }
    // no encoding and no id begins with this
    alloc::vec![u8::MAX]
}

/// Turns the order of encodings round.
pub(super) fn complement(encoded: &mut [u8]) {
    encoded.iter_mut().for_each(|byte| *byte = !*byte);
}

fn put_value(text: &str, depth: usize, out: &mut Vec<u8>) {
    match text.as_bytes().first() {
        Some(b'n') => out.push(NULL),
        Some(b'f') => out.push(FALSE),
        Some(b't') => out.push(TRUE),
        Some(b'"') => {
            out.push(STRING);
            put_text(&json::string_bytes(text), out);
        }
        Some(b'[' | b'{') if depth == DEEPEST => {
            out.push(TOO_DEEP);
            put_text(text.as_bytes(), out);
        }
        Some(b'[') => {
            out.push(ARRAY);
            // values are checked when they are taken in
            let _ = json::elements(text, |element| {
                put_value(element.text, depth + 1, out);
                Ok::<(), Broken>(())
            });
            out.push(END);
        }
        Some(b'{') => {
            out.push(OBJECT);
            put_pairs(text, depth + 1, out);
            out.push(END);
        }
        Some(_) | None => number::put(text, out),
    }
}

/// Of several members with one name the last counts.
fn put_pairs(text: &str, depth: usize, out: &mut Vec<u8>) {
    let mut pairs = Vec::new();
    let _ = json::pairs(text, |name, value| {
        pairs.push((json::string_bytes(name), value.text));
        Ok::<(), Broken>(())
    });
    pairs.reverse();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    pairs.dedup_by(|(one, _), (before, _)| one == before);
    for (name, value) in pairs {
        out.push(PAIR);
        put_text(&name, out);
        put_value(value, depth, out);
    }
}

/// The bytes, in which 0 is followed by 255, and two zeros as the end.
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    for (i, part) in text.split(|byte| *byte == 0).enumerate() {
        if i > 0 {
            out.extend([0, 0xff]);
        }
        out.extend_from_slice(part);
    }
    out.extend([END, END]);
}
