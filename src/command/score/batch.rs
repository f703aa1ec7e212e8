//! A batch of rows, judged on all cores: decoded side by side, then each core judges the series that are its own, in order.
//! A verdict depends on the series alone, so the number of cores changes nothing.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use rayon::prelude::*;
use serde::Serialize;

use crate::anomaly::Source;
use crate::detect::{Detector, Judge, Verdict};
use crate::error::Result;
use crate::event::{Event, Fields, Instant, Rejection};
use crate::rule::Figures;
use crate::source::file::Row;

/// Fewest rows that are worth another core.
const SHARE: usize = 256;

/// A line of `--all`: figures are null before `min_samples`, the time is null when the record has none.
#[derive(Serialize)]
struct Line<'a> {
    device_id: &'a str,
    metric_name: Option<&'a str>,
    metric_value: f64,
    timestamp: Option<Instant>,
    mean: Option<f64>,
    std_dev: Option<f64>,
    z_score: Option<f64>,
    score: Option<f64>,
    is_anomaly: bool,
    source: &'a Source,
}

/// How many of each.
#[derive(Default)]
pub struct Counts {
    /// Events, abnormal or not.
    pub accepted: u64,
    /// Of these, before `min_samples`.
    pub learning: u64,
    /// Of these, abnormal.
    pub anomalies: u64,
    /// Rows that are no events.
    pub rejected: u64,
}

/// What became of a batch. Places are those in the batch, ascending.
#[derive(Default)]
pub struct Judged {
    /// Lines to write, with their ends.
    pub lines: Vec<(usize, Vec<u8>)>,
    /// Rows that are no events.
    pub rejections: Vec<(usize, Rejection)>,
}

/// A detector for each core.
pub struct Judges {
    detectors: Vec<Detector>,
    hasher: DefaultHashBuilder,
    fields: Fields,
    /// Of rows without a device.
    device: String,
    /// A line for every event.
    tells_all: bool,
    source: Source,
}

impl Judges {
    /// `make` makes a detector; `source` names the input.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(
        make: impl Fn() -> Result<Detector>,
        fields: Fields,
        device: String,
        tells_all: bool,
        source: Source,
    ) -> Result<Self> {
        let detectors = (0..rayon::current_num_threads()).map(|_| make()).collect::<Result<Vec<_>>>()?;
        Ok(Judges { detectors, hasher: DefaultHashBuilder::default(), fields, device, tells_all, source })
    }

    /// Judges the rows in their order, and adds to the counts.
    pub fn judge(&mut self, rows: &[Row], counts: &mut Counts) -> Judged {
        let Judges { detectors, hasher, fields, device, tells_all, source } = self;
        let many = detectors.len();
        let decode = |row| {
            Row::event(row, fields, device).map(|event| {
                let owner = hasher.hash_one((&event.device_id, &event.metric_name)) % many as u64;
                (owner as usize, event)
            })
        };
        let decoded = rows.par_iter().with_min_len(SHARE).map(decode).collect::<Vec<_>>();
        let shares = detectors.par_iter_mut().enumerate().map(|(me, detector)| {
            let (mut lines, mut counts) = (Vec::new(), Counts::default());
            let mut source = source.clone();
            detector.within(0, |judge| {
                for (at, event) in decoded.iter().enumerate() {
                    if let Ok((owner, event)) = event
                        && *owner == me
                    {
                        source.offset = rows[at].index;
                        let line = outcome(judge, *tells_all, &source, event, &mut counts);
                        lines.extend(line.map(|line| (at, line)));
                    }
                }
            });
            // Nobody takes anything back here; without this the trail would grow with the file.
            detector.commit();
            (lines, counts)
        });
        let mut judged = Judged::default();
        for (lines, share) in shares.collect::<Vec<_>>() {
            judged.lines.extend(lines);
            counts.accepted += share.accepted;
            counts.learning += share.learning;
            counts.anomalies += share.anomalies;
        }
        judged.lines.sort_unstable_by_key(|(at, _)| *at);
        judged.rejections =
            decoded.into_iter().enumerate().filter_map(|(at, event)| Some((at, event.err()?))).collect();
        counts.rejected += judged.rejections.len() as u64;
        judged
    }
}

/// The line to write about an event, if any.
fn outcome(
    judge: &mut Judge<'_>,
    tells_all: bool,
    source: &Source,
    event: &Event<'_>,
    counts: &mut Counts,
) -> Option<Vec<u8>> {
    counts.accepted += 1;
    let at = event.timestamp;
    if tells_all {
        let explained = judge.explain(source, event, at);
        counts.learning += u64::from(explained.is_none());
        counts.anomalies += u64::from(explained.as_ref().is_some_and(|(figures, _)| figures.abnormal));
        return line(&about(source, event, explained.as_ref().map(|(figures, _)| figures)));
    }
    match judge.judge(source, event, at, || None) {
        Verdict::Learning => counts.learning += 1,
        Verdict::Normal => {}
        Verdict::Anomalous(anomaly) => {
            counts.anomalies += 1;
            return line(&anomaly);
        }
    }
    None
}

fn about<'a>(source: &'a Source, event: &'a Event<'_>, figures: Option<&Figures>) -> Line<'a> {
    Line {
        device_id: &event.device_id,
        metric_name: event.metric_name.as_deref(),
        metric_value: event.metric_value,
        timestamp: event.timestamp,
        mean: figures.map(|f| f.mean),
        std_dev: figures.map(|f| f.std_dev),
        z_score: figures.and_then(|f| f.z_score),
        score: figures.map(|f| f.score),
        is_anomaly: figures.is_some_and(|f| f.abnormal),
        source,
    }
}

/// Cannot fail: all numbers are finite, all names are text.
fn line<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line)
}
