//! The admission of connections: how many at a time, and which one ends if there are too many.
//!
//! Every connection has a [`ConnectionPermit`]. It counts as unauthenticated until a request of it was
//! admitted, and again between two requests. Few permits are for unauthenticated connections, and where
//! none is left a new one is given the permit of an older one: so those that connect and say nothing
//! keep nobody out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::ServerConfig;
use crate::fairness::Principal;
use crate::turns::{Meter, Turns};

/// The number of descriptors that are left to the store and to the rest of the program.
const RESERVED_DESCRIPTORS: usize = 256;
/// The part of the permits that unauthenticated connections have at most: one of so many.
const UNAUTHENTICATED_SHARE: usize = 2;
/// The part of the permits that one address has at most: one of so many.
const ADDRESS_SHARE: usize = 2;
/// The time for which an unauthenticated connection keeps a permit that others wait for.
const GRACE: Duration = Duration::from_millis(500);

/// The permits of a server.
pub(crate) struct Admission {
    permits: usize,
    unauthenticated: usize,
    per_address: usize,
    state: Mutex<State>,
    freed: Notify,
    turns: Arc<Turns>,
}

#[derive(Default)]
struct State {
    taken: HashMap<u64, Taken>,
    unauthenticated: usize,
    addresses: HashMap<IpAddr, usize>,
    last: u64,
}

/// A permit that is taken.
struct Taken {
    peer: Option<IpAddr>,
    /// The number of requests under way that were admitted; an unauthenticated connection has
    /// none.
    admitted: usize,
    /// When it was taken, or its connection became unauthenticated again.
    since: Instant,
    end: Arc<Notify>,
}

/// The permit of one connection, for as long as that lives.
pub(crate) struct ConnectionPermit {
    admission: Arc<Admission>,
    id: u64,
    peer: Option<IpAddr>,
    end: Arc<Notify>,
    meter: Arc<Meter>,
}

/// A request that was admitted, up to the end of its answer; or a WebSocket.
pub(crate) struct AdmittedRequest {
    permit: Arc<ConnectionPermit>,
    address: Option<IpAddr>,
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let permits = config.max_connections.min(descriptors()).max(1);
        Self {
            permits,
            unauthenticated: config.max_unauthenticated.min(permits / UNAUTHENTICATED_SHARE).max(1),
            per_address: config.max_connections_per_address.min(permits / ADDRESS_SHARE).max(1),
            state: Mutex::default(),
            freed: Notify::new(),
            turns: Arc::new(Turns::new()),
        }
    }

    /// Waits for the permit of a connection that was accepted. An unauthenticated one may
    /// lose its permit for it.
    pub(crate) async fn permit(self: &Arc<Self>, peer: IpAddr) -> Arc<ConnectionPermit> {
        loop {
            let freed = self.freed.notified();
            match self.try_permit(Some(peer), Instant::now()) {
                Ok(permit) => return permit,
                // the end of a grace is noticed here
                Err(Full { wait }) => drop(timeout(wait, freed).await),
            }
        }
    }

    /// A permit of a connection that another server has accepted.
    pub(crate) fn permit_now(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
    ) -> Option<Arc<ConnectionPermit>> {
        self.try_permit(peer, Instant::now()).ok()
    }

    fn try_permit(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<Arc<ConnectionPermit>, Full> {
        let mut state = self.state();
        if state.taken.len() >= self.permits || state.unauthenticated >= self.unauthenticated {
            state.end_unauthenticated(now)?;
        }
        state.last += 1;
        let (id, end) = (state.last, Arc::<Notify>::default());
        state.unauthenticated += 1;
        state.taken.insert(id, Taken { peer, admitted: 0, since: now, end: Arc::clone(&end) });
        drop(state);
        let meter = self.meter(&Principal::new(None, peer));
        Ok(Arc::new(ConnectionPermit { admission: Arc::clone(self), id, peer, end, meter }))
    }

    /// A meter for this principal.
    pub(crate) fn meter(&self, principal: &Principal) -> Arc<Meter> {
        Arc::new(self.turns.meter(principal))
    }

    #[cfg(test)]
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// The number of connections.
    pub(crate) fn taken(&self) -> usize {
        self.state().taken.len()
    }

    /// The number of connections that there may be.
    pub(crate) fn max_connections(&self) -> usize {
        self.permits
    }

    /// Waits until every connection has ended. Returns `false` if they take too long.
    pub(crate) async fn wait_for_all(&self, time_limit: Duration) -> bool {
        let all = async {
            loop {
                let freed = self.freed.notified();
                if self.state().taken.is_empty() {
                    return;
                }
                freed.await;
            }
        };
        timeout(time_limit, all).await.is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All permits are taken.
struct Full {
    /// The time after which it may be otherwise.
    wait: Duration,
}

impl State {
    /// Ends the oldest unauthenticated connection of the address that has the most of them, if it has had
    /// its time.
    fn end_unauthenticated(&mut self, now: Instant) -> Result<(), Full> {
        let mut addresses: HashMap<Option<IpAddr>, (usize, Instant, u64)> = HashMap::new();
        for (id, taken) in self.taken.iter().filter(|(_, taken)| taken.admitted == 0) {
            let address = addresses.entry(taken.peer).or_insert((0, taken.since, *id));
            address.0 += 1;
            if (taken.since, *id) < (address.1, address.2) {
                (address.1, address.2) = (taken.since, *id);
            }
        }
        let largest = addresses
            .into_values()
            .max_by_key(|(count, since, id)| (*count, std::cmp::Reverse((*since, *id))));
        let Some((_, since, id)) = largest else { return Err(Full { wait: GRACE }) };
        let age = now.saturating_duration_since(since);
        if age < GRACE {
            return Err(Full { wait: GRACE - age });
        }
        if let Some(taken) = self.taken.remove(&id) {
            self.unauthenticated -= 1;
            taken.end.notify_one();
        }
        Ok(())
    }
}

impl ConnectionPermit {
    /// The address of the peer, where it is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The meter of its connection's time, which counts to the peer's address until a user is known.
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Admits a request that is counted by this address. `None` if the address has as many
    /// connections as it may have, or the permit was given to another.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<AdmittedRequest> {
        let mut state = self.admission.state();
        if let Some(address) = address {
            let most = self.admission.per_address;
            if state.addresses.get(&address).is_some_and(|count| *count >= most) {
                return None;
            }
        }
        let taken = state.taken.get_mut(&self.id)?;
        taken.admitted += 1;
        if taken.admitted == 1 {
            state.unauthenticated -= 1;
        }
        if let Some(address) = address {
            *state.addresses.entry(address).or_default() += 1;
        }
        drop(state);
        self.admission.freed.notify_waiters();
        Some(AdmittedRequest { permit: Arc::clone(self), address })
    }

    /// Tells the connection to end at once.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits until the connection has to end.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        if let Some(taken) = state.taken.remove(&self.id)
            && taken.admitted == 0
        {
            state.unauthenticated -= 1;
        }
        drop(state);
        self.admission.freed.notify_waiters();
    }
}

