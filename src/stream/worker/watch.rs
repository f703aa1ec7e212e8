//! Watches for transactions that delay records, and for other programs in the group, and raises conditions. It compares
//! the arrived records with the committed ones.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Worker;
use super::splits::Splits;
use crate::health::{ConditionCode, ConditionSeverity, PartitionStatus, listed};
use crate::stream::client::{ForeignCommits, GroupAdministration, HistoryReader, Positions, RecordFetch};
use crate::stream::open_transactions::{HOLD, OpenTransactions};
use crate::stream::progress::ProgressByPartition;
use crate::stream::standstill::{Stall, describe_failures};
use crate::stream::unassigned::UnassignedPartitions;

/// Time between two evaluations of the conditions.
const EVALUATE: Duration = Duration::from_secs(1);
/// Time for which activity of another program is reported after it was last seen.
const FOREIGN_KEPT: Duration = Duration::from_secs(3_600);
/// Time after which a commit in a partition of another worker counts. A worker that takes the partition over commits
/// within this time itself.
const SETTLE: Duration = Duration::from_secs(15);
/// Observations since the worker started.
#[derive(Default)]
pub(super) struct InputWatch {
    transactions: OpenTransactions,
    stall: Stall,
    /// Newest commits of this worker, also of partitions that were revoked.
    known: Positions,
    /// Partitions that were taken over at an offset that another program or a person had committed.
    takeovers: BTreeMap<i32, ForeignTakeover>,
    foreign: ForeignCommits,
    /// Time since which an offset of another program has been observed in a partition of another worker.
    elsewhere: BTreeMap<i32, Duration>,
    /// Time at which another program or a commit of one was last seen.
    foreign_seen: Duration,
    splits: Splits,
    pub(super) unassigned: UnassignedPartitions,
    evaluated: Duration,
}

/// A partition that was taken over at an offset that no detector committed.
struct ForeignTakeover {
    /// Newest offset that a detector committed, if known.
    since: Option<i64>,
    /// Offset that was committed instead.
    offset: i64,
    /// Whether records before the offset may have no verdict. Otherwise the offset equals the end of judging, or is
    /// before it.
    passes_by: bool,
}

impl InputWatch {
    /// Notes commits of this worker.
    pub(crate) fn note_commit(&mut self, committed: &ProgressByPartition) {
        self.known.extend(committed.iter().map(|(partition, progress)| (*partition, progress.offset)));
    }

    /// Notes that a poll returned as many records as it may.
    pub(super) fn note_busy(&mut self) {
        self.stall.note_busy();
    }

    /// Notes a partition that was taken over at an offset of another program. `since` is the newest offset of a
    /// detector in the state topic; `first` is the first offset of the partition.
    pub(crate) fn note_foreign_commit(
        &mut self,
        now: Duration,
        partition: i32,
        (since, first): (Option<i64>, i64),
        offset: i64,
    ) {
        let since = self.known.get(&partition).copied().max(since);
        let passes_by = offset > since.unwrap_or(first);
        self.takeovers.insert(partition, ForeignTakeover { since, offset, passes_by });
        self.foreign_seen = now;
    }

    /// Notes the current activity of other programs. Takeovers are discarded once these programs have been absent long
    /// enough.
    fn note_foreign(&mut self, now: Duration, foreign: ForeignCommits, has: impl Fn(i32) -> bool) {
        self.foreign = foreign;
        let commits = &self.foreign.commits;
        // The time is kept when this worker gets the partition: the observation may be older than the other worker's
        // commit.
        self.elsewhere.retain(|partition, _| commits.contains_key(partition));
        for partition in commits.keys().filter(|partition| !has(**partition)) {
            self.elsewhere.entry(*partition).or_insert(now);
        }
        self.evaluated = now;
        if self.is_foreign_here() {
            self.foreign_seen = now;
        } else if now.saturating_sub(self.foreign_seen) >= FOREIGN_KEPT {
            self.takeovers.clear();
        }
    }

    /// Returns the current offsets of other programs. An offset that was taken over is excluded: it was seen before our
    /// own commit.
    fn standing_commits(&self) -> impl Iterator<Item = (i32, i64)> {
        let is_settled = |partition: &i32| {
            self.elsewhere.get(partition).is_none_or(|since| self.evaluated.saturating_sub(*since) >= SETTLE)
        };
        let is_ours = |partition: &i32, offset: i64| {
            self.takeovers.get(partition).is_some_and(|takeover| takeover.offset == offset)
        };
        let commits = self.foreign.commits.iter().map(|(partition, offset)| (*partition, *offset));
        commits.filter(move |(partition, offset)| is_settled(partition) && !is_ours(partition, *offset))
    }

