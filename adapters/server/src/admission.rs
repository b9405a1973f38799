//! The admission of connections: how many at a time, and which one ends if there are too many.
//!
//! Every connection has a [`Seat`]. It belongs to a stranger until a request of it was let in, and
//! again between two requests. Strangers have few seats, and the newest of them takes the seat of
//! an older one where there is none left: so those who come and say nothing keep nobody out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::ServerConfig;

/// The number of descriptors that are left to the store and to the rest of the program.
const RESERVED_DESCRIPTORS: usize = 256;
/// The share of the seats that strangers have at most.
const STRANGERS_SHARE: usize = 2;
/// The share of the seats that one address has at most.
const ADDRESS_SHARE: usize = 2;
/// The time for which a stranger keeps a seat that others wait for.
const GRACE: Duration = Duration::from_millis(500);

/// The seats of a server.
pub(crate) struct Admission {
    seats: usize,
    strangers: usize,
    per_address: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: HashMap<u64, Taken>,
    strangers: usize,
    addresses: HashMap<IpAddr, usize>,
    last: u64,
}

/// A seat that is taken.
struct Taken {
    peer: Option<IpAddr>,
    /// The number of requests under way that were let in; a stranger has none.
    guests: usize,
    /// When it was taken, or became a stranger's again.
    since: Instant,
    end: Arc<Notify>,
}

/// The place of one connection, for as long as it lives.
pub(crate) struct Seat {
    admission: Arc<Admission>,
    id: u64,
    peer: Option<IpAddr>,
    end: Arc<Notify>,
}

