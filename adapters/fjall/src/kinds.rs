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
    /// The end of the process, however it ends. A commit is acknowledged when the operating system
    /// has it. When that crashes or the machine loses its power, the last commits may be lost, mostly
    /// those of the last half minute; the store then opens with a prefix of what was written. The
    /// default of a client's store.
    Buffered,
    /// The end of the machine's power too: a commit is acknowledged when the disk has it. A store
    /// that lacks one of these is damaged, and doesn't open. The default of a server's store.
    Synced,
}
