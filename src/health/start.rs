//! Records before the offset at which a group without committed offsets began. The component reports them for an hour.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant as Monotonic};

use super::{Component, ConditionCode, ConditionSeverity, listed};

/// Time for which they are reported.
const REPORTED_FOR: Duration = Duration::from_secs(3_600);

/// The records of each partition, and when they were noted.
#[derive(Debug, Default)]
pub(super) struct StartsAtEnd(BTreeMap<i32, (Range<i64>, Monotonic)>);

impl StartsAtEnd {
    /// Returns the message about the records of the last hour.
    fn message(&self, now: Monotonic, topic: &str, group: &str) -> Option<String> {
        let recent = self.0.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) < REPORTED_FOR);
        let places = recent.map(|(partition, (offsets, _))| (partition, offsets)).collect::<Vec<_>>();
        if places.is_empty() {
            return None;
        }
        let count = places.iter().map(|(_, offsets)| offsets.end - offsets.start).sum::<i64>();
        let place = |(partition, offsets): &(&i32, &Range<i64>)| format!("[{partition}] at offset {}", offsets.end);
        let named = listed(&places.iter().map(place).collect::<Vec<_>>());
        Some(format!(
            "group {group} had no committed offsets, so that judging began at the end of {topic} (detector.start is \
             \"latest\"): {named}. The {count} earlier records are not judged, unless a run before this one has judged \
             them. If the group is not new, its offsets were deleted or have expired; this is reported for an hour"
        ))
    }
}

impl Component {
    /// Notes the records of a partition before the offset at which a group without committed offsets begins.
    pub fn note_start_at_end(&self, partition: i32, offsets: Range<i64>) {
        if !offsets.is_empty() {
            self.lock().conditions.starts.0.insert(partition, (offsets, Monotonic::now()));
        }
    }

    /// Raises the condition about starts at the end of the input, and clears it after an hour.
    pub fn report_starts_at_end(&self, topic: &str, group: &str) {
        let message = self.lock().conditions.starts.message(Monotonic::now(), topic, group);
        self.set_condition(ConditionCode::StartedAtEnd, message.map(|text| (ConditionSeverity::Notice, text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_before_a_start_at_the_end_are_counted_and_reported_for_an_hour() {
        let (mut starts, began) = (StartsAtEnd::default(), Monotonic::now());
        assert_eq!(starts.message(began, "raw", "g"), None);
        for partition in 0..5 {
            starts.0.insert(partition, (10..110, began));
        }
        let text = starts.message(began, "raw", "g").unwrap();
        assert!(text.contains("[2] at offset 110; and 2 more. The 500 earlier records are not judged"), "{text}");
        assert_eq!(starts.message(began + REPORTED_FOR, "raw", "g"), None);
    }
}