    /// Returns whether another program is in the group, or its offset is current.
    fn is_foreign_here(&self) -> bool {
        self.standing_commits().next().is_some() || !self.foreign.members.is_empty()
    }

    /// Returns the message about open transactions that delay records.
    fn open_transactions(
        &mut self,
        topic: &str,
        now: Duration,
        partitions: &BTreeMap<i32, PartitionStatus>,
    ) -> Option<String> {
        let ends = partitions.iter().filter_map(|(p, status)| Some((*p, (status.end?, status.high?))));
        let places = self.transactions.watch(topic, now, HOLD, ends)?;
        let advice = "they are judged when it ends; `kafka-transactions.sh find-hanging` names its producer";
        Some(format!("{places}; {advice}"))
    }

    /// Returns the message about other programs in our group.
    fn foreign_commits(&self, topic: &str, group: &str) -> Option<(ConditionSeverity, String)> {
        let mut places = Vec::new();
        for (partition, offset) in self.standing_commits() {
            places.push(format!("{topic} [{partition}] offset {offset} was committed by another program"));
        }
        for (partition, takeover) in self.takeovers.iter().filter(|(_, takeover)| takeover.passes_by) {
            let ForeignTakeover { since, offset, .. } = takeover;
            let unjudged = match since {
                Some(since) => format!("{} records since offset {since} have no verdict", offset - since),
                None => "records before it may have no verdict".to_owned(),
            };
            places.push(format!(
                "{topic} [{partition}] was taken over at offset {offset}, which another program committed: {unjudged}"
            ));
        }
        let members = &self.foreign.members;
        if !members.is_empty() {
            places.push(format!("not a detector, but in the group: {}", listed(members)));
        }
        let severity = if self.is_foreign_here() { ConditionSeverity::Degraded } else { ConditionSeverity::Notice };
        let mut sentences = Vec::new();
        if !places.is_empty() {
            sentences.push(format!("{}; a detector needs a consumer group of its own", listed(&places)));
        }
        sentences.extend(self.offsets_that_were_set(topic));
        (!sentences.is_empty()).then(|| (severity, format!("group {group}: {}", sentences.join(". "))))
    }

    /// Returns the message about offsets that skipped no record, such as those that a person has set back as a remedy.
    fn offsets_that_were_set(&self, topic: &str) -> Option<String> {
        let set = self.takeovers.iter().filter(|(_, takeover)| !takeover.passes_by);
        let place = |(partition, takeover): (&i32, &ForeignTakeover)| {
            let from = takeover.since.map(|since| format!(" from {since}")).unwrap_or_default();
            format!("[{partition}]{from} to {}", takeover.offset)
        };
        let places = set.map(place).collect::<Vec<_>>();
        (!places.is_empty()).then(|| {
            format!(
                "the offsets of {topic} were set by a person or another program, {}; judging went on from there",
                listed(&places)
            )
        })
    }
}

