//! The address that a peer is counted by.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use axum::http::HeaderName;
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The bits of an IPv6 address that name a subscriber, who has all addresses below it.
const SUBSCRIBER_BITS: u32 = 64;

/// The address by which the sender of a request is counted: the peer's own, or what a trusted proxy
/// says. `None` for a program of this machine, and where a trusted proxy says nothing: these have
/// no limit of their own.
pub(crate) fn counted(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|proxy| proxy.contains(address));
    if !is_trusted(&peer) {
        return of_peer(peer);
    }
    // each proxy appends its peer, so the last one that is no proxy of ours is the client
    let named = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = named.flat_map(|value| value.split(',')).collect();
    for hop in hops.iter().rev() {
        match parse(hop.trim()) {
            Some(address) if is_trusted(&address) => {}
            Some(address) => return Some(subscriber(address)),
            None => return None,
        }
    }
    None
}

/// The address by which a peer is counted that no proxy speaks for.
pub(crate) fn of_peer(peer: IpAddr) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    (!peer.is_loopback()).then(|| subscriber(peer))
}

/// Some proxies append the port.
fn parse(hop: &str) -> Option<IpAddr> {
    let address =
        hop.parse().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let mask = u128::MAX << (u128::BITS - SUBSCRIBER_BITS);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn judged(peer: &str, forwarded: &[&'static str]) -> Option<IpAddr> {
        let trusted = ["127.0.0.1/32", "10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
        let forwarded = forwarded.iter().map(|value| HeaderValue::from_static(value));
        let headers = forwarded.map(|value| (FORWARDED_FOR, value)).collect();
        counted(Some(ip(peer)), &headers, &trusted)
    }

    #[test]
    fn a_trusted_proxy_speaks_for_its_clients() {
        assert_eq!(judged("127.0.0.1", &["192.0.2.7"]), Some(ip("192.0.2.7")));
        assert_eq!(judged("::ffff:127.0.0.1", &["192.0.2.7:4711"]), Some(ip("192.0.2.7")));
        // what the client itself claims to be is left of what the proxies say
        assert_eq!(judged("10.1.2.3", &["192.0.2.9, 192.0.2.7, 10.0.0.1"]), Some(ip("192.0.2.7")));
        assert_eq!(judged("10.1.2.3", &["192.0.2.9", "192.0.2.7"]), Some(ip("192.0.2.7")));
        assert_eq!(judged("::1", &["192.0.2.9, unknown"]), None);
        assert_eq!(judged("::1", &[]), None);
    }

    #[test]
    fn nobody_else_does() {
        assert_eq!(judged("192.0.2.1", &["192.0.2.7"]), Some(ip("192.0.2.1")));
        assert_eq!(counted(Some(ip("127.0.0.1")), &HeaderMap::new(), &[]), None);
        assert_eq!(counted(None, &HeaderMap::new(), &[]), None);
    }

    #[test]
    fn the_addresses_of_one_subscriber_are_one() {
        assert_eq!(judged("2001:db8:1:2::3", &[]), Some(ip("2001:db8:1:2::")));
        assert_eq!(judged("2001:db8:1:2:ffff::", &[]), Some(ip("2001:db8:1:2::")));
        assert_eq!(judged("::ffff:192.0.2.1", &[]), Some(ip("192.0.2.1")));
    }
}
