//! Compares the outcome with a single-threaded run over the same input. Anomalies must be the exact multiset with their
//! windows, each with one row. Dead letters, counts and offsets must be equal, and offsets must never go back. The run
//! makes no decisions; [`decisions`] checks that each recorded one was due and none is missing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cluster::{Fate, LogEntry, SimulatedPartition, SimulatedTopic};
use super::decisions::Decisions;
use super::rewrites::{DecisionCause, Stretch};
use super::transactions::OffsetSet;
use super::world::{CONTEXT, ScheduleOutcome};
use crate::anomaly::{FIRST_GENERATION, RecordId};
use crate::config::resolved::{OnReject, StartPosition};
use crate::detect::{DetectionSettings, Detector, Verdict, hex};
use crate::event::{Decoded, Event, Parser, RawRecord, Timestamp};
use crate::series::SeriesLimits;
use crate::stream::progress::{OutcomeCounts, Progress};

/// Position of an event or a record with its output, and the number of such outputs.
type Multiset = BTreeMap<(i32, i64, Vec<u8>), usize>;

/// Settings of the processes, by fingerprint.
type SettingsByFingerprint = BTreeMap<String, DetectionSettings>;

/// Anomalies and dead letters of all partitions.
#[derive(Default)]
struct ExpectedOutputs {
    anomalies: Multiset,
    dead_letters: Multiset,
}

/// Returns what is wrong with the outcome, if anything.
pub(super) fn verify(outcome: &ScheduleOutcome) -> Result<(), String> {
    if let Some(failure) = outcome.failures.first() {
        return Err(failure.clone());
    }
    let cluster = &outcome.cluster;
    if let Some(wrong) = cluster.rewrites.wrongs.first() {
        return Err(wrong.clone());
    }
    if cluster.transactions.regressions > 0 {
        return Err("committed offsets went back".into());
    }
    if cluster.transactions.usurped > 0 {
        return Err("a worker continued at an offset of another program".into());
    }
    let (settings, epochs) = (settings_by_fingerprint(outcome), cluster.epochs());
    let parser = Parser::new(&outcome.config.fields).expect("paths");
    let mut expected = ExpectedOutputs::default();
    for ((_, partition), log) in cluster.topics.iter().filter(|((topic, _), _)| *topic == SimulatedTopic::Input) {
        let epochs = epochs.get(partition).map_or(&[][..], Vec::as_slice);
        let first = epochs.first().and_then(|(_, hash)| settings.get(hash)).or(settings.values().next());
        let detector = Detector::new(first.expect("settings").clone()).expect("methods");
        let (partition, counts, expected) = (*partition, OutcomeCounts::default(), &mut expected);
        let first = cluster.transactions.starts.get(&partition);
        let generation = first.map_or(FIRST_GENERATION, |first| first.progress.generation);
        let decisions = Decisions::new(outcome, partition, 0..0);
        let parser = &parser;
        let mut run = OracleRun { outcome, parser, partition, generation, detector, decisions, counts, expected };
        let counts = run.play_all(log, &settings, epochs)?;
        let found = cluster.transactions.offsets.get(&partition).map(|progress| progress.counts).unwrap_or_default();
        if found != counts {
            return Err(format!("[{partition}] counted {found}, expected {counts}"));
        }
    }
    if let Some(wrong) = cluster.database.wrongs.first() {
        return Err(wrong.clone());
    }
    let published = found(outcome, SimulatedTopic::Anomalies, place_of_anomaly);
    compare("anomalies", &expected.anomalies, &published)?;
    let rows = cluster.database.rows.iter();
    let rows = rows.map(|(id, value)| ((id.source.partition, id.source.offset, value.clone()), 1));
    compare("rows", &published, &rows.collect())?;
    compare("dead letters", &expected.dead_letters, &found(outcome, SimulatedTopic::DeadLetters, place_of_dead_letter))
}

