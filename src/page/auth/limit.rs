//! Limits the rate of login attempts: few failures per address, per network and per user name within some minutes.
//! Failures of others for a name do not lock its owner out: each other address keeps a few attempts for this name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a failure counts.
const WHILE: Duration = Duration::from_secs(300);
/// Maximum number of failures from one address.
const FROM_ADDRESS: usize = 10;
/// Maximum number of failures from one network of many addresses.
const FROM_NETWORK: usize = 30;
/// Number of failures for one name, from all addresses, after which each address has few attempts for this name.
const FOR_NAME: usize = 30;
/// Maximum number of failures of one address for a name with [`FOR_NAME`] failures.
const FOR_GUESSED_NAME: usize = 3;
/// Maximum number of addresses and names whose failures are remembered; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 100_000;
/// Maximum number of pairs of name and address that are remembered after a successful login.
const KNOWN: usize = 10_000;
/// Minimum number of bits of an IPv6 address that a provider assigns to one customer.
const CUSTOMER: u32 = 64;
/// Number of bits of an IPv6 address that a provider assigns to one site of a customer, with 65,536 networks.
const SITE: u32 = 48;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Network(IpAddr),
    Name(String),
    NameAt(String, IpAddr),
}

#[derive(Default)]
struct LoginHistory {
    failures: HashMap<Whose, Vec<Instant>>,
    known: HashMap<(IpAddr, String), Instant>,
}

/// Failures within the last minutes.
#[derive(Default)]
pub(crate) struct LoginLimit(Mutex<LoginHistory>);

/// An attempt that counts as a failure until it is known to be none. Attempts at the same time can therefore not exceed
/// a limit.
#[must_use]
pub(crate) struct Attempt {
    from: IpAddr,
    name: String,
    at: Instant,
}

impl LoginLimit {
    fn lock(&self) -> MutexGuard<'_, LoginHistory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt as a failure; `None` if no further attempt is allowed.
    pub(crate) fn begin(&self, from: IpAddr, name: &str) -> Option<Attempt> {
        let attempt = Attempt { from: customer(from), name: name.chars().take(256).collect(), at: Instant::now() };
        let state = &mut *self.lock();
        if !state.allows(&attempt) {
            return None;
        }
        let failures = &mut state.failures;
        if failures.len() + attempt.all().len() > MAX_REMEMBERED {
            failures.retain(|_, times| times.last().is_some_and(|time| time.elapsed() < WHILE));
        }
        for whose in attempt.all() {
            if failures.len() >= MAX_REMEMBERED
                && let Some(oldest) =
                    failures.iter().min_by_key(|(_, times)| times.last().copied()).map(|(w, _)| w.clone())
            {
                failures.remove(&oldest);
            }
            failures.entry(whose).or_default().push(attempt.at);
        }
        Some(attempt)
    }

    /// Forgets an attempt that did not fail.
    pub(crate) fn forgive(&self, attempt: &Attempt) {
        let failures = &mut self.lock().failures;
        for whose in attempt.all() {
            if let Some(times) = failures.get_mut(&whose) {
                if let Some(at) = times.iter().position(|time| *time == attempt.at) {
                    times.remove(at);
                }
                if times.is_empty() {
                    failures.remove(&whose);
                }
            }
        }
    }

    /// Forgets an attempt that was a successful login, and remembers its address for its name.
    pub(crate) fn succeeded(&self, attempt: &Attempt) {
        self.forgive(attempt);
        let known = &mut self.lock().known;
        if known.len() >= KNOWN
            && let Some(oldest) = known.iter().min_by_key(|(_, time)| **time).map(|(pair, _)| pair.clone())
        {
            known.remove(&oldest);
        }
        known.insert((attempt.from, attempt.name.clone()), Instant::now());
    }
}

