//! Finds partitions without progress although records wait in them, and describes partitions that cannot be read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::listed;
use crate::stream::client::ReadFailures;

/// Time without progress after which a reader is reported, although records wait for it.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(60);
/// Additional time for each partition of the reader. While it catches up, the broker sends a part of each in turn.
const TIME_PER_PARTITION: Duration = Duration::from_secs(1);
/// Maximum time between two calls that counts. A process that was suspended does not know what happened meanwhile.
const MAX_CALL_GAP: Duration = Duration::from_secs(2);

/// Share of the time that counts while the reader is busy: one part of this number. The broker then sends a part of each
/// partition in turn.
const BUSY_TIME_SHARE: u32 = 10;

/// A partition that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StandingPartition {
    pub partition: i32,
    /// Offset at which it stands.
    pub offset: i64,
    /// Number of offsets beyond it.
    pub waiting: i64,
    /// Time since which it stands.
    pub since: Duration,
}

/// The offsets of partitions with something beyond them, and the times since which they have not moved.
#[derive(Default)]
pub(crate) struct Standstill(BTreeMap<i32, (i64, Duration)>);

impl Standstill {
    /// Returns the partitions that have not moved for `hold`. `ends` has the offset of each partition, and the end that
    /// it should reach.
    pub(crate) fn watch(
        &mut self,
        now: Duration,
        hold: Duration,
        ends: impl Iterator<Item = (i32, (i64, i64))>,
    ) -> Vec<StandingPartition> {
        let beyond = ends.filter(|(_, (offset, end))| end > offset).collect::<BTreeMap<_, _>>();
        self.0.retain(|partition, _| beyond.contains_key(partition));
        let mut standing = Vec::new();
        for (partition, (offset, end)) in beyond {
            let (stood, since) = self.0.entry(partition).or_insert((offset, now));
            if *stood != offset {
                (*stood, *since) = (offset, now);
            } else if now.saturating_sub(*since) >= hold {
                standing.push(StandingPartition { partition, offset, waiting: end - offset, since: *since });
            }
        }
        standing
    }
}

/// Finds partitions without progress although records wait. Only time in which the reader ran and had no backlog
/// counts. So a slow or suspended process, or one with a backlog, is not reported.
#[derive(Default)]
pub(crate) struct Stall {
    standstill: Standstill,
    counted: Duration,
    looked: Duration,
    is_busy: bool,
}

impl Stall {
    /// Notes that more records may be available than were taken.
    pub(crate) fn note_busy(&mut self) {
        self.is_busy = true;
    }

    /// Discards the times, because an outage that is reported explains them.
    pub(crate) fn reset(&mut self) {
        self.standstill.0.clear();
    }

    /// Returns the partitions that have not moved for a minute, plus `grace`, plus a second for each partition. `ends`
    /// has the offset of each partition, and the end that it should reach.
    pub(crate) fn watch(
        &mut self,
        now: Duration,
        grace: Duration,
        ends: impl Iterator<Item = (i32, (i64, i64))>,
    ) -> Vec<StandingPartition> {
        let passed = now.saturating_sub(self.looked).min(MAX_CALL_GAP);
        self.looked = now;
        self.counted += if std::mem::take(&mut self.is_busy) { passed / BUSY_TIME_SHARE } else { passed };
        let ends = ends.collect::<BTreeMap<_, _>>();
        let hold = STALL_TIME + grace + TIME_PER_PARTITION * u32::try_from(ends.len()).unwrap_or(u32::MAX);
        self.standstill.watch(self.counted, hold, ends.into_iter())
    }

    /// Describes partitions without progress. `done` is what does not happen to the records, such as `judged`.
    pub(crate) fn describe(&self, topic: &str, standing: &[StandingPartition], done: &str) -> Option<String> {
        let place = |standing: &StandingPartition| {
            let StandingPartition { partition, offset, waiting, since } = standing;
            // The message changes once a minute.
            let minutes = self.counted.saturating_sub(*since).as_secs() / 60;
            format!(
                "{topic} [{partition}] offset {offset}: {waiting} records wait, and none was {done} for {minutes} min"
            )
        };
        let places = standing.iter().map(place).collect::<Vec<_>>();
        (!places.is_empty()).then(|| {
            format!(
                "no progress: {}. Check the topic's brokers and leaders, then restart the detector",
                listed(&places)
            )
        })
    }
}

/// Describes partitions that cannot be read. `consequence` says what happens to the records from there on.
pub(crate) fn describe_failures(topic: &str, failures: &ReadFailures, consequence: &str) -> Option<String> {
    let places = failures
        .iter()
        .map(|(partition, failure)| {
            format!("{topic} [{partition}] cannot be read at offset {}: {}", failure.offset, failure.cause)
        })
        .collect::<Vec<_>>();
    (!places.is_empty()).then(|| format!("{}. {consequence}", listed(&places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stands_still_while_records_wait_and_its_offset_does_not_move() {
        let mut stall = Stall::default();
        let mut watch = |second, offset, end| {
            let standing = stall.watch(Duration::from_secs(second), Duration::ZERO, [(3, (offset, end))].into_iter());
            stall.describe("raw", &standing, "judged")
        };
        for second in 0..200 {
            assert_eq!(watch(second, second as i64 / 30, 500), None, "it moves every 30 s");
        }
        assert_eq!(watch(200, 7, 7), None, "nothing waits");
        for second in 201..262 {
            assert_eq!(watch(second, 7, 8), None, "a record arrived a minute ago");
        }
        let text = watch(262, 7, 10).unwrap();
        assert!(
            text.starts_with("no progress: raw [3] offset 7: 3 records wait, and none was judged for 1 min"),
            "{text}"
        );
        assert_eq!(watch(263, 8, 10), None);
    }

    #[test]
    fn time_in_which_the_reader_is_suspended_busy_or_has_many_partitions_is_no_standstill() {
        let at = Duration::from_secs;
        let stands = |stall: &mut Stall, second, partitions| {
            !stall.watch(at(second), Duration::ZERO, (0..partitions).map(|n| (n, (5, 9)))).is_empty()
        };
        let mut stall = Stall::default();
        assert!((0..40).all(|second| !stands(&mut stall, second, 1)));
        assert!(!stands(&mut stall, 1_000, 1), "it was suspended");
        let busy = |stall: &mut Stall, second| {
            stall.note_busy();
            stands(stall, second, 1)
        };
        assert!((1_001..1_100).all(|second| !busy(&mut stall, second)), "it has a backlog");
        assert!((1_100..1_230).any(|second| busy(&mut stall, second)), "also a busy reader moves in minutes");
        stall.reset();
        assert!((1_230..1_330).all(|second| !stands(&mut stall, second, 40)), "each partition has its turn");
        assert!((1_330..1_340).any(|second| stands(&mut stall, second, 40)));
    }
}
