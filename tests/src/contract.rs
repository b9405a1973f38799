//! Drivers of a client machine that break its contract: the machine itself has to hold on to what
//! it promises.

use synclayer_core::client::Client;
use synclayer_core::client::interface::{Action, Actions, Input, NetAction, StoreAction};
use synclayer_core::memory::MemoryRows;
use synclayer_core::words::name::{CommitNumber, ConnId};
use synclayer_core::words::time::{Mono, Now, Timestamp};

/// A driver says that a commit is durable which the machine has not made yet: what is committed
/// later is not taken for durable by that.
///
/// # Errors
/// When a frame goes out before the commit that it stands on was reported.
pub fn reports_beyond_the_last_commit() -> Result<(), String> {
    let now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
    let (mut rows, mut out) = (MemoryRows::new(), Actions::new());
    let config = Default::default();
    let mut client = Client::open(config, 7, now, CommitNumber(0), &rows, &mut out)
        .map_err(|error| error.message)?;
    client.connect(now, &rows, &mut out);
    let (mut sent, conn) = take(&mut out, &mut rows);
    client.handle(now, Input::Durable { up_to: CommitNumber(999) }, &rows, &mut out);
    let conn = conn.ok_or("it does not connect")?;
    client.handle(now, Input::Connected { conn }, &rows, &mut out);
    sent += take(&mut out, &mut rows).0;
    if sent > 0 {
        return Err("the hello went out before its session was durable".into());
    }
    let up_to = client.last_commit();
    client.handle(now, Input::Durable { up_to }, &rows, &mut out);
    match take(&mut out, &mut rows).0 {
        0 => Err("the hello does not go out".into()),
        _ => Ok(()),
    }
}

/// Makes commits visible. Returns how many frames go out, and the connection that is asked for.
fn take(out: &mut Actions, rows: &mut MemoryRows) -> (usize, Option<ConnId>) {
    let (mut sent, mut dialled) = (0, None);
    for action in out.drain(..) {
        match action {
            Action::Store(StoreAction::Commit { batch, .. }) => rows.apply(batch),
            Action::Net(NetAction::Connect { conn, .. }) => dialled = Some(conn),
            Action::Net(NetAction::Send { .. }) => sent += 1,
            Action::Store(StoreAction::Flush { .. })
            | Action::Net(
                NetAction::Ping { .. } | NetAction::Close { .. } | NetAction::Request(_),
            )
            | Action::View(_)
            | Action::Event(_)
            | Action::Synced { .. }
            | Action::Halted(_) => {}
        }
    }
    (sent, dialled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_its_promises_whoever_drives_it() {
        assert_eq!(reports_beyond_the_last_commit(), Ok(()));
    }
}
