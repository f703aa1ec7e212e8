//! The results since the last commit: records to send, anomalies for the observer, and counts. An abort discards them.

mod oversized;

use std::collections::BTreeMap;

use super::dead_letter::{dead_letter, largest_part};
use super::same_time::SameTime;
use super::splits::Splits;
use crate::anomaly::{Anomaly, RecordId, Severity};
use crate::config::resolved::OnReject;
use crate::config::resolved::Settings;
use crate::detect::{Detector, Judge, Verdict};
use crate::error::Error;
use crate::event::{Decoded, Decoder, RejectClass, Rejection, Timestamp};
use crate::health::{Activity, Cut, RejectReasons, RejectedSample, RejectedSamples, Tally};
use crate::meter::Meter;
use crate::stream::client::{ConsumedRecord, OutgoingRecord, OutputTopic};
use crate::stream::progress::{OutcomeCounts, Progress};
use oversized::SkippedBatches;

/// Number of events that are decoded before the first of them is judged.
pub(super) const BLOCK_EVENTS: usize = 64;
const MINUTE_MILLIS: i64 = 60_000;
const DAY_MILLIS: i64 = 86_400_000;
/// Maximum number of bytes that wait to be sent, apart from those of one poll.
const MAX_OUTBOX: usize = 1 << 20;
/// Maximum length of an anomaly's label, in bytes.
const MAX_LABEL: usize = 256;

/// Outcome of a record with events: its most severe verdict. The order is ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RecordOutcome {
    Excluded,
    Learning,
    Normal,
    Anomalous,
}

impl From<&Verdict> for RecordOutcome {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Excluded => RecordOutcome::Excluded,
            Verdict::Learning => RecordOutcome::Learning,
            Verdict::Normal => RecordOutcome::Normal,
            Verdict::Anomalous(_) => RecordOutcome::Anomalous,
        }
    }
}

impl RecordOutcome {
    fn count(self, counts: &mut OutcomeCounts) {
        *match self {
            RecordOutcome::Excluded => &mut counts.excluded,
            RecordOutcome::Learning => &mut counts.learning,
            RecordOutcome::Normal => &mut counts.normal,
            RecordOutcome::Anomalous => &mut counts.anomalous,
        } += 1;
    }
}

#[derive(Default)]
pub(super) struct PendingTransaction {
    pub outbox: Vec<OutgoingRecord>,
    pub anomalies: Vec<Anomaly>,
    pub coverage: Vec<((i64, i32), Tally)>,
    /// Activity by minute of arrival and partition.
    pub activity: Vec<((i64, i32), Activity)>,
    /// Sample of the devices: one of each block of events, at varying positions.
    pub devices: Vec<String>,
    /// Samples of rejected records, for people.
    pub samples: RejectedSamples,
    /// Error of a rejected record under the policy `fail`.
    pub poison: Option<Error>,
    pub largest_dead_letter: usize,
    pub skipped: SkippedBatches,
    /// Size of the consumed input in bytes, by partition.
    pub bytes: BTreeMap<i32, u64>,
    /// Number of events, and of records without events.
    tally: Tally,
    /// Number of records by outcome.
    records: BTreeMap<&'static str, u64>,
    rejects: BTreeMap<RejectClass, u64>,
    pub reasons: RejectReasons,
    pub splits: Splits,
    event_times: BTreeMap<i32, Timestamp>,
    arrivals: BTreeMap<i32, Timestamp>,
    same_times: BTreeMap<i32, SameTime>,
    now: Option<Timestamp>,
}

impl PendingTransaction {
    /// Reads the wall clock, once for each poll.
    pub(crate) fn tick(&mut self) {
        self.now = Some(Timestamp::now());
    }

    /// Returns the number of events with a verdict, and of records without events and of oversized batches that have
    /// an outcome.
    pub(crate) fn events(&self) -> usize {
        self.tally.sum() as usize + self.skipped.ranges.len()
    }

    /// Returns whether so much output waits that it should be sent now.
    pub(crate) fn is_bulky(&self) -> bool {
        self.outbox.iter().map(OutgoingRecord::size).sum::<usize>() > MAX_OUTBOX
    }

