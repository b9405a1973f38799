//! The end of a server, for those who wait beside their work.

use tokio::sync::watch;

/// Waits until the server ends.
pub(crate) async fn wait_for_end(ending: &mut watch::Receiver<bool>) {
    // the sender goes only with the server
    drop(ending.wait_for(|ending| *ending).await);
}
