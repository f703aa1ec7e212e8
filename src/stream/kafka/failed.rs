//! Tracks the partitions that librdkafka cannot read at an offset.
//!
//! After an error, librdkafka may continue after it, at a wrong offset, or not at all. So everything that arrives from
//! the partition after the error is discarded. From time to time another client reads the partition from its next
//! record, because its leader may have an intact replica by then. Once this succeeds, the first client continues there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaRespErr;

use crate::stream::client::{OversizedBatch, Positions, ReadFailure, ReadFailures};

/// First and longest pause before a partition is read again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Maximum number of partitions that other clients read at the same time. Each client has threads and connections.
const READS: usize = 4;

/// Number of failed reads after which a failure is reported. A broker can refuse a single read for a passing reason.
const REPORTED: u32 = 2;
/// Number of failed reads after which a damaged batch may be skipped. A fault of the network often ends earlier.
const ATTEMPTS: u32 = 3;

/// A failed read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub what: ReadFailure,
    /// Whether the records are damaged or expand too much. Other causes may pass, so such records are never skipped.
    pub is_damage: bool,
}

impl Failure {
    /// Creates the failure for a code of librdkafka and its description. Only errors of librdkafka's own check name the
    /// first offset of the batch. An error that the broker reports names the offset of the fetch, so the extent of the
    /// batch is unknown, and it is not skipped.
    pub(super) fn new(offset: i64, code: RDKafkaRespErr, cause: String) -> Self {
        let is_damage = matches!(
            code,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_COMPRESSION
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED
        );
        Failure { what: ReadFailure { offset, cause }, is_damage }
    }

    /// Creates the failure for a batch that exceeds the limits.
    pub(super) fn oversized(batch: &OversizedBatch) -> Self {
        let what = ReadFailure { offset: batch.offsets.start, cause: batch.to_string() };
        Failure { what, is_damage: true }
    }
}

/// Result of another read of a partition that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RepeatedRead {
    /// A record or the end of the partition was read.
    Readable,
    /// The read failed again. The offsets of the batch are known if they were wanted, and the batch is damaged.
    Failed(Failure, Option<Range<i64>>),
}

/// What arrived from a partition at an offset.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A record.
    Record,
    /// The end of the partition, which is at this offset.
    End,
    /// An error at this offset.
    Failure(Failure),
    /// An error that does not concern this offset.
    Other,
}

/// The steps after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryStep {
    /// The partition must be paused.
    New,
    /// Another client reads the partition at this time.
    Waits(Instant),
    /// Another client is reading the partition from this offset.
    IsRead(i64),
    /// The first client continues. Its next record ends the failure.
    Continues,
}

/// A failure, and what follows.
struct HeldFailure {
    failure: Failure,
    step: RetryStep,
    pause: Duration,
    /// Number of reads that failed at this offset.
    attempts: u32,
    is_reported: bool,
    /// Offsets of the damaged batch from the next offset on, if they were wanted.
    extent: Option<Range<i64>>,
    wants_extent: bool,
}

/// A read by another client that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DueRead {
    pub partition: i32,
    pub from: i64,
    pub wants_extent: bool,
}

/// The next offset of each partition, and the partitions that cannot be read there.
#[derive(Default)]
pub(super) struct FailedPartitions {
    next: Positions,
    held: BTreeMap<i32, HeldFailure>,
}

impl FailedPartitions {
    /// Creates the state of partitions that are read from these offsets.
    pub(crate) fn new(next: Positions) -> Self {
        FailedPartitions { next, held: BTreeMap::new() }
    }

    /// Returns whether no partition has failed, so that arrivals need no check.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the failures to report.
    pub(crate) fn failures(&self) -> ReadFailures {
        let reported = self.held.iter().filter(|(_, held)| held.is_reported);
        reported.map(|(partition, held)| (*partition, held.failure.what.clone())).collect()
    }

    /// Returns the failure of a partition, also after a single failed read.
    pub(crate) fn failure(&self, partition: i32) -> Option<&Failure> {
        self.held.get(&partition).map(|held| &held.failure)
    }