/// A request that was let in, up to the end of its answer; or a WebSocket.
pub(crate) struct Guest {
    seat: Arc<Seat>,
    address: Option<IpAddr>,
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let seats = config.max_connections.min(descriptors()).max(1);
        Self {
            seats,
            strangers: config.max_unauthenticated.min(seats / STRANGERS_SHARE).max(1),
            per_address: config.max_connections_per_address.min(seats / ADDRESS_SHARE).max(1),
            state: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Waits for the seat of a connection that was accepted. A stranger may lose its seat for it.
    pub(crate) async fn seat(self: &Arc<Self>, peer: IpAddr) -> Arc<Seat> {
        loop {
            let freed = self.freed.notified();
            match self.try_seat(Some(peer), Instant::now()) {
                Ok(seat) => return seat,
                // the end of a grace is noticed here
                Err(Full { wait }) => drop(timeout(wait, freed).await),
            }
        }
    }

    /// A seat of a connection that another server has accepted.
    pub(crate) fn seat_now(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Arc<Seat>> {
        self.try_seat(peer, Instant::now()).ok()
    }

    fn try_seat(self: &Arc<Self>, peer: Option<IpAddr>, now: Instant) -> Result<Arc<Seat>, Full> {
        let mut state = self.state();
        if state.taken.len() >= self.seats || state.strangers >= self.strangers {
            state.end_stranger(now)?;
        }
        state.last += 1;
        let (id, end) = (state.last, Arc::<Notify>::default());
        state.strangers += 1;
        state.taken.insert(id, Taken { peer, guests: 0, since: now, end: Arc::clone(&end) });
        Ok(Arc::new(Seat { admission: Arc::clone(self), id, peer, end }))
    }

    /// The number of connections.
    pub(crate) fn taken(&self) -> usize {
        self.state().taken.len()
    }

    /// The number of connections that there may be.
    pub(crate) fn seats(&self) -> usize {
        self.seats
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

/// All seats are taken.
struct Full {
    /// The time after which it may be otherwise.
    wait: Duration,
}

impl State {
    /// Ends the oldest stranger of the address that has the most, if that has had its time.
    fn end_stranger(&mut self, now: Instant) -> Result<(), Full> {
        let mut crowds: HashMap<Option<IpAddr>, (usize, Instant, u64)> = HashMap::new();
        for (id, taken) in self.taken.iter().filter(|(_, taken)| taken.guests == 0) {
            let crowd = crowds.entry(taken.peer).or_insert((0, taken.since, *id));
            crowd.0 += 1;
            if (taken.since, *id) < (crowd.1, crowd.2) {
                (crowd.1, crowd.2) = (taken.since, *id);
            }
        }
        let largest = crowds
            .into_values()
            .max_by_key(|(count, since, id)| (*count, std::cmp::Reverse((*since, *id))));
        let Some((_, since, id)) = largest else { return Err(Full { wait: GRACE }) };
        let age = now.saturating_duration_since(since);
        if age < GRACE {
            return Err(Full { wait: GRACE - age });
        }
        if let Some(taken) = self.taken.remove(&id) {
            self.strangers -= 1;
            taken.end.notify_one();
        }
        Ok(())
    }
}

impl Seat {
    /// The address of the peer, where it is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Lets a request in that is counted by this address. `None` if the address has as many
    /// connections as it may have, or the seat was given to another.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Guest> {
        let mut state = self.admission.state();
        if let Some(address) = address {
            let most = self.admission.per_address;
            if state.addresses.get(&address).is_some_and(|count| *count >= most) {
                return None;
            }
        }
        let taken = state.taken.get_mut(&self.id)?;
        taken.guests += 1;
        if taken.guests == 1 {
            state.strangers -= 1;
        }
        if let Some(address) = address {
            *state.addresses.entry(address).or_default() += 1;
        }
        drop(state);
        self.admission.freed.notify_waiters();
        Some(Guest { seat: Arc::clone(self), address })
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

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        if let Some(taken) = state.taken.remove(&self.id)
            && taken.guests == 0
        {
            state.strangers -= 1;
        }
        drop(state);
        self.admission.freed.notify_waiters();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.seat.admission.state();
        if let Some(address) = self.address
            && let Some(count) = state.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&address);
            }
        }
        if let Some(taken) = state.taken.get_mut(&self.seat.id) {
            taken.guests -= 1;
            if taken.guests == 0 {
                taken.since = Instant::now();
                state.strangers += 1;
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

    fn admission(strangers: usize, per_address: usize) -> Arc<Admission> {
        let config = ServerConfig::new()
            .max_connections(40)
            .max_unauthenticated(strangers)
            .max_connections_per_address(per_address);
        Arc::new(Admission::new(&config))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_ended(seat: &Seat) -> bool {
        let ended = std::pin::pin!(seat.ended());
        ended.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_stranger_of_the_largest_crowd_makes_room() {
        let (admission, now) = (admission(3, 10), Instant::now());
        let seat = |last, at| admission.try_seat(Some(ip(last)), at);
        let [lone, first, second] = [1, 2, 2].map(|last| seat(last, now).ok().unwrap());
        let soon = now + GRACE / 2;
        let full = seat(1, soon).err().unwrap();
        assert_eq!(full.wait, GRACE / 2, "all have their time");
        let third = seat(1, now + GRACE).ok().unwrap();
        assert_eq!(
            [&lone, &first, &second, &third].map(|seat| is_ended(seat)),
            [false, true, false, false]
        );
        // who was let in is no stranger
        let guest = lone.admit(None).unwrap();
        let fourth = seat(3, now + GRACE).ok().unwrap();
        assert!(first.admit(None).is_none(), "its seat was given away");
        drop((first, second, third, fourth, guest, lone));
        assert_eq!(admission.state().strangers, 0);
        assert!(admission.state().taken.is_empty());
    }

    #[test]
    fn an_address_has_its_share() {
        let admission = admission(10, 2);
        let seats: Vec<_> = (0..4).map(|_| admission.seat_now(None).unwrap()).collect();
        let guests: Vec<_> = seats.iter().map(|seat| seat.admit(Some(ip(1)))).collect();
        assert_eq!(
            guests.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        assert!(seats[2].admit(Some(ip(2))).is_some());
        assert!(seats[3].admit(None).is_some(), "a program of this machine");
        drop(guests);
        assert!(seats[2].admit(Some(ip(1))).is_some());
        assert_eq!(admission.state().addresses.len(), 0);
    }

    #[test]
    fn seats_of_guests_are_not_given_away() {
        let (admission, now) = (admission(10, 100), Instant::now());
        let hold = |_| {
            let seat = admission.try_seat(None, now).ok().unwrap();
            let guest = seat.admit(None).unwrap();
            (seat, guest)
        };
        let mut all: Vec<_> = (0..40).map(hold).collect();
        assert!(admission.try_seat(None, now + 60 * GRACE).is_err());
        let (seat, guest) = all.pop().unwrap();
        drop(guest);
        // between two requests it is a stranger
        assert!(admission.try_seat(None, Instant::now() + GRACE).is_ok());
        assert!(is_ended(&seat));
    }
}
