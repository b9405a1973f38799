//! Connecting to a server: by whichever of its addresses answers first (RFC 8305, "Happy Eyeballs"),
//! and through the proxy that the environment names.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream as Attempt;
use mio::{Events, Interest, Poll, Token};
use synclayer_core::{ConnectFailure, FailureCause};
use tracing::debug;

use crate::address::Endpoint;
use crate::fault;
use crate::proxy::Proxy;

/// The time after which the next address is tried beside those that have not answered.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The number of bytes that a socket takes before they can be sent. Half of it makes room for more.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;
/// The most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 16;

/// The way to a server, for every connection to it.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Arc<Endpoint>,
    proxy: Option<Arc<Proxy>>,
}

impl Dialer {
    /// The way to an endpoint: direct, or through the proxy that the environment names for it.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        let proxy = Proxy::from_env(&endpoint).map(Arc::new);
        Self { endpoint, proxy }
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Connects within a time. Looking up the name may block for longer.
    ///
    /// # Errors
    /// When nothing could be reached.
    pub fn dial(&self, limit: Duration) -> Result<TcpStream, ConnectFailure> {
        let deadline = Instant::now() + limit;
        let Endpoint { host, port, .. } = &*self.endpoint;
        let Some(proxy) = &self.proxy else { return connect(host, *port, deadline) };
        debug!(%host, port, %proxy, "connecting through a proxy");
        proxy.connect(host, *port, deadline)
    }
}

/// Connects to a host by whichever of its addresses answers first.
pub(crate) fn connect(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, ConnectFailure> {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let message = format!("the name {host} can't be looked up: {error}");
        ConnectFailure::new(FailureCause::UnknownHost, message)
    })?;
    let addresses = take_turns(found.take(MOST_ADDRESSES).collect());
    debug!(host, ?addresses, "connecting");
    let tried = addresses.len();
    let stream = race(addresses, deadline).and_then(|stream| {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        limit_unsent(&stream);
        Ok(stream)
    });
    stream.map_err(|error| {
        let failure = fault::of_dialing(&error, host, port, tried);
        debug!(host, port, %failure, "not connected");
        failure
    })
}

/// Bounds what a socket takes that it can't send yet. Otherwise it takes megabytes and then nothing for
/// minutes, which on a slow link looks like a server that is gone.
fn limit_unsent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
        debug!(%error, "a connection may keep more unsent");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// Puts addresses into the order in which they are tried: the families take turns, beginning with
/// that of the first address.
fn take_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// Tries addresses, each a little later than the one before it or at once when all others have failed.
/// Returns the first connection that comes up.
fn race(addresses: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(MOST_ADDRESSES);
    let mut left = addresses.into_iter();
    let mut attempts = Vec::<Option<Attempt>>::new();
    let mut next_at = Instant::now();
    let mut failure = None;
    loop {
        let all_failed = attempts.iter().all(Option::is_none);
        if Instant::now() >= next_at || all_failed {
            match left.next() {
                Some(address) => {
                    next_at = Instant::now() + ATTEMPT_DELAY;
                    let begun = begin(address, &poll, attempts.len());
                    attempts.push(begun.map_err(|error| note(&mut failure, error)).ok());
                    continue;
                }
                None if all_failed => return Err(failure.unwrap_or(ErrorKind::NotFound.into())),
                None => next_at = deadline,
            }
        }
        let wait = next_at.min(deadline).saturating_duration_since(Instant::now());
        if wait.is_zero() && Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for event in &events {
            let Some(slot) = attempts.get_mut(event.token().0) else { continue };
            match slot.as_ref().map(is_connected) {
                Some(Ok(true)) => {
                    if let Some(mut stream) = slot.take() {
                        poll.registry().deregister(&mut stream)?;
                        return Ok(stream.into());
                    }
                }
                Some(Err(error)) => {
                    note(&mut failure, error);
                    *slot = None;
                    next_at = Instant::now();
                }
                Some(Ok(false)) | None => {}
            }
        }
    }
}

fn begin(address: SocketAddr, poll: &Poll, number: usize) -> io::Result<Attempt> {
    let mut stream = Attempt::connect(address)?;
    poll.registry().register(&mut stream, Token(number), Interest::WRITABLE)?;
    Ok(stream)
}

fn is_connected(stream: &Attempt) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps the failure that tells most: an address that can't be reached from here says less than one
/// that refuses.
fn note(failure: &mut Option<io::Error>, error: io::Error) {
    let says_little = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable)
    };
    if failure.as_ref().is_none_or(says_little) {
        *failure = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn families_take_turns() {
        let order = |addresses: &[&str]| {
            let parsed = addresses.iter().map(|address| format!("{address}:1").parse().unwrap());
            take_turns(parsed.collect()).iter().map(|it| it.ip().to_string()).collect::<Vec<_>>()
        };
        let six = ["[::1]", "[::2]", "[::3]", "10.0.0.1"];
        assert_eq!(order(&six), ["::1", "10.0.0.1", "::2", "::3"]);
        assert_eq!(order(&["10.0.0.1", "[::1]", "10.0.0.2"]), ["10.0.0.1", "::1", "10.0.0.2"]);
        assert_eq!(order(&[]), [""; 0]);
    }

    /// A full backlog: what connects there waits, as at an address whose packets vanish.
    fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            held.push(stream);
        }
        (address, listener, held)
    }

    #[test]
    fn a_silent_address_holds_nobody_up() {
        let (dead, _listener, _held) = silent();
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let to = live.local_addr().unwrap();
        let began = Instant::now();
        let stream = race(vec![dead, refused, dead, to], soon()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), to);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

        let error = race(vec![dead], Instant::now() + Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = race(vec![refused, refused], soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(race(Vec::new(), soon()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
