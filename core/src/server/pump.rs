//! The way from the rings to a socket.

use alloc::vec::Vec;

use super::session::{Environment, Session, SessionAction, SessionInput};
use crate::protocol::time::Now;

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
    env: &mut Environment<'_>,
    out: &mut Vec<SessionAction>,
) -> bool {
    let (mut left, mut counted) = (room, out.len());
    for _ in 0..turns {
        // what was sent is counted only where it matters
        if !session.wants_pump(env.rings) {
            return false;
        }
        left = left.saturating_sub(out.iter().skip(counted).map(size).sum());
        counted = out.len();
        if left == 0 {
            return false;
        }
        session.handle(now, SessionInput::Pump { room: left }, env, out);
    }
    let sent: usize = out.iter().skip(counted).map(size).sum();
    left > sent && session.wants_pump(env.rings)
}

fn size(action: &SessionAction) -> usize {
    match action {
        SessionAction::Send(frame) => frame.len(),
        SessionAction::Close { .. }
        | SessionAction::Authenticate(_)
        | SessionAction::Transact(_)
        | SessionAction::Read(_)
        | SessionAction::Follow(_)
        | SessionAction::Unfollow(_) => 0,
    }
}
