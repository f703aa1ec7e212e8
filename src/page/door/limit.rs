//! How often a password may be tried: few failures from one address, few for one name, in a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For this long a failure counts.
const WHILE: Duration = Duration::from_secs(300);
/// Failures from one address.
const FROM_ONE: usize = 10;
/// Failures for one name, from wherever.
const FOR_ONE: usize = 30;
/// Most that is remembered; the rest of the world is refused meanwhile.
const MOST: usize = 100_000;

#[derive(PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Name(String),
}

/// Failures of the last while.
#[derive(Default)]
pub struct Limit(Mutex<HashMap<Whose, Vec<Instant>>>);

impl Limit {
    /// Whether another attempt is allowed.
    pub fn may_try(&self, from: IpAddr, name: &str) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST {
            failures.retain(|_, times| times.iter().any(|time| time.elapsed() < WHILE));
        }
        let mut count = |whose: &Whose| {
            failures.get_mut(whose).map_or(0, |times| {
                times.retain(|time| time.elapsed() < WHILE);
                times.len()
            })
        };
        let is_few = count(&Whose::Address(from)) < FROM_ONE && count(&Whose::Name(name.to_owned())) < FOR_ONE;
        is_few && failures.len() < MOST
    }

    /// Takes note of one.
    pub fn failed(&self, from: IpAddr, name: &str) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.chars().take(256).collect();
        for whose in [Whose::Address(from), Whose::Name(name)] {
            failures.entry(whose).or_default().push(Instant::now());
        }
    }
}
