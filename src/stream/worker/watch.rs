//! Watches for transactions that delay records, and for other programs in the group, and raises conditions. It compares
//! the arrived records with the committed ones.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Worker;
use super::splits::Splits;
use crate::health::{ConditionCode, ConditionSeverity, PartitionStatus, listed};
use crate::stream::client::{ForeignCommits, GroupAdministration, HistoryReader, RecordFetch};
use crate::stream::open_transactions::{MIN_OPEN_TIME, OpenTransactions};
use crate::stream::standstill::{Stall, describe_failures};
use crate::stream::unassigned::UnassignedPartitions;

/// Time between two evaluations of the conditions.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an offset of another program counts. A worker that takes the partition over commits within this time
/// itself, if the group begins there, or stops.
const SETTLE: Duration = Duration::from_secs(15);
/// Observations since the worker started.
#[derive(Default)]
pub(super) struct InputWatch {
    transactions: OpenTransactions,
    stall: Stall,
    foreign: ForeignCommits,
    /// Time since which an offset of another program has been observed, by partition.
    observed: BTreeMap<i32, Duration>,
    splits: Splits,
    pub(super) unassigned: UnassignedPartitions,
    evaluated: Duration,
}

impl InputWatch {
    /// Notes that a poll returned as many records as it may.
    pub(super) fn note_busy(&mut self) {
        self.stall.note_busy();
    }

    /// Notes the current activity of other programs.
    fn note_foreign(&mut self, now: Duration, foreign: ForeignCommits) {
        self.foreign = foreign;
        let commits = &self.foreign.commits;
        self.observed.retain(|partition, _| commits.contains_key(partition));
        for partition in commits.keys() {
            self.observed.entry(*partition).or_insert(now);
        }
        self.evaluated = now;
    }

    /// Returns the offsets of other programs that have been observed for long enough.
    fn standing_commits(&self) -> impl Iterator<Item = (i32, i64)> {
        let is_settled = |partition: &i32| {
            self.observed.get(partition).is_some_and(|since| self.evaluated.saturating_sub(*since) >= SETTLE)
        };
        let commits = self.foreign.commits.iter().map(|(partition, offset)| (*partition, *offset));
        commits.filter(move |(partition, _)| is_settled(partition))
    }

    /// Returns the message about open transactions that delay records.
    fn open_transactions(
        &mut self,
        topic: &str,
        now: Duration,
        partitions: &BTreeMap<i32, PartitionStatus>,
    ) -> Option<String> {
        let ends = partitions.iter().filter_map(|(p, status)| Some((*p, (status.end?, status.high?))));
        let places = self.transactions.watch(topic, now, MIN_OPEN_TIME, ends)?;
        let advice = "they are judged when it ends; `kafka-transactions.sh find-hanging` names its producer";
        Some(format!("{places}; {advice}"))
    }

    /// Returns the message about other programs in our group.
    fn foreign_commits(&self, topic: &str, group: &str) -> Option<String> {
        let mut places = self
            .standing_commits()
            .map(|(partition, offset)| {
                format!(
                    "{topic} [{partition}] offset {offset} was committed by another program, so that a detector that takes \
                     the partition over stops"
                )
            })
            .collect::<Vec<_>>();
        let members = &self.foreign.members;
        if !members.is_empty() {
            places.push(format!("not a detector, but in the group: {}", listed(members)));
        }
        let advice = "a detector needs a consumer group of its own";
        (!places.is_empty()).then(|| format!("group {group}: {}; {advice}", listed(&places)))
    }
}

