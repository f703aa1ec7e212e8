//! Records that a component will never process, because retention deleted them or because they cannot be read. The
//! component reports them for an hour.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant as Monotonic};

use super::{Component, ConditionCode, ConditionSeverity, listed};

/// Time for which deleted records are reported. Nothing can restore them, so only time ends the report.
const REPORTED_FOR: Duration = Duration::from_secs(3_600);

/// The deleted records of each partition.
#[derive(Debug, Default)]
pub(super) struct DeletedRecords(BTreeMap<i32, DeletedRange>);

#[derive(Debug)]
struct DeletedRange {
    offsets: Range<i64>,
    count: u64,
    /// When the last of them were noted.
    at: Monotonic,
}

impl DeletedRecords {
    /// Notes records. Returns the number of those that were not noted before: a component finds the same range again
    /// until it has committed an offset behind it.
    fn note(&mut self, now: Monotonic, partition: i32, offsets: Range<i64>) -> u64 {
        // A range that ends before the known one is new: the topic was created again, or an older part is read.
        let known = self.0.get(&partition).filter(|known| offsets.end > known.offsets.start);
        let known = known.map_or(i64::MIN, |known| known.offsets.end);
        let count = (offsets.end - offsets.start.max(known)).max(0).unsigned_abs();
        if count == 0 {
            return 0;
        }
        match self.0.get_mut(&partition).filter(|known| now.saturating_duration_since(known.at) < REPORTED_FOR) {
            Some(known) => {
                known.offsets = known.offsets.start.min(offsets.start)..known.offsets.end.max(offsets.end);
                known.count += count;
                known.at = now;
            }
            None => {
                self.0.insert(partition, DeletedRange { offsets, count, at: now });
            }
        }
        count
    }

    /// Returns the message about deleted records of the last hour. `done` is what they were deleted before, such as
    /// `judged`.
    fn message(&self, now: Monotonic, topic: &str, done: &str) -> Option<String> {
        let text = self.places(now, topic, &format!("were deleted before they were {done}"))?;
        Some(format!("{text}. They are lost. Give {topic} a longer retention; this is reported for an hour"))
    }

    /// Returns the message about skipped records of the last hour.
    fn skipped_message(&self, now: Monotonic, topic: &str) -> Option<String> {
        let text = self.places(now, topic, "cannot be read, and were skipped")?;
        Some(format!("{text}. This is reported for an hour"))
    }

    /// Lists the records of the last hour. `what` says what happened to them.
    fn places(&self, now: Monotonic, topic: &str, what: &str) -> Option<String> {
        let recent = self.0.iter().filter(|(_, range)| now.saturating_duration_since(range.at) < REPORTED_FOR);
        let place = |(partition, DeletedRange { offsets, count, .. }): (&i32, &DeletedRange)| {
            let (from, to) = (offsets.start, offsets.end - 1);
            format!("{count} records of {topic} [{partition}] {what} (offsets {from} to {to})")
        };
        let places = recent.map(place).collect::<Vec<_>>();
        (!places.is_empty()).then(|| listed(&places))
    }
}

impl Component {
    /// Notes records that were deleted before this component processed them. Returns the number of those that it had
    /// not noted before.
    pub fn note_deleted(&self, partition: i32, offsets: Range<i64>) -> u64 {
        self.lock().conditions.deleted.note(Monotonic::now(), partition, offsets)
    }

    /// Notes records that were skipped, because they cannot be read. Logs those that were not noted before, and returns
    /// their number.
    pub fn note_damaged(&self, topic: &str, partition: i32, offsets: Range<i64>) -> u64 {
        let (from, to) = (offsets.start, offsets.end - 1);
        let mut inner = self.lock();
        let noted = inner.conditions.damaged.entry(topic.to_owned()).or_default();
        let new = noted.note(Monotonic::now(), partition, offsets);
        if new > 0 {
            tracing::error!(topic, partition, from, to, "records cannot be read, and were skipped");
        }
        new
    }

    /// Raises the condition about skipped records, and clears it after an hour.
    pub fn report_damaged(&self) {
        let now = Monotonic::now();
        let inner = self.lock();
        let topics = inner.conditions.damaged.iter().filter_map(|(topic, noted)| noted.skipped_message(now, topic));
        let message = topics.collect::<Vec<_>>().join("; ");
        drop(inner);
        let held = (!message.is_empty()).then_some((ConditionSeverity::Notice, message));
        self.set_condition(ConditionCode::DamageSkipped, held);
    }

    /// Raises the condition about deleted records, and clears it after an hour. `done` is what they were deleted
    /// before, such as `judged`.
    pub fn report_deleted(&self, topic: &str, done: &str) {
        let message = self.lock().conditions.deleted.message(Monotonic::now(), topic, done);
        self.set_condition(ConditionCode::RecordsDeleted, message.map(|text| (ConditionSeverity::Degraded, text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_found_again_counts_once_and_is_reported_for_an_hour() {
        let (mut deleted, began) = (DeletedRecords::default(), Monotonic::now());
        let at = |minute: u64| began + Duration::from_secs(60 * minute);
        assert_eq!(deleted.message(at(0), "raw", "judged"), None);
        assert_eq!(deleted.note(at(0), 1, 200..700), 500);
        assert_eq!(deleted.note(at(1), 1, 200..700), 0);
        assert_eq!(deleted.note(at(2), 1, 200..710), 10);
        let text = deleted.message(at(61), "raw", "judged").unwrap();
        let words = "510 records of raw [1] were deleted before they were judged (offsets 200 to 709). They are lost.";
        assert!(text.starts_with(words), "{text}");
        assert_eq!(deleted.message(at(62), "raw", "judged"), None);
        assert_eq!(deleted.note(at(63), 1, 200..710), 0, "an old range does not return");
        assert_eq!(deleted.message(at(63), "raw", "judged"), None);
        assert_eq!(deleted.note(at(64), 1, 900..905), 5);
        assert!(deleted.message(at(64), "raw", "judged").unwrap().starts_with("5 records of raw [1]"));
        assert_eq!(deleted.note(at(65), 1, 10..20), 10, "the topic was created again");
        assert!(deleted.message(at(65), "raw", "judged").unwrap().starts_with("15 records of raw [1]"));
    }
}
