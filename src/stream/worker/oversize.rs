//! Output that its topic refuses as too large. A dead letter is truncated, and an anomaly gets a shorter window. A
//! snapshot is left out, and reported until the topic takes it.

use std::time::Duration;

use super::Worker;
use super::groups::{RefusedRecord, SizeRefusal};
use crate::foreign;
use crate::health::ConditionCode;
use crate::series::OversizeSeries;
use crate::series::snapshot::series_of;
use crate::stream::client::{ClusterConnection, OutputTopic};

/// Sizes from which on the state topic refuses records.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateLimits {
    /// Size of the smallest snapshot that was refused, in bytes.
    pub snapshot: usize,
    /// The same of evictions and checkpoints.
    pub other: usize,
    /// Time at which the sizes are tried again, by the client's clock.
    retry_at: Duration,
}

impl Default for StateLimits {
    fn default() -> Self {
        StateLimits { snapshot: usize::MAX, other: usize::MAX, retry_at: Duration::MAX }
    }
}

impl StateLimits {
    /// Notes that the topic refused a record of this size.
    pub(crate) fn note(&mut self, size: usize, is_snapshot: bool, retry_at: Duration) {
        let limit = if is_snapshot { &mut self.snapshot } else { &mut self.other };
        *limit = size.min(*limit);
        self.retry_at = retry_at;
    }

    /// Discards the limits once they are due, so that a topic that takes more now is noticed.
    pub(crate) fn relax(&mut self, now: Duration) {
        if now >= self.retry_at {
            *self = StateLimits::default();
        }
    }
}

/// State of a partition that is not in the state topic, because the topic refuses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Series without a current snapshot.
    pub series: OversizeSeries,
    /// Number of evictions that were not recorded.
    pub evictions: u64,
    /// Size of the checkpoint in bytes, if it was refused.
    pub checkpoint: Option<usize>,
}

impl LeftOut {
    /// Returns whether a restart needs the input since the last checkpoint.
    pub(crate) fn is_held(&self) -> bool {
        self.series.count > 0 || self.checkpoint.is_some()
    }

    /// Adds what is left out of another partition.
    pub(crate) fn add(&mut self, other: &LeftOut) {
        self.series.add(&other.series);
        self.evictions += other.evictions;
        self.checkpoint = self.checkpoint.max(other.checkpoint);
    }

    /// Describes it with the remedy. `from` is the partition whose replay would be the longest, and its first offset.
    fn describe(&self, state: &str, input: &str, from: Option<(i32, i64)>) -> Option<String> {
        let mut found = Vec::new();
        if self.series.count > 0 {
            let (device, metric) = self.series.name.split_once('\0').unwrap_or((&self.series.name, ""));
            let metric = if metric.is_empty() { String::new() } else { format!(" {}", foreign::name(metric)) };
            found.push(format!(
                "the snapshots of {} series, the largest of {}{metric} with {} bytes",
                self.series.count,
                foreign::name(device),
                self.series.largest
            ));
        }
        found.extend(self.checkpoint.map(|size| format!("checkpoints of {size} bytes")));
        if self.evictions > 0 {
            found.push(format!("{} records of evictions, so that a restart restores these series", self.evictions));
        }
        if found.is_empty() {
            return None;
        }
        let replay = from.map_or_else(String::new, |(partition, offset)| {
            format!(
                ". A restart replays {input} [{partition}] from offset {offset} on, for as long as the topic keeps it"
            )
        });
        let largest = self.series.largest.max(self.checkpoint.unwrap_or_default());
        let remedy = format!("Set max.message.bytes of {state} to {} or more", (2 * largest).max(4_096));
        Some(format!("{state} refuses as too large: {}{replay}. {remedy}", found.join("; ")))
    }
}

impl<C: ClusterConnection> Worker<'_, C> {
    /// Reduces the output after a topic has refused it as too large. Returns a line for the log.
    pub(super) fn limit_output(&mut self) -> String {
        let now = self.session.client.now();
        let RefusedRecord { output, key, size } = match self.committing.groups.note_refusal(now) {
            SizeRefusal::Smaller(bytes) => {
                return format!("a topic refuses a batch as too large; groups of {bytes} bytes are sent from now on");
            }
            SizeRefusal::Alone(record) => record,
        };
        match output {
            OutputTopic::State(_) => {
                let is_snapshot = self.snapshots.leave_out(&key, size, now + self.committing.groups.retry);
                let what = if is_snapshot { "snapshot" } else { "record" };
                let series = series_of(&key).map_or_else(String::new, |key| {
                    format!(" of {}", foreign::name(key.split('\0').next().unwrap_or(key)))
                });
                format!("a {what}{series} with {size} bytes is too large for the state topic; it is left out")
            }
            OutputTopic::DeadLetters => match self.judging.limit_dead_letters() {
                Some(limit) => format!("a dead letter is too large for its topic; it is truncated to {limit} bytes"),
                None => format!("a dead letter with {size} bytes is too large for its topic"),
            },
            OutputTopic::Anomalies | OutputTopic::Named { .. } => match self.judging.limit_context() {
                Some(limit) => {
                    format!(
                        "an anomaly with {size} bytes is too large for its topic; {limit} values of its window are kept"
                    )
                }
                None => format!("an anomaly with {size} bytes is too large for its topic"),
            },
        }
    }

    /// Raises or clears the condition about state that its topic refuses.
    pub(super) fn report_left_out(&self) {
        let topics = &self.session.settings.topics;
        let (left_out, from) = self.snapshots.left_out(&self.committing.committed);
        let message = left_out.describe(&topics.state, &topics.raw_events, from);
        self.session.component.set_degraded(ConditionCode::StateRefused, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_names_the_largest_series_the_replay_and_the_remedy() {
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.describe("state", "raw", None), None);
        let series = OversizeSeries { count: 2, largest: 80_000, name: "pump\0heat".into() };
        left_out.add(&LeftOut { series, ..LeftOut::default() });
        assert_eq!(
            left_out.describe("state", "raw", Some((3, 70))).unwrap(),
            "state refuses as too large: the snapshots of 2 series, the largest of pump heat with 80000 bytes. A restart \
             replays raw [3] from offset 70 on, for as long as the topic keeps it. Set max.message.bytes of state to 160000 or \
             more"
        );
    }
}
