//! Judges a batch of records on all cores: decodes in parallel, then each core judges its own series in order. A
//! verdict depends only on its series, so the number of cores has no effect.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use rayon::prelude::*;

use super::order::TimeOrder;
use super::print::{ResultWriter, ScoredLine};
use crate::anomaly::RecordId;
use crate::detect::{Detector, Judge, Verdict};
use crate::error::Result;
use crate::event::{Decoded, Event, Rejection};
use crate::source::file::{LineCount, RecordBatch};

/// Maximum number of records per batch.
pub(crate) const BATCH_RECORDS: usize = 16_384;

/// Minimum number of records per core.
const MIN_RECORDS_PER_CORE: usize = 256;

/// Counts of the outcomes of a file.
#[derive(Default)]
pub(crate) struct ScoreCounts {
    /// Number of events, abnormal or not.
    pub accepted: u64,
    /// Number of events before `min_samples`.
    pub learning: u64,
    /// Number of events that are abnormal.
    pub anomalies: u64,
    /// Number of records with an event.
    pub judged_records: u64,
    /// Number of these that have an invalid value too, which is among the rejections.
    pub partial: u64,
    /// Number of records that the settings ignore, or that have no value.
    pub ignored: u64,
    /// Number of events with a metric.
    pub with_metric: u64,
    /// Number of events with a time.
    pub with_time: u64,
    /// Number of events whose time is before that of the previous one in their series, with the first line.
    pub backwards: LineCount,
}

impl ScoreCounts {
    fn join(&mut self, other: &ScoreCounts) {
        self.accepted += other.accepted;
        self.learning += other.learning;
        self.anomalies += other.anomalies;
        self.with_metric += other.with_metric;
        self.with_time += other.with_time;
    }
}

/// A line to write, and the indexes of its record in the batch and of its value in the record.
pub(crate) type ResultLine = ((usize, i32), Vec<u8>);

/// Result of a batch. Indexes are those in the batch, ascending.
#[derive(Default)]
pub(crate) struct JudgedBatch {
    /// Lines to write, with their line ends.
    pub lines: Vec<ResultLine>,
    /// Indexes of rejected records, and of those that are judged by their valid values only, with the reasons.
    pub rejections: Vec<(usize, Rejection)>,
}

/// One detector for each core.
pub(crate) struct ParallelDetectors {
    judges: Vec<(Detector, TimeOrder)>,
    hasher: DefaultHashBuilder,
    print: ResultWriter,
    source: RecordId,
}

/// Result of one core's share of a batch.
struct Share {
    lines: Vec<ResultLine>,
    counts: ScoreCounts,
    /// Indexes of events whose time is before that of the previous one.
    backwards: Vec<usize>,
}

impl ParallelDetectors {
    /// Creates the detectors with `make`; `source` names the input.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn new(make: impl Fn() -> Result<Detector>, print: ResultWriter, source: RecordId) -> Result<Self> {
        let make = |_| Ok((make()?, TimeOrder::default()));
        let judges = (0..rayon::current_num_threads()).map(make).collect::<Result<Vec<_>>>()?;
        Ok(ParallelDetectors { judges, hasher: DefaultHashBuilder::default(), print, source })
    }

    /// Judges the records in their order, and adds to the counts.
    pub(crate) fn judge(&mut self, batch: &RecordBatch, counts: &mut ScoreCounts) -> JudgedBatch {
        let ParallelDetectors { judges, hasher, print, source } = self;
        let many = judges.len() as u64;
        let decode = |at| {
            let events = batch.events(at)?;
            let hash = |(_, event): (i32, &Event<'_>)| hasher.hash_one((&event.device_id, &event.metric_name));
            let first = events.events().next().map_or(0, hash);
            let others = events.events().skip(1).map(hash).collect();
            Ok(Hashed { events, first, others })
        };
        let decoded = (0..batch.len()).into_par_iter().with_min_len(MIN_RECORDS_PER_CORE).map(decode);
        let decoded = decoded.collect::<Vec<Result<_, Rejection>>>();
        let shares = judges.par_iter_mut().enumerate().map(|(me, (detector, order))| {
            let mut share = Share { lines: Vec::new(), counts: ScoreCounts::default(), backwards: Vec::new() };
            let mut source = source.clone();
            detector.within(0, |judge| {
                for (at, record) in decoded.iter().enumerate() {
                    for (series, index, event) in record.iter().flat_map(Hashed::all) {
                        if series % many != me as u64 {
                            continue;
                        }
                        (source.offset, source.index) = (batch.row(at).index, index);
                        if event.timestamp.is_some_and(|time| order.is_backwards(series, time)) {
                            share.backwards.push(at);
                        }
                        let line = outcome(judge, *print, &source, event, &mut share.counts);
                        share.lines.extend(line.map(|line| ((at, index), line)));
                    }
                }
            });
            // There are no aborts here. Without this call the undo log would grow with the file.
            detector.commit();
            share
        });
        let mut judged = JudgedBatch::default();
        let mut backwards = Vec::new();
        for share in shares.collect::<Vec<_>>() {
            judged.lines.extend(share.lines);
            backwards.extend(share.backwards);
            counts.join(&share.counts);
        }
        judged.lines.sort_unstable_by_key(|(at, _)| *at);
        backwards.sort_unstable();
        backwards.iter().for_each(|at| counts.backwards.add(batch.row(*at).line));
        let accepted = decoded.iter().flatten().filter(|record| !record.events.is_empty());
        let partial = accepted.clone().filter(|record| record.events.partial().is_some());
        counts.judged_records += accepted.clone().count() as u64;
        counts.partial += partial.count() as u64;
        counts.ignored += (decoded.iter().flatten().count() - accepted.count()) as u64;
        let problem = |record: Result<Hashed<'_>, Rejection>| match record {
            Ok(record) => record.events.partial().cloned(),
            Err(rejection) => Some(rejection),
        };
        let all = decoded.into_iter().enumerate();
        judged.rejections = all.filter_map(|(at, record)| Some((at, problem(record)?))).collect();
        judged
    }
}

/// The events of a record, and the hashes of their series.
struct Hashed<'a> {
    events: Decoded<'a>,
    first: u64,
    others: Vec<u64>,
}

impl<'a> Hashed<'a> {
    fn all(&self) -> impl Iterator<Item = (u64, i32, &Event<'a>)> {
        let series = std::iter::once(self.first).chain(self.others.iter().copied());
        series.zip(self.events.events()).map(|(series, (index, event))| (series, index, event))
    }
}

/// Returns the line for an event, if there is one.
fn outcome(
    judge: &mut Judge<'_>,
    print: ResultWriter,
    source: &RecordId,
    event: &Event<'_>,
    counts: &mut ScoreCounts,
) -> Option<Vec<u8>> {
    counts.accepted += 1;
    counts.with_metric += u64::from(event.metric_name.is_some());
    counts.with_time += u64::from(event.timestamp.is_some());
    let at = event.timestamp;
    if print.is_all {
        let explained = judge.explain(source, event, at);
        counts.learning += u64::from(explained.is_none());
        counts.anomalies += u64::from(explained.as_ref().is_some_and(|(figures, _)| figures.abnormal));
        return print.outcome(&ScoredLine::of(source, event, explained.as_ref().map(|(figures, _)| figures)));
    }
    match judge.judge(source, event, at, || None) {
        Verdict::Learning => counts.learning += 1,
        Verdict::Normal | Verdict::Excluded => {}
        Verdict::Anomalous(anomaly) => {
            counts.anomalies += 1;
            return print.anomaly(&anomaly);
        }
    }
    None
}
