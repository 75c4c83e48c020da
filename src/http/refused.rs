//! Addresses that have cost too much: none of their connections gets as far as `tiny_http`.
//!
//! A request that can never be dropped costs its thread as soon as `tiny_http` has read it, so closing a connection then is
//! too late. The kernel is told instead, by a filter at the listening socket, to let nothing of such an address through. It
//! must not know what such a request is.
//!
//! Lock rule: the one lock guards the list alone.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Forgiven to an address: somebody who tries something out, or a page that sends a huge file once.
const FORGIVEN: u32 = 5;

/// After so long one is forgiven that was held against an address. In an hour it can cost six threads and those five.
const FORGIVEN_EACH: Duration = Duration::from_secs(600);

/// Addresses that something is held against. The kernel's filter has a few steps for each, and can jump no further than 255.
const MAX_ADDRESSES: usize = 32;

/// What addresses have cost.
#[derive(Debug, Default)]
pub(super) struct Refused {
    list: Mutex<Vec<Offender>>,
    /// Somebody has come to cost too much since this was asked last.
    has_grown: AtomicBool,
}

#[derive(Debug)]
struct Offender {
    network: IpAddr,
    count: u32,
    /// From when on the next one is forgiven.
    since: Instant,
}

/// Who of a network is who cannot be told: with IPv6 each house has 2^64 addresses.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

impl Refused {
    /// This address has cost something for good.
    pub(super) fn add(&self, address: IpAddr, now: Instant) {
        let network = network_of(address);
        let mut list = self.list.lock();
        forgive(&mut list, now);
        if let Some(offender) = list.iter_mut().find(|offender| offender.network == network) {
            offender.count = (offender.count + 1).min(2 * FORGIVEN);
            self.has_grown.fetch_or(offender.count > FORGIVEN, Ordering::Release);
            return;
        }
        if list.len() >= MAX_ADDRESSES {
            // The one that has cost least has to make room.
            let least = (0..list.len()).min_by_key(|index| list[*index].count);
            least.map(|index| list.swap_remove(index));
        }
        list.push(Offender { network, count: 1, since: now });
    }

    /// Whether there may be more of them than when this was asked last.
    pub(super) fn has_grown(&self) -> bool {
        self.has_grown.load(Ordering::Relaxed) && self.has_grown.swap(false, Ordering::Acquire)
    }

    /// Nothing is let through of these, but for `exempt`, where the server asks itself.
    pub(super) fn networks(&self, exempt: IpAddr, now: Instant) -> Vec<IpAddr> {
        let mut list = self.list.lock();
        forgive(&mut list, now);
        let refused = list.iter().filter(|offender| offender.count > FORGIVEN);
        let mut networks: Vec<_> = refused.map(|offender| offender.network).collect();
        drop(list);
        networks.retain(|network| *network != network_of(exempt));
        networks.sort_unstable();
        networks
    }

    /// Whether an address is of one of these.
    pub(super) fn has(networks: &[IpAddr], address: IpAddr) -> bool {
        networks.contains(&network_of(address))
    }
}

fn forgive(list: &mut Vec<Offender>, now: Instant) {
    for offender in &mut *list {
        while offender.count > 0 && now.saturating_duration_since(offender.since) >= FORGIVEN_EACH {
            offender.count -= 1;
            offender.since += FORGIVEN_EACH;
        }
    }
    list.retain(|offender| offender.count > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn past_a_few_an_address_is_refused_until_it_is_forgiven() {
        let (refused, start) = (Refused::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        for _ in 0..FORGIVEN {
            refused.add(ip("192.0.2.1"), start);
            refused.add(ip("2001:db8::1:2:3:4"), start);
        }
        assert!(refused.networks(NOBODY, start).is_empty());
        refused.add(ip("::ffff:192.0.2.1"), start);
        refused.add(ip("2001:db8::5:6:7:8"), start);
        let networks = refused.networks(NOBODY, start);
        assert_eq!(networks, [ip("192.0.2.1"), ip("2001:db8::")]);
        assert!(Refused::has(&networks, ip("::ffff:192.0.2.1")) && !Refused::has(&networks, ip("192.0.2.2")));
        assert_eq!(refused.networks(ip("192.0.2.1"), start), [ip("2001:db8::")]);
        assert_eq!(refused.networks(NOBODY, at(9)).len(), 2);
        assert!(refused.networks(NOBODY, at(10)).is_empty());
        refused.add(ip("192.0.2.1"), at(11));
        assert_eq!(refused.networks(NOBODY, at(11)), [ip("192.0.2.1")], "little is forgiven at once");
        assert!(refused.networks(NOBODY, at(200)).is_empty() && refused.list.lock().is_empty());
    }

    #[test]
    fn the_list_is_bounded_and_those_that_cost_most_stay() {
        let (refused, now) = (Refused::default(), Instant::now());
        (0..9).for_each(|_| refused.add(ip("192.0.2.1"), now));
        for number in 0..10_000_u32 {
            refused.add(IpAddr::V4((0x0a00_0000 + number).into()), now);
        }
        assert_eq!(refused.list.lock().len(), MAX_ADDRESSES);
        assert_eq!(refused.networks(NOBODY, now), [ip("192.0.2.1")]);
    }
}
