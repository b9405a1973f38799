//! Shorter runs that break in the same way.

use crate::draw::{HEADER, STEP};
use crate::run::run;

/// The shortest run found, by leaving steps out and taming bytes, that breaks a guarantee as this
/// one does: the texts begin alike. `tries` bounds how many runs it may cost.
///
/// The bytes come back as they are where they break nothing.
#[must_use]
pub fn shrink(bytes: &[u8], tries: usize) -> Vec<u8> {
    let mut best = bytes.to_vec();
    let Err(broken) = run(&best) else { return best };
    let kind = kind_of(&broken).to_owned();
    let mut left = tries;
    let mut breaks = |bytes: &[u8]| {
        left = left.saturating_sub(1);
        left > 0 && run(bytes).is_err_and(|broken| kind_of(&broken) == kind)
    };
    leave_steps_out(&mut best, &mut breaks);
    for index in 0..best.len() {
        if best[index] != 0 {
            let mut tamer = best.clone();
            tamer[index] = 0;
            if breaks(&tamer) {
                best = tamer;
            }
        }
    }
    leave_steps_out(&mut best, &mut breaks);
    best
}

fn leave_steps_out(best: &mut Vec<u8>, breaks: &mut impl FnMut(&[u8]) -> bool) {
    let mut length = best.len().saturating_sub(HEADER) / STEP / 2;
    while length > 0 {
        let mut at = HEADER;
        while at < best.len() {
            let end = (at + length * STEP).min(best.len());
            let shorter = [&best[..at], &best[end..]].concat();
            if breaks(&shorter) {
                *best = shorter;
            } else {
                at = end;
            }
        }
        length /= 2;
    }
}

/// Returns the kind of a failure, without its details.
fn kind_of(broken: &str) -> &str {
    broken.split([':', '{', '(']).next().unwrap_or_default().trim_end_matches(char::is_numeric)
}
