//! How often a password may be tried: few failures from one address, few for one name, in a while. Who has logged in from an
//! address before is not kept out there by what others try for the name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For this long a failure counts.
const WHILE: Duration = Duration::from_secs(300);
/// Failures from one address.
const FROM_ONE: usize = 10;
/// Failures for one name, from wherever.
const FOR_ONE: usize = 30;
/// Most addresses and names whose failures are remembered; the oldest are forgotten first.
const MOST: usize = 100_000;
/// Most pairs of name and address that are remembered for a login that succeeded.
const KNOWN: usize = 10_000;
/// Bits of an IPv6 address that a provider gives to one customer, at least.
const CUSTOMER: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Name(String),
}

#[derive(Default)]
struct State {
    failures: HashMap<Whose, Vec<Instant>>,
    known: HashMap<(IpAddr, String), Instant>,
}

/// Failures of the last while.
#[derive(Default)]
pub struct LoginLimit(Mutex<State>);

impl LoginLimit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another attempt is allowed.
    pub fn may_try(&self, from: IpAddr, name: &str) -> bool {
        let (from, name) = (customer(from), short(name));
        let state = &mut *self.lock();
        let mut count = |whose: &Whose| {
            state.failures.get_mut(whose).map_or(0, |times| {
                times.retain(|time| time.elapsed() < WHILE);
                times.len()
            })
        };
        let is_few = count(&Whose::Address(from)) < FROM_ONE;
        is_few && (count(&Whose::Name(name.clone())) < FOR_ONE || state.known.contains_key(&(from, name)))
    }

    /// Takes note of a failure.
    pub fn failed(&self, from: IpAddr, name: &str) {
        let failures = &mut self.lock().failures;
        if failures.len() + 1 >= MOST {
            failures.retain(|_, times| times.last().is_some_and(|time| time.elapsed() < WHILE));
        }
        for whose in [Whose::Address(customer(from)), Whose::Name(short(name))] {
            if failures.len() >= MOST
                && let Some(oldest) =
                    failures.iter().min_by_key(|(_, times)| times.last().copied()).map(|(w, _)| w.clone())
            {
                failures.remove(&oldest);
            }
            failures.entry(whose).or_default().push(Instant::now());
        }
    }

    /// Takes note of a login.
    pub fn succeeded(&self, from: IpAddr, name: &str) {
        let known = &mut self.lock().known;
        if known.len() >= KNOWN
            && let Some(oldest) = known.iter().min_by_key(|(_, time)| **time).map(|(pair, _)| pair.clone())
        {
            known.remove(&oldest);
        }
        known.insert((customer(from), short(name)), Instant::now());
    }
}

/// One address of a customer stands for all: IPv6 gives each more than can be counted.
fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> (128 - CUSTOMER) << (128 - CUSTOMER)).into(),
        v4 => v4,
    }
}

fn short(name: &str) -> String {
    name.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn others_cannot_keep_out_who_has_logged_in_from_an_address_before() {
        let limit = LoginLimit::default();
        limit.succeeded(ip("10.0.0.1"), "ada");
        (0..FOR_ONE as u32).for_each(|i| limit.failed(Ipv6Addr::from_bits(u128::from(i) << 64).into(), "ada"));
        assert!(limit.may_try(ip("10.0.0.1"), "ada"));
        assert!(!limit.may_try(ip("10.0.0.2"), "ada"), "guessing from many addresses is limited");
        (0..FROM_ONE).for_each(|_| limit.failed(ip("10.0.0.1"), "ada"));
        assert!(!limit.may_try(ip("10.0.0.1"), "ada"));
    }

    #[test]
    fn the_addresses_of_one_ipv6_customer_are_one() {
        let limit = LoginLimit::default();
        (0..FROM_ONE).for_each(|i| limit.failed(ip(&format!("2001:db8::{i}")), &i.to_string()));
        assert!(!limit.may_try(ip("2001:db8::ffff"), "x") && limit.may_try(ip("2001:db8:0:1::"), "x"));
    }

    #[test]
    fn a_flood_of_addresses_is_forgotten_and_keeps_nobody_out() {
        let limit = LoginLimit::default();
        (0..MOST as u32 / 2 + 10).for_each(|i| limit.failed(IpAddr::from(i.to_be_bytes()), &i.to_string()));
        assert!(limit.lock().failures.len() <= MOST);
        assert!(limit.may_try(ip("192.0.2.1"), "ada"));
    }
}
