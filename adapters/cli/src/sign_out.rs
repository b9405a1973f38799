//! A user signs out of a device.

use serde_json::json;
use synclayer_tokio::{Misuse, SignOut, SyncError, Unsent};

use crate::args::SignOutArgs;
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::replica::{OpenReplica, on_replica};

pub(crate) async fn sign_out(args: SignOutArgs, out: Printer) -> Result<(), Failure> {
    let how = match (args.wipe, args.unsent) {
        (false, _) => SignOut::Keep,
        (true, false) => SignOut::Wipe,
        (true, true) => SignOut::WipeUnsent,
    };
    on_replica(&args.replica, async |replica| {
        if replica.has_server() && how == SignOut::Wipe {
            hand_over(replica, out).await?;
        }
        let status = replica.status().await?;
        match replica.sync.sign_out(how).await {
            Ok(()) => {}
            Err(SyncError::Misuse(Misuse::Unsent(unsent))) => return Err(refused(&unsent)),
            Err(error) => return Err(error.into()),
        }
        let user = &args.replica.user;
        let who = if user.is_empty() { "the user".to_owned() } else { format!("user {user}") };
        let (waiting, rejected) = (status.pending_writes, status.rejected_writes);
        let text = match how {
            SignOut::Keep => format!(
                "{who} is signed out; the records and {waiting} waiting writes stay here for their \
                 return"
            ),
            SignOut::Wipe => format!("{who} is signed out, and nothing of them is left here"),
            SignOut::WipeUnsent => format!(
                "{who} is signed out, and nothing of them is left here; with that {waiting} writes \
                 went that the server does not have, and {rejected} that it had refused"
            ),
        };
        let json = json!({
            "done": "signed-out",
            "user": user,
            "wiped": how != SignOut::Keep,
            "waiting": waiting,
            "rejected": rejected,
        });
        out.line(text, &json)
    })
    .await
}

/// Gives the server what waits for it, where it can be reached.
async fn hand_over(replica: &mut OpenReplica, out: Printer) -> Result<(), Failure> {
    for name in replica.status().await?.collections.keys() {
        replica.collection(name)?.subscribe().await?;
    }
    if let Some(why) = replica.meet(out).await?.apart {
        out.note(format_args!("not in sync: {why}"));
    }
    Ok(())
}

fn refused(unsent: &Unsent) -> Failure {
    let code = if unsent.waiting > 0 { Code::Waiting } else { Code::Refused };
    let text = format!(
        "nothing was removed, because this would be lost: {unsent}. Let the writes reach the server \
         (--server), see to the refused ones (`synclayer rejected list`), or remove them too with \
         --unsent"
    );
    Failure::new(code, text)
}