    /// Returns whether the first client does not read the partition now.
    pub(crate) fn is_stopped(&self, partition: i32) -> bool {
        self.held.get(&partition).is_some_and(|held| held.step != RetryStep::Continues)
    }

    /// Notes the next offset of a partition.
    pub(crate) fn advance(&mut self, partition: i32, next: i64) {
        self.next.insert(partition, next);
    }

    fn next(&self, partition: i32, failure: &Failure) -> i64 {
        self.next.get(&partition).copied().unwrap_or(failure.what.offset)
    }

    /// Notes an arrival. Returns whether the reader gets it.
    pub(crate) fn note(&mut self, partition: i32, offset: i64, arrival: Arrival) -> bool {
        if self.is_stopped(partition) {
            return false;
        }
        let is_end = matches!(arrival, Arrival::End);
        match arrival {
            Arrival::Record | Arrival::End => {
                if self.held.get(&partition).is_some_and(|held| offset >= held.failure.what.offset) {
                    self.held.remove(&partition);
                }
                self.advance(partition, if is_end { offset } else { offset + 1 });
                true
            }
            Arrival::Other => true,
            Arrival::Failure(failure) => {
                self.fail(partition, failure, RetryStep::New);
                false
            }
        }
    }

    fn fail(&mut self, partition: i32, failure: Failure, step: RetryStep) {
        let held = self.held.entry(partition).or_insert_with(|| HeldFailure {
            failure: failure.clone(),
            step,
            pause: FIRST_PAUSE,
            attempts: 0,
            is_reported: false,
            extent: None,
            wants_extent: false,
        });
        let is_same = held.failure.what.offset == failure.what.offset;
        held.attempts = if is_same { held.attempts + 1 } else { 1 };
        held.pause = if is_same && held.attempts > 1 { (held.pause * 2).min(MAX_PAUSE) } else { FIRST_PAUSE };
        // A partition that now fails at another offset is reported too.
        held.is_reported |= held.attempts >= REPORTED || !is_same;
        (held.failure, held.step, held.extent) = (failure, step, None);
    }

    /// Returns partitions that have failed since the last call, to be paused.
    pub(crate) fn take_new(&mut self, now: Instant) -> Vec<i32> {
        let new = self.held.iter_mut().filter(|(_, held)| held.step == RetryStep::New);
        new.map(|(partition, held)| {
            held.step = RetryStep::Waits(now + held.pause);
            *partition
        })
        .collect()
    }