    /// Returns the time of the partition's newest event.
    pub(crate) fn event_time(&self, partition: i32) -> Option<Timestamp> {
        self.event_times.get(&partition).copied()
    }

    /// Returns the time at which the partition's newest record was consumed.
    pub(crate) fn arrival(&self, partition: i32) -> Option<Timestamp> {
        self.arrivals.get(&partition).copied()
    }

    /// Takes over the times of events and arrivals from a committed transaction.
    pub(crate) fn keep_times_of(&mut self, done: PendingTransaction) {
        (self.event_times, self.arrivals) = (done.event_times, done.arrivals);
        self.same_times = done.same_times;
    }

    /// Takes over the observations from the replay of a partition.
    pub(crate) fn adopt(&mut self, partition: i32, same_time: SameTime) {
        self.same_times.insert(partition, same_time);
    }

    /// Returns the message about a series of the partition that gets several values of the same time.
    pub(crate) fn same_time(&mut self, topic: &str, partition: i32) -> Option<String> {
        self.same_times.get_mut(&partition)?.finding(topic, partition)
    }

    /// Judges the records of one partition from its progress on, and advances it.
    #[allow(clippy::too_many_arguments)] // Parts of the worker, of which this is one.
    pub(crate) fn judge(
        &mut self,
        settings: &Settings,
        decoder: &mut Decoder,
        detector: &mut Detector,
        partition: i32,
        records: &[ConsumedRecord<'_>],
        progress: &mut Progress,
        dead_letter_limit: usize,
    ) {
        let topic = settings.topics.raw_events.clone();
        let mut source = RecordId { topic, generation: progress.generation, partition, offset: 0, index: 0 };
        let (mut bytes, mut newest) = (0, None);
        let (before, counts_before, mut activity) = (self.tally, progress.counts, Activity::default());
        let mut same_time = self.same_times.remove(&partition).unwrap_or_default();
        detector.within(partition, |judge| {
            let mut decoded = Vec::with_capacity(BLOCK_EVENTS.min(records.len()));
            for block in records.chunks(BLOCK_EVENTS) {
                decoded.extend(block.iter().map(|record| decoder.decode(&record.input())));
                judge.approach(decoded.iter().flatten().flat_map(Decoded::events).map(|(_, event)| event));
                let sample = decoded.get(self.devices.len() * 7 % decoded.len().max(1));
                if let Some(event) = sample.and_then(|events| events.as_ref().ok()?.first()) {
                    self.devices.push(event.device_id.to_string());
                }
                for (record, decoded) in block.iter().zip(&decoded) {
                    if self.poison.is_some() {
                        break;
                    }
                    // Records from before a rewind may still arrive.
                    if record.offset < progress.offset {
                        continue;
                    }
                    (source.offset, source.index) = (record.offset, 0);
                    bytes += record.size();
                    let problem = decoded.as_ref().map_or_else(Some, Decoded::partial);
                    if let Some(rejection) = problem.filter(|_| settings.detector.on_reject == OnReject::Fail) {
                        self.poison = Some(Error::data(format_args!(
                            "{} [{partition}] offset {}: {rejection}. detector.on_reject is \"fail\"",
                            settings.topics.raw_events, record.offset
                        )));
                        break;
                    }
                    let Ok(events) = decoded else {
                        if let Some(rejection) = problem {
                            self.reject(settings, &source, record, rejection, progress, dead_letter_limit);
                        }
                        progress.offset = record.offset + 1;
                        continue;
                    };
                    same_time.note(record.offset, events);
                    judge.pass(record.timestamp);
                    match self.judge_events(judge, &mut source, record, events, (&mut newest, &mut activity)) {
                        Some(outcome) => outcome.count(&mut progress.counts),
                        None => self.ignore(partition, own_time(record), &mut progress.counts),
                    }
                    if let Some(rejection) = problem {
                        progress.counts.partial += 1;
                        source.index = 0;
                        self.note_rejection(settings, &source, record, rejection, events.len(), dead_letter_limit);
                    }
                    progress.offset = record.offset + 1;
                }
                decoded.clear();
            }
        });
        self.same_times.insert(partition, same_time);
        *self.bytes.entry(partition).or_default() += bytes as u64;
        if let Some(newest) = newest {
            self.event_times.insert(partition, newest);
        }
        if let Some(last) = records.iter().rev().find(|record| record.offset + 1 == progress.offset) {
            progress.last = Some(last.note());
        }
        activity.tally = self.tally.since(before);
        self.note_outcomes(partition, counts_before, progress.counts, activity);
    }

    /// Notes the outcomes of the records that were judged together: their counts before and after them.
    fn note_outcomes(&mut self, partition: i32, before: OutcomeCounts, counts: OutcomeCounts, mut activity: Activity) {
        for ((name, count), (_, before)) in counts.named().zip(before.named()) {
            *self.records.entry(name).or_default() += count - before;
        }
        activity.records = counts.sum() - before.sum();
        activity.partial = counts.partial - before.partial;
        if let (Some(arrived), true) = (self.now, activity.tally.sum() > 0) {
            self.activity.push(((arrived.millis().div_euclid(MINUTE_MILLIS), partition), activity));
            self.arrivals.insert(partition, arrived);
        }
    }

    /// Judges the values of one record, and notes their verdicts. Returns the outcome of the record; `None` without values.
    fn judge_events(
        &mut self,
        judge: &mut Judge<'_>,
        source: &mut RecordId,
        record: &ConsumedRecord<'_>,
        events: &Decoded<'_>,
        (newest, activity): (&mut Option<Timestamp>, &mut Activity),
    ) -> Option<RecordOutcome> {
        let (mut left, mut outcome) = (events.len(), None);
        for (index, event) in events.events() {
            left -= 1;
            source.index = index;
            judge.set_has_more(left > 0);
            let at = event.timestamp.or_else(|| own_time(record));
            let verdict = judge.judge(source, event, at, || record.headers.label().map(label));
            if let Some(other) = judge.take_split() {
                self.splits.note(&event.device_id, source.partition, other, record.key);
            }
            *newest = at.or(*newest);
            if let (Some(at), Some(arrived)) = (at, self.now) {
                activity.note_offset((at.millis() - arrived.millis()) / 1_000);
            }
            outcome = outcome.max(Some(RecordOutcome::from(&verdict)));
            self.passed(source.partition, at, verdict);
        }
        outcome
    }

    /// Counts records that cannot be read.
    pub(crate) fn note_skipped(&mut self, count: u64) {
        *self.records.entry("skipped").or_default() += count;
    }

    /// Counts a record with a null value, or one that the settings ignore.
    fn ignore(&mut self, partition: i32, at: Option<Timestamp>, counts: &mut OutcomeCounts) {
        self.cover(partition, at).ignored += 1;
        self.tally.ignored += 1;
        counts.ignored += 1;
    }

    fn reject(
        &mut self,
        settings: &Settings,
        source: &RecordId,
        record: &ConsumedRecord<'_>,
        rejection: &Rejection,
        progress: &mut Progress,
        limit: usize,
    ) {
        self.cover(source.partition, own_time(record)).rejected += 1;
        self.tally.rejected += 1;
        *self.rejects.entry(rejection.class).or_default() += 1;
        self.note_rejection(settings, source, record, rejection, 0, limit);
        *if settings.detector.on_reject == OnReject::DeadLetter {
            &mut progress.counts.rejected
        } else {
            &mut progress.counts.dropped
        } += 1;
    }

    /// Adds the rejection to the samples, and writes the dead letter. `judged` is the number of the record's valid
    /// values that are judged.
    fn note_rejection(
        &mut self,
        settings: &Settings,
        source: &RecordId,
        record: &ConsumedRecord<'_>,
        rejection: &Rejection,
        judged: usize,
        limit: usize,
    ) {
        self.reasons.note(rejection.reason());
        if let Some(at) = self.now {
            self.samples.push(RejectedSample {
                generation: source.generation,
                partition: source.partition,
                offset: source.offset,
                class: rejection.class,
                message: rejection.message.clone(),
                key: record.key.map(Cut::of),
                value: record.value.map(Cut::of),
                at,
            });
        }
        if settings.detector.on_reject == OnReject::DeadLetter {
            self.largest_dead_letter = self.largest_dead_letter.max(largest_part(record));
            self.outbox.push(dead_letter(source, record, rejection, judged, limit));
        }
    }

    fn passed(&mut self, partition: i32, at: Option<Timestamp>, verdict: Verdict) {
        let count = |tally: &mut Tally| match verdict {
            Verdict::Learning => tally.learning += 1,
            Verdict::Excluded => tally.excluded += 1,
            Verdict::Normal | Verdict::Anomalous(_) => tally.judged += 1,
        };
        count(self.cover(partition, at));
        count(&mut self.tally);
        if let Verdict::Anomalous(anomaly) = verdict {
            self.outbox.push(OutgoingRecord {
                output: OutputTopic::Anomalies,
                key: Some(anomaly.device_id.clone().into_bytes()),
                value: json(&anomaly),
                timestamp: None,
                headers: Vec::new(),
            });
            self.anomalies.push(*anomaly);
        }
    }

    /// Returns the tally of the event's minute. An absurd time counts under the minute in which it was judged.
    fn cover(&mut self, partition: i32, at: Option<Timestamp>) -> &mut Tally {
        let is_same = |(minute, of): (i64, i32), at: Timestamp| {
            of == partition && minute == at.millis().div_euclid(MINUTE_MILLIS)
        };
        if let (Some((place, _)), Some(at)) = (self.coverage.last(), at)
            && is_same(*place, at)
        {
            let last = self.coverage.len() - 1;
            return &mut self.coverage[last].1;
        }
        let now = self.now.map_or(0, Timestamp::millis);
        let millis = at.map_or(now, Timestamp::millis);
        let is_near = (now - 400 * DAY_MILLIS..now + DAY_MILLIS).contains(&millis);
        let place = ((if is_near { millis } else { now }).div_euclid(MINUTE_MILLIS), partition);
        if self.coverage.last().is_none_or(|(last, _)| *last != place) {
            self.coverage.push((place, Tally::default()));
        }
        let last = self.coverage.len() - 1;
        &mut self.coverage[last].1
    }

    /// Adds all counts to the metrics.
    pub(crate) fn count(&self, meter: &Meter) {
        let anomalous = self.anomalies.len() as u64;
        meter.events.add("learning", self.tally.learning);
        meter.events.add("ignored", self.tally.ignored);
        meter.events.add("excluded", self.tally.excluded);
        meter.events.add("normal", self.tally.judged - anomalous);
        meter.events.add("anomalous", anomalous);
        let critical = self.anomalies.iter().filter(|a| a.severity == Severity::Critical).count() as u64;
        meter.anomalies.add("critical", critical);
        meter.anomalies.add("warning", anomalous - critical);
        for (outcome, n) in &self.records {
            meter.records.add(outcome, *n);
        }
        for (class, n) in &self.rejects {
            meter.rejects.add(class.as_str(), *n);
        }
    }
}

/// Encodes an anomaly. The buffer has space for the window, a few thousand bytes of digits, from the start.
fn json(anomaly: &Anomaly) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(512 + anomaly.window.len() * 20);
    serde_json::to_writer(&mut text, anomaly).ok()?;
    Some(text)
}

/// Returns the record's own time; `None` outside of the supported years. The wall clock does not replace it, because an
/// anomaly depends on the log alone.
fn own_time(record: &ConsumedRecord<'_>) -> Option<Timestamp> {
    record.timestamp.and_then(Timestamp::from_millis)
}

/// Removes U+0000, which PostgreSQL's text cannot contain, and truncates a long label.
fn label(text: &str) -> String {
    let mut label = text.replace('\0', "\u{fffd}");
    label.truncate(label.floor_char_boundary(MAX_LABEL));
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_covered_by_the_minute_of_judging() {
        let mut staged =
            PendingTransaction { now: Timestamp::from_millis(10 * DAY_MILLIS), ..PendingTransaction::default() };
        staged.cover(0, Timestamp::from_millis(10 * DAY_MILLIS - 120_000)).judged += 1;
        staged.cover(0, Timestamp::from_millis(1_000 * DAY_MILLIS)).judged += 1;
        let minutes = staged.coverage.iter().map(|((minute, _), _)| *minute).collect::<Vec<_>>();
        assert_eq!(minutes, [14_398, 14_400]);
    }
}
