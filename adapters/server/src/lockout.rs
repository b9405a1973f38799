//! The lockout of addresses that send wrong tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of addresses that are remembered.
const ADDRESSES: usize = 16_384;

/// The failed logins of each address. One that failed too often is asked for no token until its
/// lockout is over.
pub(crate) struct Lockout {
    failures: u32,
    duration: Duration,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    /// When the first of them, or the one that brought the lockout, is forgotten.
    until: Instant,
}

impl Lockout {
    /// A lockout after so many failures within the duration, for that duration; after none if
    /// `failures` is 0.
    pub(crate) fn new(failures: u32, duration: Duration) -> Self {
        Self { failures, duration, addresses: Mutex::default() }
    }

    /// Returns `Err` with the remaining time if an address is locked out.
    pub(crate) fn check(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let Some(address) = address.filter(|_| self.failures > 0) else { return Ok(()) };
        match self.addresses().get(&address) {
            Some(found) if found.count >= self.failures && now < found.until => {
                Err(found.until - now)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Notes a wrong token. Returns `true` if the address is locked out from now on.
    pub(crate) fn note_failure(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let Some(address) = address.filter(|_| self.failures > 0) else { return false };
        let mut addresses = self.addresses();
        if addresses.len() >= ADDRESSES {
            addresses.retain(|_, failures| now < failures.until);
        }
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&address) {
            return false;
        }
        let until = now + self.duration;
        let found = addresses.entry(address).or_insert(Failures { count: 0, until });
        if found.until <= now {
            *found = Failures { count: 0, until };
        }
        found.count += 1;
        if found.count == self.failures {
            found.until = until;
        }
        found.count == self.failures
    }

    /// Forgets what is over.
    pub(crate) fn sweep(&self, now: Instant) {
        self.addresses().retain(|_, failures| now < failures.until);
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_locked_out_after_its_failures_and_let_in_again() {
        let (minute, now) = (Duration::from_secs(60), Instant::now());
        let lockout = Lockout::new(3, minute);
        let [a, b] = [1, 2].map(|n| Some(IpAddr::from([192, 0, 2, n])));
        assert!(!lockout.note_failure(a, now) && !lockout.note_failure(a, now));
        assert_eq!(lockout.check(a, now), Ok(()));
        let later = now + minute / 2;
        assert!(lockout.note_failure(a, later));
        assert_eq!((lockout.check(a, later), lockout.check(b, later)), (Err(minute), Ok(())));
        assert_eq!(lockout.check(a, later + minute), Ok(()));
        // few failures in a long time lock nobody out
        assert!(!lockout.note_failure(b, now) && !lockout.note_failure(b, now));
        assert!(!lockout.note_failure(b, now + minute));
        lockout.sweep(now + 3 * minute);
        assert!(lockout.addresses().is_empty());
    }

    #[test]
    fn programs_of_this_machine_are_never_locked_out() {
        let (lockout, now) = (Lockout::new(1, Duration::from_secs(60)), Instant::now());
        assert!(!lockout.note_failure(None, now));
        assert_eq!(lockout.check(None, now), Ok(()));
    }
}
