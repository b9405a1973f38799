//! The kinds of stores, and of the durability of their commits.

/// The owner of the store in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// A client's: [`FjallClientStore`](crate::FjallClientStore).
    Client,
    /// A server's: [`FjallServerStore`](crate::FjallServerStore).
    Server,
}

/// The failures that an acknowledged commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The end of the process, however it ends. A commit is handed to the operating system and is
    /// acknowledged; when the machine loses its power, the last seconds may be lost.
    Buffered,
    /// The end of the machine's power too: a commit is acknowledged when the disk has it.
    Synced,
}
