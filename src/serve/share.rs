//! Places that clients share: no address can take all of them.

use crate::model::lock;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
};

/// Bits of an IPv6 address that name a network: one machine has all addresses of it.
const NETWORK_BITS: u32 = 64;

/// A number of places. A client that has `n` of them gets one more while more than `n` are free: alone it gets half of all, and each of `k`
/// greedy clients one part in `k + 1`, so that a part stays free for the others (dynamic thresholds, Choudhury and Hahne 1998).
pub(super) struct Shares {
    most: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

impl Shares {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
        }
    }

    /// A place for the client at this address; `None` when its share, or everything, is taken.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Share<'_>> {
        let client = client(peer);
        let mut taken = lock(&self.taken);
        let free = self.most.saturating_sub(taken.values().sum());
        let own = taken.get(&client).copied().unwrap_or(0);
        if own >= free {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Share { shares: self, client })
    }
}

/// A place, taken until this is dropped.
pub(super) struct Share<'a> {
    shares: &'a Shares,
    client: IpAddr,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.shares.taken);
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}

/// The address by which a client is counted: its IPv4 address, or its IPv6 network.
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !(u128::MAX >> NETWORK_BITS);
            Ipv6Addr::from_bits(network).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The places that each of these clients gets when they ask in turns for as many as they can have.
    fn greedy<'a>(shares: &'a Shares, clients: &[&str]) -> (Vec<Share<'a>>, Vec<usize>) {
        let (mut held, mut counts) = (Vec::new(), vec![0; clients.len()]);
        for _ in 0..100 {
            for (client, count) in clients.iter().zip(&mut counts) {
                if let Some(share) = shares.take(ip(client)) {
                    held.push(share);
                    *count += 1;
                }
            }
        }
        (held, counts)
    }

    #[test]
    fn greedy_clients_leave_a_part_for_others() {
        let shares = Shares::new(64);
        for (clients, want) in [
            (&["192.0.2.1"][..], &[32][..]),
            (&["192.0.2.1", "192.0.2.2"], &[22, 21]),
            (
                &["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1"],
                &[11, 14, 11, 14],
            ),
            (&["2001:db8::1", "2001:db8::ffff:0:2"], &[16, 16]),
            (&["2001:db8::1", "2001:db8:0:1::1"], &[22, 21]),
        ] {
            let (held, counts) = greedy(&shares, clients);
            assert_eq!(counts, want, "{clients:?}");
            let newcomer = shares.take(ip("198.51.100.1"));
            assert!(newcomer.is_some(), "{clients:?}");
            drop(held);
            assert_eq!(lock(&shares.taken).len(), 1, "only the newcomer is left");
        }
        assert_eq!(lock(&shares.taken).len(), 0);
    }

    #[test]
    fn every_place_can_be_taken_by_clients_that_take_one() {
        let shares = Shares::new(3);
        let held: Vec<_> = (1..=3).map(|n| shares.take(ip(&format!("192.0.2.{n}")))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(shares.take(ip("192.0.2.4")).is_none());
        drop(held);
        assert!(shares.take(ip("192.0.2.4")).is_some());
        assert!(Shares::new(0).take(ip("192.0.2.4")).is_none());
    }
}