impl<C: GroupAdministration + RecordFetch + HistoryReader> Worker<'_, C> {
    /// Raises and clears the conditions, once a second.
    pub(super) fn watch(&mut self, partitions: &BTreeMap<i32, PartitionStatus>) {
        let now = self.session.client.now();
        if now.saturating_sub(self.watch.evaluated) < EVALUATION_INTERVAL {
            return;
        }
        self.watch.evaluated = now;
        self.note_group_activity();
        self.watch_assignment(now);
        let settings = self.session.settings;
        let held = self
            .watch
            .open_transactions(&settings.topics.raw_events, now, partitions)
            .map(|text| (ConditionSeverity::Degraded, text));
        self.session.component.set_condition(ConditionCode::OpenTransaction, held);
        self.watch_progress(now, partitions);
        let foreign = self.watch.foreign_commits(&settings.topics.raw_events, &settings.detector.group);
        self.session.component.set_degraded(ConditionCode::ForeignCommit, foreign);
        let lag = partitions.values().filter_map(|status| Some((status.end? - status.committed).max(0))).sum::<i64>();
        self.input.evaluate(&self.session.component.name, lag);
    }

    /// Reports partitions that cannot be read at an offset, and partitions without progress although records wait.
    fn watch_progress(&mut self, now: Duration, partitions: &BTreeMap<i32, PartitionStatus>) {
        let is_explained = self.session.client.trouble().is_some() || self.is_refused();
        let Worker { session, watch, restoring, .. } = self;
        let (topic, restoring) = (&session.settings.topics.raw_events, restoring.as_ref());
        let failures = session.client.failures();
        let consequence = "The records before it are judged; the others wait until it can be read";
        let unreadable = describe_failures(topic, &failures, consequence);
        let unrestored = restoring.and_then(|restoring| restoring.describe_failures(session));
        let unreadable = unreadable.into_iter().chain(unrestored).collect::<Vec<_>>();
        session
            .component
            .set_degraded(ConditionCode::Unreadable, (!unreadable.is_empty()).then(|| unreadable.join(". ")));
        if is_explained {
            watch.stall.reset();
        }
        // A restore and an unreadable offset have reports of their own.
        let is_reported = |partition: &i32| {
            failures.contains_key(partition) || restoring.is_some_and(|restoring| restoring.has(*partition))
        };
        let judged = partitions.iter().filter(|(partition, _)| !is_reported(partition));
        let ends = judged.filter_map(|(partition, status)| Some((*partition, (status.committed, status.end?))));
        let standing = watch.stall.watch(now, session.settings.detector.commit_interval, ends);
        session.component.set_degraded(ConditionCode::NoProgress, watch.stall.describe(topic, &standing, "judged"));
    }

    /// Reports devices that are in two partitions.
    pub(super) fn note_splits(&mut self, splits: Splits) {
        if splits.count > 0 {
            self.session.meter.split_series.inc_by(splits.count);
            self.watch.splits.add(splits);
            self.session.component.raise(
                ConditionCode::SplitSeries,
                ConditionSeverity::Notice,
                self.watch.splits.to_string(),
            );
        }
    }

    /// Counts new commits of other programs.
    fn note_group_activity(&mut self) {
        let foreign = self.session.client.foreign();
        let was = &self.watch.foreign.commits;
        let is_new = |(partition, offset): &(&i32, &i64)| was.get(partition) != Some(offset);
        self.session.meter.foreign_commits.inc_by(foreign.commits.iter().filter(is_new).count() as u64);
        self.watch.note_foreign(self.session.client.now(), foreign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::Positions;

    fn status(end: i64, high: i64) -> BTreeMap<i32, PartitionStatus> {
        [(0, PartitionStatus { end: Some(end), high: Some(high), ..PartitionStatus::default() })].into()
    }

    #[test]
    fn a_stable_end_that_moves_is_no_open_transaction_and_one_that_stands_still_is() {
        let mut watch = InputWatch::default();
        for second in 0..20 {
            let end = second as i64 * 10;
            let held = watch.open_transactions("raw", Duration::from_secs(second), &status(end, end + 3));
            assert_eq!(held, None, "transactions end all the time");
        }
        let at = |second| Duration::from_secs(second);
        assert_eq!(watch.open_transactions("raw", at(20), &status(200, 701)), None);
        let held = watch.open_transactions("raw", at(25), &status(200, 701)).unwrap();
        assert!(held.starts_with("raw [0]: an open transaction at offset 200 holds back 501 records"), "{held}");
        assert_eq!(watch.open_transactions("raw", at(26), &status(702, 702)), None);
    }

    #[test]
    fn an_offset_of_another_program_counts_once_a_worker_has_had_time_to_take_the_partition_over() {
        let mut watch = InputWatch::default();
        let seen = || ForeignCommits { commits: [(3, 7)].into(), members: Vec::new() };
        let at = Duration::from_secs;
        for (second, is_reported) in [(0, false), (14, false), (15, true)] {
            watch.note_foreign(at(second), seen());
            let text = watch.foreign_commits("raw", "g");
            assert_eq!(text.is_some_and(|text| text.contains("raw [3] offset 7")), is_reported, "after {second} s");
        }
        watch.note_foreign(at(16), ForeignCommits::default());
        watch.note_foreign(at(17), seen());
        assert_eq!(watch.foreign_commits("raw", "g"), None);
    }

    #[test]
    fn another_program_in_the_group_is_named_as_long_as_it_is_there() {
        let mut watch = InputWatch::default();
        let member = ForeignCommits { commits: Positions::new(), members: vec!["intruder at /127.0.0.1".into()] };
        watch.note_foreign(Duration::ZERO, member);
        assert!(watch.foreign_commits("raw", "g").is_some_and(|text| text.contains("intruder at /127.0.0.1")));
        watch.note_foreign(Duration::ZERO, ForeignCommits::default());
        assert_eq!(watch.foreign_commits("raw", "g"), None);
    }
}