fn settings_by_fingerprint(outcome: &ScheduleOutcome) -> SettingsByFingerprint {
    let SeriesLimits { max_series, idle_after } = SeriesLimits::default();
    let settings = outcome.policies.iter().map(|policy| DetectionSettings {
        policy: policy.clone(),
        context: CONTEXT,
        max_series,
        idle_after,
    });
    settings.map(|settings| (hex(&settings.fingerprint()), settings)).collect()
}

/// The single-threaded run over one partition.
struct OracleRun<'a> {
    outcome: &'a ScheduleOutcome,
    parser: &'a Parser,
    partition: i32,
    generation: i32,
    detector: Detector,
    decisions: Decisions,
    counts: OutcomeCounts,
    expected: &'a mut ExpectedOutputs,
}

impl OracleRun<'_> {
    /// Judges the stretches of the partition; returns the outcome counts that the group must have committed.
    fn play_all(
        &mut self,
        log: &SimulatedPartition,
        settings: &SettingsByFingerprint,
        epochs: &[(i64, String)],
    ) -> Result<OutcomeCounts, String> {
        let (outcome, partition) = (self.outcome, self.partition);
        let mut begin = start(outcome, partition)?;
        // The replay of the first start reads this part of the history.
        let mut filled_from = begin.saturating_sub(outcome.config.detector.history).max(0);
        let mut state_end = 0;
        for stretch in outcome.cluster.rewrites.past.get(&partition).into_iter().flatten() {
            self.decisions = Decisions::new(outcome, partition, state_end..stretch.state_end);
            let records = filled_from..stretch.judged.offset;
            self.play((&stretch.log, begin, records), settings, epochs, &stretch.sets)?;
            self.decisions.end(&mut self.detector)?;
            if self.counts != stretch.judged.counts {
                let (found, counts) = (stretch.judged.counts, self.counts);
                return Err(format!("[{partition}] counted {found}, expected {counts} before {:?}", stretch.incident));
            }
            self.check_next(stretch)?;
            // Windows are read back from the input.
            self.detector = Detector::new(self.detector.settings().clone()).expect("methods");
            (self.generation, self.counts) = (stretch.next.generation, stretch.next.counts);
            (begin, filled_from, state_end) = (stretch.next.offset, stretch.filled_from, stretch.state_end);
        }
        let sets = outcome.cluster.transactions.sets.iter().filter(|set| set.partition == partition).copied();
        self.decisions = Decisions::new(outcome, partition, state_end..usize::MAX);
        self.play((log, begin, filled_from..i64::MAX), settings, epochs, &sets.collect::<Vec<_>>())?;
        self.decisions.finish(&mut self.detector)?;
        Ok(self.counts)
    }

    /// Checks where the partition continues after a stretch.
    fn check_next(&self, stretch: &Stretch) -> Result<(), String> {
        let Stretch { incident, judged, next, cut_at, .. } = stretch;
        let expected = match incident {
            DecisionCause::Lost => Progress { last: next.last, ..*judged },
            DecisionCause::Cut => {
                Progress { offset: *cut_at, generation: judged.generation + 1, ..Progress::default() }
            }
            DecisionCause::RecreatedAtRuntime | DecisionCause::Recreated => {
                Progress { generation: judged.generation + 1, ..Progress::default() }
            }
        };
        let is_right = *next == expected && stretch.filled_from <= next.offset;
        let wrong = || format!("[{}] continued with {next:?} after {incident:?} at {judged:?}", self.partition);
        if is_right { Ok(()) } else { Err(wrong()) }
    }

    /// Judges a stretch from `begin` on. Earlier values fill the windows.
    fn play(
        &mut self,
        (log, begin, records): (&SimulatedPartition, i64, Range<i64>),
        settings: &SettingsByFingerprint,
        epochs: &[(i64, String)],
        sets: &[OffsetSet],
    ) -> Result<(), String> {
        let mut epochs = epochs.iter().peekable();
        // The check also needs the trimmed records.
        let all = (0..records.end).zip(&log.entries).filter(|(_, entry)| entry.fate == Fate::Committed);
        let mut sets = sets.iter().copied().peekable();
        let mut known = vec![(begin, self.counts)];
        for (offset, entry) in all.skip_while(|(offset, _)| *offset < records.start) {
            while let Some(set) = sets.next_if(|set| set.next.offset <= offset) {
                self.counts = counts_after(set, &known)?;
            }
            while let Some((_, hash)) = epochs.next_if(|(from, _)| *from <= offset) {
                self.detector.change(settings[hash].policy.clone());
            }
            let is_passed_by = offset < begin || sets.peek().is_some_and(|set| set.judged <= offset);
            self.record(offset, entry, is_passed_by)?;
            known.push((offset + 1, self.counts));
        }
        for set in sets {
            self.counts = counts_after(set, &known)?;
        }
        Ok(())
    }

    /// Judges one record. The values of a record that was passed by join the windows, but it has no outcome.
    fn record(&mut self, offset: i64, entry: &LogEntry, is_passed_by: bool) -> Result<(), String> {
        let input = RawRecord { key: entry.key.as_deref(), value: entry.value.as_deref(), headers: &() };
        let decoded = self.parser.read(&input);
        let is_dropped = self.outcome.config.detector.on_reject == OnReject::Drop;
        if !is_passed_by && !is_dropped && decoded.as_ref().map_or(true, |events| events.partial().is_some()) {
            let value = entry.value.clone().unwrap_or_default();
            *self.expected.dead_letters.entry((self.partition, offset, value)).or_default() += 1;
        }
        let counts = &mut self.counts;
        let Ok(events) = decoded else {
            *if is_dropped { &mut counts.dropped } else { &mut counts.rejected } += u64::from(!is_passed_by);
            return Ok(());
        };
        if events.is_empty() {
            counts.ignored += u64::from(!is_passed_by);
            return Ok(());
        }
        self.decisions.apply(&mut self.detector, offset, &events, !is_passed_by)?;
        let topic = &self.outcome.config.topics.raw_events;
        let place = (self.generation, self.partition, offset);
        let verdicts = judge(&mut self.detector, topic, place, entry, &events);
        if !is_passed_by {
            self.counts.partial += u64::from(events.partial().is_some());
            self.note(offset, verdicts);
        }
        Ok(())
    }

    /// Counts a record by its most severe verdict, and expects its anomalies.
    fn note(&mut self, offset: i64, verdicts: Vec<Verdict>) {
        let (counts, has) = (&mut self.counts, |verdict: fn(&Verdict) -> bool| verdicts.iter().any(verdict));
        match () {
            () if has(|verdict| matches!(verdict, Verdict::Anomalous(_))) => counts.anomalous += 1,
            () if has(|verdict| *verdict == Verdict::Normal) => counts.normal += 1,
            () if has(|verdict| *verdict == Verdict::Learning) => counts.learning += 1,
            () => counts.excluded += 1,
        }
        for verdict in verdicts {
            if let Verdict::Anomalous(anomaly) = verdict {
                let text = serde_json::to_vec(&anomaly).expect("an anomaly is JSON");
                *self.expected.anomalies.entry((self.partition, offset, text)).or_default() += 1;
            }
        }
    }
}

