//! Devices that a worker has seen, passed to the database in small numbers, so that a page can say whether a device
//! sends. Memory is bounded, whatever the number of devices. A name that was passed on is repeated after a day at the
//! earliest, as long as it is remembered.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Number of remembered names, a power of two.
const MAX_REMEMBERED: usize = 1 << 16;
/// Number of names that wait.
const MAX_WAITING: usize = 2_000;
const DAY: i64 = 86_400_000;

/// Remembered names and waiting names.
#[derive(Debug, Default)]
pub(crate) struct SeenDevices {
    /// Hash of the last name in each slot; empty until the first name.
    reported: Vec<u64>,
    waiting: Vec<String>,
    day: i64,
}

impl SeenDevices {
    /// Notes a device at a time in milliseconds.
    pub(crate) fn note(&mut self, name: &str, millis: i64) {
        let day = millis.div_euclid(DAY);
        if day != self.day || self.reported.is_empty() {
            (self.reported, self.day) = (vec![0; MAX_REMEMBERED], day);
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let place = &mut self.reported[hash as usize % MAX_REMEMBERED];
        // A name that finds no room comes again with the next snapshot of its series.
        if *place != hash && self.waiting.len() < MAX_WAITING {
            *place = hash;
            self.waiting.push(name.to_owned());
        }
    }

    /// Takes the names that wait to be stored.
    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.waiting)
    }

    /// Forgets which names were passed on, because they could not be stored. They are passed on again.
    pub(crate) fn forget(&mut self) {
        self.reported.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_reported_once_a_day_and_the_number_of_waiting_names_is_bounded() {
        let mut devices = SeenDevices::default();
        (0..9).for_each(|_| devices.note("pump", DAY));
        assert_eq!(devices.take(), ["pump"]);
        devices.note("pump", DAY + 1);
        assert!(devices.take().is_empty());
        devices.note("pump", 2 * DAY);
        assert_eq!(devices.take(), ["pump"]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            (0..10_000).for_each(|i| devices.note(&format!("device-{i}"), 2 * DAY));
            let reported = devices.take();
            assert!(reported.len() <= MAX_WAITING);
            seen.extend(reported);
        }
        assert!(seen.len() == 10_000, "each is reported in the end: {}", seen.len());
    }
}
