//! Limits the rate of login attempts: few failures per address and per user name within some minutes. Failures of
//! others for a name do not lock out an address from which that user has logged in before.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a failure counts.
const WHILE: Duration = Duration::from_secs(300);
/// Maximum number of failures from one address.
const FROM_ONE: usize = 10;
/// Maximum number of failures for one name, from all addresses.
const FOR_ONE: usize = 30;
/// Maximum number of addresses and names whose failures are remembered; the oldest are forgotten first.
const MOST: usize = 100_000;
/// Maximum number of pairs of name and address that are remembered after a successful login.
const KNOWN: usize = 10_000;
/// Minimum number of bits of an IPv6 address that a provider assigns to one customer.
const CUSTOMER: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Name(String),
}

#[derive(Default)]
struct LoginHistory {
    failures: HashMap<Whose, Vec<Instant>>,
    known: HashMap<(IpAddr, String), Instant>,
}

/// Failures within the last minutes.
#[derive(Default)]
pub(crate) struct LoginLimit(Mutex<LoginHistory>);

impl LoginLimit {
    fn lock(&self) -> MutexGuard<'_, LoginHistory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether another attempt is allowed.
    pub(crate) fn may_try(&self, from: IpAddr, name: &str) -> bool {
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

    /// Counts a failed login of a name from an address.
    pub(crate) fn failed(&self, from: IpAddr, name: &str) {
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

    /// Remembers a successful login of a name from an address.
    pub(crate) fn succeeded(&self, from: IpAddr, name: &str) {
        let known = &mut self.lock().known;
        if known.len() >= KNOWN
            && let Some(oldest) = known.iter().min_by_key(|(_, time)| **time).map(|(pair, _)| pair.clone())
        {
            known.remove(&oldest);
        }
        known.insert((customer(from), short(name)), Instant::now());
    }
}

/// Returns one address for all addresses of a customer, because IPv6 gives each customer an enormous number of them.
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
    fn failures_of_others_do_not_lock_out_a_known_address() {
        let limit = LoginLimit::default();
        limit.succeeded(ip("10.0.0.1"), "ada");
        (0..FOR_ONE as u32).for_each(|i| limit.failed(Ipv6Addr::from_bits(u128::from(i) << 64).into(), "ada"));
        assert!(limit.may_try(ip("10.0.0.1"), "ada"));
        assert!(!limit.may_try(ip("10.0.0.2"), "ada"), "guessing from many addresses is limited");
        (0..FROM_ONE).for_each(|_| limit.failed(ip("10.0.0.1"), "ada"));
        assert!(!limit.may_try(ip("10.0.0.1"), "ada"));
    }

    #[test]
    fn the_addresses_of_one_ipv6_customer_count_as_one() {
        let limit = LoginLimit::default();
        (0..FROM_ONE).for_each(|i| limit.failed(ip(&format!("2001:db8::{i}")), &i.to_string()));
        assert!(!limit.may_try(ip("2001:db8::ffff"), "x") && limit.may_try(ip("2001:db8:0:1::"), "x"));
    }

    #[test]
    fn a_flood_of_addresses_is_forgotten_and_locks_no_user_out() {
        let limit = LoginLimit::default();
        (0..MOST as u32 / 2 + 10).for_each(|i| limit.failed(IpAddr::from(i.to_be_bytes()), &i.to_string()));
        assert!(limit.lock().failures.len() <= MOST);
        assert!(limit.may_try(ip("192.0.2.1"), "ada"));
    }
}
