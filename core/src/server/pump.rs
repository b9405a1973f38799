//! The way from the rings to a socket.

use super::session::{Action, Actions, Input, Lent, Session};
use crate::words::time::Now;

/// Has a session send what the rings and the store's pages hold for it, as far as its socket has
/// room: about `room` bytes, in at most `turns` steps. Returns whether it has more to send at once,
/// and was stopped by its turns only.
///
/// It is due after every other input, and whenever a followed collection moved or the socket has
/// room again.
pub fn pump(
    session: &mut Session,
    now: Now,
    room: usize,
    turns: usize,
    lent: &mut Lent<'_>,
    out: &mut Actions,
) -> bool {
    let mut left = room;
    for _ in 0..turns {
        if left == 0 || !session.wants_pump(lent.rings) {
            return false;
        }
        let before = out.len();
        session.handle(now, Input::Pump { room: left }, lent, out);
        left = left.saturating_sub(out.iter().skip(before).map(size).sum());
    }
    left > 0 && session.wants_pump(lent.rings)
}

fn size(action: &Action) -> usize {
    match action {
        Action::Send(frame) => frame.len(),
        Action::Close { .. }
        | Action::Authenticate(_)
        | Action::Transact(_)
        | Action::Read(_)
        | Action::Follow(_)
        | Action::Unfollow(_) => 0,
    }
}