    /// Returns the partitions that another client must read now; at most [`READS`] are read at once, the one that waits
    /// for longest first.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<DueRead> {
        let running = self.held.values().filter(|held| matches!(held.step, RetryStep::IsRead(_))).count();
        let due = self.held.iter().filter_map(|(partition, held)| match held.step {
            RetryStep::Waits(at) if at <= now => Some((at, *partition, held)),
            _ => None,
        });
        let mut due = due.collect::<Vec<_>>();
        due.sort_by_key(|(at, ..)| *at);
        due.truncate(READS.saturating_sub(running));
        let due = due.into_iter().map(|(_, partition, held)| DueRead {
            partition,
            from: self.next(partition, &held.failure),
            wants_extent: held.wants_extent && held.attempts + 1 >= ATTEMPTS,
        });
        let due = due.collect::<Vec<_>>();
        for read in &due {
            if let Some(held) = self.held.get_mut(&read.partition) {
                held.step = RetryStep::IsRead(read.from);
            }
        }
        due
    }

    /// Notes the result of a read by another client; `None` without an answer. Returns the offset at which the first client
    /// continues, if the partition can be read.
    pub(crate) fn note_read(&mut self, now: Instant, partition: i32, result: Option<RepeatedRead>) -> Option<i64> {
        let held = self.held.get_mut(&partition)?;
        let RetryStep::IsRead(from) = held.step else { return None };
        let again = RetryStep::Waits(now + held.pause);
        match result {
            // The reader has been rewound meanwhile.
            _ if self.next.get(&partition).is_some_and(|next| *next != from) => held.step = RetryStep::Waits(now),
            None => held.step = again,
            Some(RepeatedRead::Readable) => {
                held.step = RetryStep::Continues;
                return Some(from);
            }
            Some(RepeatedRead::Failed(failure, extent)) => {
                self.fail(partition, failure, again);
                if let Some(held) = self.held.get_mut(&partition) {
                    (held.step, held.extent) = (RetryStep::Waits(now + held.pause), extent);
                }
            }
        }
        None
    }

    /// Skips the damaged batch at which a partition has failed often enough. Returns its offsets; `None` if they are
    /// not known yet. A later read then finds them.
    pub(crate) fn skip(&mut self, now: Instant, partition: i32) -> Option<Range<i64>> {
        let held = self.held.get_mut(&partition)?;
        held.wants_extent = true;
        let range = held.extent.take()?;
        // The next read begins after the batch.
        (held.step, held.attempts, held.pause) = (RetryStep::Waits(now), 0, FIRST_PAUSE);
        self.next.insert(partition, range.end);
        Some(range)
    }

    /// Notes that partitions must be read from other offsets.
    pub(crate) fn rewind(&mut self, now: Instant, to: &Positions) {
        for (partition, next) in to {
            let was = self.next.insert(*partition, *next);
            let Some(held) = self.held.get_mut(partition).filter(|_| was != Some(*next)) else { continue };
            held.extent = None;
            if matches!(held.step, RetryStep::Waits(_)) {
                held.step = RetryStep::Waits(now);
            }
        }
    }

    /// Discards the failure of a partition that need not be read further.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.held.remove(&partition);
    }
}