/// Returns the counts at an offset that was set, after checking them: some earlier counts of the partition, and the
/// offsets since then as skipped. The counts of the last checkpoint are the newest ones that are known then.
fn counts_after(set: OffsetSet, known: &[(i64, OutcomeCounts)]) -> Result<OutcomeCounts, String> {
    let OffsetSet { partition, judged, next: Progress { offset, counts, .. } } = set;
    let is_known = |(number, (at, before)): (usize, &(i64, OutcomeCounts))| {
        let skipped = counts.skipped.checked_sub(before.skipped).map_or(i64::MAX, |skipped| skipped as i64);
        let from = offset.saturating_sub(skipped);
        // Markers have no counts, so that the offset may be behind that of the last record.
        let is_next = known.get(number + 1).is_none_or(|(later, _)| from < *later);
        OutcomeCounts { skipped: counts.skipped, ..*before } == counts && *at <= from && from <= judged && is_next
    };
    if offset < judged || !known.iter().enumerate().any(is_known) {
        return Err(format!("[{partition}] was judged to {judged}, and set to {offset} with {counts}"));
    }
    Ok(counts)
}

/// Returns the offset at which the group started a partition, after checking that the settings demand it.
fn start(outcome: &ScheduleOutcome, partition: i32) -> Result<i64, String> {
    let transactions = &outcome.cluster.transactions;
    let Some(first) = transactions.starts.get(&partition) else { return Ok(0) };
    let offset = first.progress.offset;
    let is_latest = outcome.config.detector.start == StartPosition::Latest && !transactions.added.contains(&partition);
    // The end is read between these two moments. An added partition is judged completely.
    let allowed = if is_latest { first.end_before..=first.end_after } else { 0..=0 };
    if !allowed.contains(&offset) || first.progress.counts.sum() > 0 {
        return Err(format!("[{partition}] started with {:?}, expected an offset of {allowed:?}", first.progress));
    }
    Ok(offset)
}

