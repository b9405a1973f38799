//! The clock of the machine, as far as the database minds it: it counts its files' times from 1970,
//! and panics where the clock stands before that. At an opening that would end the process; while a
//! store is open, it would end the database's thread.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use synclayer_core::{StoreError, StoreErrorKind};

/// Checks that the database can work with the clock, before it is asked to.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    if now() >= UNIX_EPOCH {
        return Ok(());
    }
    let path = path.display();
    let message = format!(
        "the clock of this machine stands before 1970, where the store at {path} can't be used; \
         nothing was changed: set the clock and try again"
    );
    Err(StoreError::new(StoreErrorKind::Other, message))
}

#[cfg(not(test))]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
fn now() -> SystemTime {
    tests::NOW.get().unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use synclayer_core::{Batch, ClientStore, CommitNumber, ServerStore};

    use super::*;
    use crate::{ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions};

    thread_local! {
        pub(super) static NOW: Cell<Option<SystemTime>> = const { Cell::new(None) };
    }

    #[test]
    fn a_clock_before_1970_is_refused_until_it_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let (client, server) = (dir.path().join("client"), dir.path().join("server"));
        let options = || ClientOptions::new().durability(Durability::Buffered);
        let early = Some(UNIX_EPOCH - Duration::from_secs(3600));
        NOW.set(early);
        let refusals = [
            FjallClientStore::open(&client, options()).err(),
            FjallServerStore::open(&server, ServerOptions::default()).err(),
            FjallClientStore::salvage(&client, b"x").err(),
            FjallServerStore::repair(&server).err(),
        ];
        for refusal in refusals {
            let said = refusal.expect("it is refused").message;
            assert!(said.contains("before 1970") && said.contains("set the clock"), "{said}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");

        NOW.set(None);
        let batch = |key: &'static [u8]| {
            let mut batch = Batch::default();
            batch.put(key, b"kept".as_slice());
            batch
        };
        let mut store = FjallClientStore::open(&client, options()).unwrap();
        store.commit(CommitNumber(1), batch(b"a")).unwrap();
        NOW.set(early);
        let refused = store.commit(CommitNumber(2), batch(b"b")).unwrap_err();
        assert!(refused.message.contains("before 1970"), "{refused}");
        drop(store);
        assert!(FjallClientStore::open(&client, options()).is_err());
        NOW.set(None);
        let store = FjallClientStore::open(&client, options()).unwrap();
        assert_eq!(store.rows().get(b"a").unwrap().as_deref(), Some(&b"kept"[..]));
        assert_eq!(store.rows().get(b"b").unwrap(), None);

        // a server's store goes on as soon as the clock is right
        let store = FjallServerStore::open(&server, ServerOptions::default()).unwrap();
        let put = |store: &FjallServerStore| store.transact(&mut |_| Ok(batch(b"a")));
        NOW.set(early);
        assert!(put(&store).unwrap_err().message.contains("before 1970"));
        NOW.set(None);
        put(&store).unwrap();
    }
}