impl LoginHistory {
    fn allows(&mut self, attempt: &Attempt) -> bool {
        let is_known = self.known.contains_key(&(attempt.from, attempt.name.clone()));
        let [address, network, name, name_at] = attempt.all().map(|whose| {
            self.failures.get_mut(&whose).map_or(0, |times| {
                times.retain(|time| time.elapsed() < WHILE);
                times.len()
            })
        });
        let may_guess = name < FOR_NAME || name_at < FOR_GUESSED_NAME;
        address < FROM_ADDRESS && (is_known || network < FROM_NETWORK && may_guess)
    }
}

impl Attempt {
    fn all(&self) -> [Whose; 4] {
        let (from, name) = (self.from, self.name.clone());
        [Whose::Address(from), Whose::Network(network(from)), Whose::Name(name.clone()), Whose::NameAt(name, from)]
    }
}

/// Returns one address for all addresses of a customer, because IPv6 gives each customer an enormous number of them.
fn customer(address: IpAddr) -> IpAddr {
    first(address, CUSTOMER)
}

/// Returns one address for the network of an address, which contains all addresses that a provider assigns to one site.
/// An IPv4 address is a network of its own.
pub(super) fn network(address: IpAddr) -> IpAddr {
    first(address, SITE)
}

fn first(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> (128 - bits) << (128 - bits)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Returns an address of a network that no other number has.
    fn elsewhere(number: u32) -> IpAddr {
        Ipv6Addr::from_bits(u128::from(number) << (128 - SITE)).into()
    }

    fn fail(limit: &LoginLimit, from: IpAddr, name: &str) -> bool {
        limit.begin(from, name).is_some()
    }

    #[test]
    fn failures_of_others_do_not_lock_the_owner_of_a_name_out() {
        let limit = LoginLimit::default();
        let known = limit.begin(ip("10.0.0.1"), "ada").unwrap();
        limit.succeeded(&known);
        (1..=500).for_each(|i| assert!(fail(&limit, elsewhere(i), "ada")));
        let attempts = |from: &str| (0..20).filter(|_| fail(&limit, ip(from), "ada")).count();
        assert_eq!(attempts("10.0.0.2"), FOR_GUESSED_NAME, "an address that is new");
        assert_eq!(attempts("10.0.0.1"), FROM_ADDRESS, "an address from which she has logged in");
        assert!(fail(&limit, ip("10.0.0.2"), "bob"), "another name");
    }

    #[test]
    fn an_attempt_counts_until_it_is_forgiven() {
        let limit = LoginLimit::default();
        let from = ip("10.0.0.1");
        let attempts = (0..FROM_ADDRESS).map(|_| limit.begin(from, "ada").unwrap()).collect::<Vec<_>>();
        assert!(limit.begin(from, "ada").is_none(), "all are still being checked");
        attempts.iter().for_each(|attempt| limit.forgive(attempt));
        assert!(limit.lock().failures.is_empty());
        for _ in 0..3 * FOR_NAME {
            limit.succeeded(&limit.begin(from, "ada").unwrap());
        }
    }

    #[test]
    fn the_addresses_of_one_ipv6_customer_and_of_one_site_count_together() {
        let limit = LoginLimit::default();
        let from = |address: String| fail(&limit, ip(&address), &address);
        assert_eq!((0..300).filter(|i| from(format!("2001:db8::{i:x}"))).count(), FROM_ADDRESS);
        assert!(from("2001:db8:0:1::".into()), "another customer");
        let of_site = (2..300).filter(|i| from(format!("2001:db8:0:{i:x}::1"))).count();
        assert_eq!(of_site, FROM_NETWORK - FROM_ADDRESS - 1);
        assert!(from("2001:db8:1::1".into()), "another site");
    }

    #[test]
    fn a_flood_of_addresses_is_forgotten_and_locks_no_user_out() {
        let limit = LoginLimit::default();
        (0..MAX_REMEMBERED as u32 / 4 + 10)
            .for_each(|i| assert!(fail(&limit, IpAddr::from(i.to_be_bytes()), &i.to_string())));
        assert!(limit.lock().failures.len() <= MAX_REMEMBERED);
        assert!(fail(&limit, ip("192.0.2.1"), "ada"));
    }
}