fn judge(
    detector: &mut Detector,
    topic: &str,
    (generation, partition, offset): (i32, i32, i64),
    entry: &LogEntry,
    events: &Decoded<'_>,
) -> Vec<Verdict> {
    let verdicts = detector.within(partition, |judge| {
        judge.pass(Some(entry.time));
        let one = |(index, event): (i32, &Event<'_>)| {
            let source = RecordId { topic: topic.to_owned(), generation, partition, offset, index };
            judge.judge(&source, event, Timestamp::from_millis(entry.time), || None)
        };
        events.events().map(one).collect()
    });
    detector.commit();
    verdicts
}

fn found(outcome: &ScheduleOutcome, of: SimulatedTopic, place: impl Fn(&LogEntry) -> (i32, i64)) -> Multiset {
    let mut found = Multiset::new();
    for (_, log) in outcome.cluster.topics.iter().filter(|((topic, _), _)| *topic == of) {
        for (_, entry) in log.committed(0) {
            let (partition, offset) = place(entry);
            *found.entry((partition, offset, entry.value.clone().unwrap_or_default())).or_default() += 1;
        }
    }
    found
}

fn place_of_anomaly(entry: &LogEntry) -> (i32, i64) {
    let json = serde_json::from_slice::<serde_json::Value>(entry.value.as_deref().unwrap_or_default());
    let source = json.map(|json| json["source"].clone()).unwrap_or_default();
    (source["partition"].as_i64().unwrap_or(-1) as i32, source["offset"].as_i64().unwrap_or(-1))
}

fn place_of_dead_letter(entry: &LogEntry) -> (i32, i64) {
    let header = |name: &str| {
        let (_, value) = entry.headers.iter().find(|(key, _)| *key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()?.parse::<i64>().ok()
    };
    (header("anomaly.error.partition").unwrap_or(-1) as i32, header("anomaly.error.offset").unwrap_or(-1))
}

fn compare(what: &str, expected: &Multiset, found: &Multiset) -> Result<(), String> {
    let show = |(partition, offset, value): &(i32, i64, Vec<u8>)| {
        format!("[{partition}] {offset}: {}", String::from_utf8_lossy(value))
    };
    for (key, times) in expected {
        let found = found.get(key).copied().unwrap_or(0);
        if found != *times {
            return Err(format!("{what}: expected {times} times, found {found} times: {}", show(key)));
        }
    }
    match found.keys().find(|key| !expected.contains_key(*key)) {
        Some(key) => Err(format!("{what}: not expected: {}", show(key))),
        None => Ok(()),
    }
}