impl<C: GroupAdministration + RecordFetch + HistoryReader> Worker<'_, C> {
    /// Raises and clears the conditions, once a second.
    pub(super) fn watch(&mut self, partitions: &BTreeMap<i32, PartitionStatus>) {
        let now = self.session.client.now();
        if now.saturating_sub(self.watch.evaluated) < EVALUATE {
            return;
        }
        self.watch.evaluated = now;
        self.look_at_group();
        self.watch_assignment(now);
        let settings = self.session.settings;
        let held = self
            .watch
            .open_transactions(&settings.topics.raw_events, now, partitions)
            .map(|text| (ConditionSeverity::Degraded, text));
        self.session.component.set_condition(ConditionCode::OpenTransaction, held);
        self.watch_progress(now, partitions);
        let foreign = self.watch.foreign_commits(&settings.topics.raw_events, &settings.detector.group);
        self.session.component.set_condition(ConditionCode::ForeignCommit, foreign);
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
    fn look_at_group(&mut self) {
        let foreign = self.session.client.foreign();
        let was = &self.watch.foreign.commits;
        let is_new = |(partition, offset): &(&i32, &i64)| was.get(partition) != Some(offset);
        self.session.meter.foreign_commits.inc_by(foreign.commits.iter().filter(is_new).count() as u64);
        let committed = &self.committing.committed;
        self.watch.note_foreign(self.session.client.now(), foreign, |partition| committed.contains_key(&partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_observation_from_before_a_takeover_by_another_worker_is_no_foreign_commit_when_this_worker_gets_the_partition()
     {
        let mut watch = InputWatch::default();
        let observed = || ForeignCommits { commits: [(0, 0)].into(), ..ForeignCommits::default() };
        let at = Duration::from_secs;
        watch.note_foreign(at(1), observed(), |_| false);
        watch.note_foreign(at(3), observed(), |_| true);
        assert_eq!(
            watch.foreign_commits("raw", "g"),
            None,
            "the observation may be older than the other worker's commit"
        );
        watch.note_foreign(at(17), observed(), |_| true);
        assert_eq!(watch.foreign_commits("raw", "g").unwrap().0, ConditionSeverity::Degraded);
    }

    #[test]
    fn a_foreign_commit_names_the_records_without_a_verdict() {
        let mut watch = InputWatch::default();
        watch.note_commit(&ProgressByPartition::from([(
            1,
            crate::stream::progress::Progress { offset: 200, ..Default::default() },
        )]));
        watch.note_foreign_commit(Duration::ZERO, 1, (Some(150), 0), 400);
        let (severity, text) = watch.foreign_commits("raw", "g").unwrap();
        assert_eq!(severity, ConditionSeverity::Notice);
        assert!(text.contains("raw [1]") && text.contains("200 records since offset 200"), "{text}");
        watch.foreign.members.push("intruder at /127.0.0.1".into());
        let (severity, text) = watch.foreign_commits("raw", "g").unwrap();
        assert_eq!(severity, ConditionSeverity::Degraded);
        assert!(text.contains("intruder at /127.0.0.1"), "{text}");
    }

    #[test]
    fn a_foreign_commit_is_reported_for_an_hour_after_the_last_sight_of_the_other_program() {
        let mut watch = InputWatch::default();
        let at = |minute: u64| Duration::from_secs(60 * minute);
        let severity = |watch: &InputWatch| watch.foreign_commits("raw", "g").map(|(severity, _)| severity);
        watch.note_foreign_commit(at(1), 1, (Some(150), 0), 400);
        let standing = ForeignCommits { commits: [(0, 7)].into(), members: Vec::new() };
        let member = ForeignCommits { commits: Positions::new(), members: vec!["intruder".into()] };
        for (minute, foreign, expected) in [
            (60, ForeignCommits::default(), Some(ConditionSeverity::Notice)),
            (100, member, Some(ConditionSeverity::Degraded)),
            (200, standing, Some(ConditionSeverity::Degraded)),
            (201, ForeignCommits::default(), Some(ConditionSeverity::Notice)),
            (259, ForeignCommits::default(), Some(ConditionSeverity::Notice)),
            (260, ForeignCommits::default(), None),
            (500, ForeignCommits::default(), None),
        ] {
            watch.note_foreign(at(minute), foreign, |_| true);
            assert_eq!(severity(&watch), expected, "in minute {minute}");
        }
    }

    #[test]
    fn offsets_that_were_set_without_skipping_a_record_are_a_notice_of_their_own() {
        for (partition, since, first, offset) in [(0, None, 0, 0), (1, Some(200), 0, 200), (2, Some(200), 10, 40)] {
            let mut watch = InputWatch::default();
            watch.note_foreign_commit(Duration::ZERO, partition, (since, first), offset);
            // The observer saw the offset before this detector committed.
            let seen = ForeignCommits { commits: [(partition, offset)].into(), members: Vec::new() };
            watch.note_foreign(Duration::from_secs(1), seen, |_| true);
            let (severity, text) = watch.foreign_commits("raw", "g").unwrap();
            assert_eq!(severity, ConditionSeverity::Notice, "{text}");
            assert!(text.contains("were set by a person") && text.contains(&format!(" to {offset};")), "{text}");
            assert!(!text.contains("consumer group of its own") && !text.contains("verdict"), "{text}");
            // Another program that continues to commit is active.
            let seen = ForeignCommits { commits: [(partition, offset + 1)].into(), members: Vec::new() };
            watch.note_foreign(Duration::from_secs(2), seen, |_| true);
            assert_eq!(watch.foreign_commits("raw", "g").unwrap().0, ConditionSeverity::Degraded);
        }
    }

    #[test]
    fn a_commit_in_a_partition_of_another_worker_counts_once_that_worker_has_had_time_to_take_it_over() {
        let mut watch = InputWatch::default();
        let seen = || ForeignCommits { commits: [(3, 0)].into(), members: Vec::new() };
        let at = |second| Duration::from_secs(second);
        for (second, is_reported) in [(0, false), (14, false), (15, true)] {
            watch.note_foreign(at(second), seen(), |_| false);
            assert_eq!(watch.foreign_commits("raw", "g").is_some(), is_reported, "after {second} s");
        }
        watch.note_foreign(at(16), ForeignCommits::default(), |_| false);
        watch.note_foreign(at(17), seen(), |_| false);
        assert_eq!(watch.foreign_commits("raw", "g"), None);
    }
}