/// Returns whether an error means that the partition cannot be read at the offset of the error. The others concern the
/// offset itself, the topic or the client.
pub(super) fn is_failure(code: RDKafkaRespErr) -> bool {
    !matches!(
        code,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(offset: i64) -> Failure {
        Failure::new(offset, RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG, "damaged".into())
    }

    /// Returns the state after a record at offset 5 of partition 0, and a failure at offset 6.
    fn failed(now: Instant) -> FailedPartitions {
        let mut partitions = FailedPartitions::new(Positions::from([(0, 5), (1, 0)]));
        assert!(partitions.note(0, 5, Arrival::Record));
        assert!(!partitions.note(0, 6, Arrival::Failure(failure(6))));
        assert_eq!((partitions.take_new(now), partitions.take_new(now)), (vec![0], vec![]));
        partitions
    }

    fn due(from: i64, wants_extent: bool) -> Vec<DueRead> {
        vec![DueRead { partition: 0, from, wants_extent }]
    }

    #[test]
    fn what_follows_a_failure_is_discarded_until_another_client_can_read_the_partition() {
        let mut now = Instant::now();
        let mut partitions = failed(now);
        for arrival in [Arrival::Record, Arrival::End, Arrival::Other, Arrival::Failure(failure(9))] {
            assert!(!partitions.note(0, 9, arrival), "librdkafka has passed the failure");
        }
        assert!(partitions.note(1, 0, Arrival::Record), "the other partition is read");
        assert_eq!(partitions.failures(), ReadFailures::new(), "a single failure may pass");
        assert_eq!(partitions.take_due(now), []);
        // Each read that fails again doubles the pause.
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            now += Duration::from_secs(pause);
            assert_eq!(partitions.take_due(now - Duration::from_millis(1)), [], "{pause} s");
            assert_eq!(partitions.take_due(now), due(6, false), "{pause} s");
            assert_eq!(partitions.take_due(now), [], "one read at a time");
            assert_eq!(partitions.note_read(now, 0, Some(RepeatedRead::Failed(failure(6), None))), None);
            assert_eq!(partitions.failures(), ReadFailures::from([(0, failure(6).what)]));
        }
        now += MAX_PAUSE;
        assert_eq!(partitions.take_due(now), due(6, false));
        assert_eq!(partitions.note_read(now, 0, None), None, "without an answer it waits");
        now += MAX_PAUSE;
        assert_eq!(partitions.take_due(now), due(6, false));
        assert_eq!(partitions.note_read(now, 0, Some(RepeatedRead::Readable)), Some(6));
        // The failure ends with a record at its offset.
        assert_eq!(partitions.failures().len(), 1);
        assert!(partitions.note(0, 6, Arrival::Record));
        assert!(partitions.is_empty());
    }

    #[test]
    fn an_error_that_the_broker_reports_is_no_damage_whose_extent_can_be_found() {
        let is_damage = |code| Failure::new(6, code, String::new()).is_damage;
        assert!(is_damage(RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_COMPRESSION));
        assert!(!is_damage(RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG));
        assert!(!is_damage(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN));
    }

    #[test]
    fn other_clients_read_only_some_of_many_failed_partitions_at_once_and_all_in_turn() {
        let mut now = Instant::now();
        let mut partitions = FailedPartitions::new((0..10).map(|partition| (partition, 6)).collect());
        for partition in 0..10 {
            assert!(!partitions.note(partition, 6, Arrival::Failure(failure(6))));
        }
        assert_eq!(partitions.take_new(now).len(), 10);
        let mut read = Vec::new();
        for _ in 0..3 {
            now += FIRST_PAUSE;
            let due = partitions.take_due(now);
            assert!((1..=READS).contains(&due.len()));
            assert_eq!(partitions.take_due(now), [], "no more at once");
            for DueRead { partition, from, .. } in due {
                assert_eq!(partitions.note_read(now, partition, Some(RepeatedRead::Readable)), Some(from));
                read.push(partition);
            }
        }
        read.sort_unstable();
        assert_eq!(read, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_batch_is_skipped_after_some_reads_and_never_across_a_rewind() {
        let mut now = Instant::now();
        let mut partitions = failed(now);
        let mut fail = |partitions: &mut FailedPartitions, from, wants| {
            now += MAX_PAUSE;
            assert_eq!(partitions.take_due(now), due(from, wants));
            partitions.note_read(now, 0, Some(RepeatedRead::Failed(failure(6), wants.then_some(6..9))));
            now
        };
        let now = fail(&mut partitions, 6, false);
        assert_eq!(partitions.skip(now, 0), None, "the offsets are not known yet");
        let now = fail(&mut partitions, 6, true);
        // The records before the failure were not committed, and must be read again.
        partitions.rewind(now, &Positions::from([(0, 4), (1, 0)]));
        assert_eq!(partitions.skip(now, 0), None);
        assert_eq!(partitions.take_due(now), due(4, true));
        assert_eq!(partitions.note_read(now, 0, Some(RepeatedRead::Readable)), Some(4));
        assert!(partitions.note(0, 4, Arrival::Record) && partitions.note(0, 5, Arrival::Record));
        assert!(!partitions.note(0, 6, Arrival::Failure(failure(6))));
        assert_eq!(partitions.take_new(now), [0]);
        let later = now + MAX_PAUSE;
        assert_eq!(partitions.take_due(later), due(6, true));
        partitions.rewind(later, &Positions::from([(0, 5)]));
        partitions.note_read(later, 0, Some(RepeatedRead::Failed(failure(6), Some(6..9))));
        assert_eq!(partitions.skip(later, 0), None, "the read began at another offset");
        assert_eq!(partitions.take_due(later), due(5, true));
        partitions.rewind(later, &Positions::from([(0, 6)]));
        partitions.note_read(later, 0, None);
        assert_eq!(partitions.take_due(later), due(6, true));
        partitions.note_read(later, 0, Some(RepeatedRead::Failed(failure(6), Some(6..9))));
        assert_eq!(partitions.skip(later, 0), Some(6..9));
        assert_eq!(partitions.skip(later, 0), None);
        assert_eq!(partitions.take_due(later), due(9, false));
        assert_eq!(partitions.note_read(later, 0, Some(RepeatedRead::Readable)), Some(9));
        assert!(partitions.note(0, 9, Arrival::End) && partitions.is_empty());
    }
}
