//! A machine as tests look at it.

use alloc::string::String;

/// The state of a machine as one number, and its invariants. A test calls [`check`](Self::check) after
/// every input.
///
/// ```
/// use synclayer_core::testing::Checked;
/// # use synclayer_core::{ClientConfig, Command, MemoryClientStore, Now, Replica, StoreError};
/// # let (now, mut out) = (Now::default(), Vec::new());
///
/// let open = |out: &mut Vec<_>| {
///     Replica::open(ClientConfig::default(), 7, now, MemoryClientStore::default(), out)
/// };
/// let (mut one, mut other) = (open(&mut out)?, open(&mut out)?);
/// for replica in [&mut one, &mut other] {
///     replica.command(now, Command::Connect, &mut out);
///     replica.check().expect("its invariants hold");
/// }
/// assert_eq!(one.digest(), other.digest(), "equal inputs lead to equal states");
/// # Ok::<(), StoreError>(())
/// ```
pub trait Checked {
    /// A hash of the whole state: equal runs have equal digests.
    fn digest(&self) -> u64;

    /// Checks what must always hold.
    ///
    /// # Errors
    /// The invariant that is broken.
    fn check(&self) -> Result<(), String>;

    /// Checks that whatever waits will go on: by an answer, by the store or at a deadline. By default
    /// nothing waits.
    ///
    /// # Errors
    /// Names what would wait for ever.
    fn check_progress(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks that nothing is left of what was only needed on the way. To be called when everything
    /// was answered, every collection is live, and nobody watches any more.
    ///
    /// # Errors
    /// Names what is left.
    fn check_at_rest(&self) -> Result<(), String>;
}
