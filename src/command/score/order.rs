//! Checks whether the times of a series go backwards.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::event::Timestamp;

/// Time of the newest event of each series, by the hash of its name. Two series with the same hash are improbable, and
/// would only cause a wrong warning.
#[derive(Debug, Default)]
pub(crate) struct TimeOrder(HashMap<u64, Timestamp, BuildHasherDefault<AsItIs>>);

impl TimeOrder {
    /// Notes the next time of a series; returns whether it is before the previous one.
    pub(crate) fn is_backwards(&mut self, series: u64, time: Timestamp) -> bool {
        self.0.insert(series, time).is_some_and(|before| time < before)
    }
}

/// A hasher for values that are already hashes.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