impl Drop for AdmittedRequest {
    fn drop(&mut self) {
        let mut state = self.permit.admission.state();
        if let Some(address) = self.address
            && let Some(count) = state.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&address);
            }
        }
        if let Some(taken) = state.taken.get_mut(&self.permit.id) {
            taken.admitted -= 1;
            if taken.admitted == 0 {
                taken.since = Instant::now();
                state.unauthenticated += 1;
            }
        }
    }
}

/// The number of descriptors that connections may have.
fn descriptors() -> usize {
    let limit = soft_limit();
    limit - RESERVED_DESCRIPTORS.min(limit / 2)
}

#[cfg(unix)]
fn soft_limit() -> usize {
    let limits = rlimit::Resource::NOFILE.get();
    limits.map_or(usize::MAX, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn soft_limit() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(unauthenticated: usize, per_address: usize) -> Arc<Admission> {
        let config = ServerConfig::new()
            .max_connections(40)
            .max_unauthenticated(unauthenticated)
            .max_connections_per_address(per_address);
        Arc::new(Admission::new(&config))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_ended(permit: &ConnectionPermit) -> bool {
        let ended = std::pin::pin!(permit.ended());
        ended.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_makes_room() {
        let (admission, now) = (admission(3, 10), Instant::now());
        let permit = |last, at| admission.try_permit(Some(ip(last)), at);
        let [lone, first, second] = [1, 2, 2].map(|last| permit(last, now).ok().unwrap());
        let soon = now + GRACE / 2;
        let full = permit(1, soon).err().unwrap();
        assert_eq!(full.wait, GRACE / 2, "all have their time");
        let third = permit(1, now + GRACE).ok().unwrap();
        assert_eq!(
            [&lone, &first, &second, &third].map(|permit| is_ended(permit)),
            [false, true, false, false]
        );
        // an admitted one is not ended
        let admitted = lone.admit(None).unwrap();
        let fourth = permit(3, now + GRACE).ok().unwrap();
        assert!(first.admit(None).is_none(), "its permit was given away");
        drop((first, second, third, fourth, admitted, lone));
        assert_eq!(admission.state().unauthenticated, 0);
        assert!(admission.state().taken.is_empty());
    }

    #[test]
    fn an_address_has_its_share() {
        let admission = admission(10, 2);
        let permits: Vec<_> = (0..4).map(|_| admission.permit_now(None).unwrap()).collect();
        let admitted: Vec<_> = permits.iter().map(|permit| permit.admit(Some(ip(1)))).collect();
        assert_eq!(
            admitted.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        assert!(permits[2].admit(Some(ip(2))).is_some());
        assert!(permits[3].admit(None).is_some(), "a program of this machine");
        drop(admitted);
        assert!(permits[2].admit(Some(ip(1))).is_some());
        assert_eq!(admission.state().addresses.len(), 0);
    }

    #[test]
    fn permits_of_admitted_requests_are_not_given_away() {
        let (admission, now) = (admission(10, 100), Instant::now());
        let hold = |_| {
            let permit = admission.try_permit(None, now).ok().unwrap();
            let admitted = permit.admit(None).unwrap();
            (permit, admitted)
        };
        let mut all: Vec<_> = (0..40).map(hold).collect();
        assert!(admission.try_permit(None, now + 60 * GRACE).is_err());
        let (permit, admitted) = all.pop().unwrap();
        drop(admitted);
        // between two requests it counts as unauthenticated
        assert!(admission.try_permit(None, Instant::now() + GRACE).is_ok());
        assert!(is_ended(&permit));
    }
}
