//! How many connections each peer has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by source and refuses those above a limit.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    limit: usize,
    // Guards the number of connections of each source that has any.
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Arc::default(),
        }
    }

    /// Counts one more connection of `address` until the place is dropped; `None` at the limit.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&source).copied().unwrap_or(0);
        if count >= self.limit {
            return None;
        }
        open.insert(source, count + 1);
        drop(open);
        Some(Place {
            peers: self.clone(),
            source,
        })
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Place {
    peers: Peers,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .peers
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// Whom an address stands for: a host, or with IPv6 a /64, within which a host takes what
/// addresses it likes (RFC 8981).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_as_many_places_as_it_gives_back() {
        let peers = Peers::new(2);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = peers.admit(address).unwrap();
        let second = peers.admit(address).unwrap();
        assert!(peers.admit(address).is_none());
        assert!(peers.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        let third = peers.admit(address).unwrap();
        assert!(peers.admit(address).is_none());
        drop((second, third));
        assert!(peers.open.lock().unwrap().is_empty());
    }

    #[test]
    fn addresses_of_one_host_are_one_source() {
        let same = |a: &str, b: &str| source(a.parse().unwrap()) == source(b.parse().unwrap());
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(same("2001:db8::1", "2001:db8::ffff:0:0:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
