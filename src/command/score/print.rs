//! Writes a verdict as JSON, or as a row of a table for reading.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::anomaly::{Anomaly, RecordId};
use crate::event::{Event, Timestamp};
use crate::foreign;
use crate::method::Judgement;

/// The writer of results, and its form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResultWriter {
    /// Write a line for every event, not only for anomalies.
    pub is_all: bool,
    /// Write a table for reading.
    pub is_table: bool,
}

/// A line of `--all`: numbers are null before `min_samples`, the time is null if the record has none. Mean
/// and deviation are null if the method has none.
#[derive(Serialize)]
pub(crate) struct ScoredLine<'a> {
    device_id: &'a str,
    metric_name: Option<&'a str>,
    metric_value: f64,
    timestamp: Option<Timestamp>,
    mean: Option<f64>,
    std_dev: Option<f64>,
    z_score: Option<f64>,
    score: Option<f64>,
    expected: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    is_anomaly: bool,
    /// Further numbers of the method; absent if it has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    evidence: BTreeMap<&'static str, f64>,
    /// What within the method is most abnormal; absent if the method has one criterion only.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Number of values until one is at least as abnormal; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    return_period_events: Option<f64>,
    /// Seconds until then; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    return_period_seconds: Option<f64>,
    /// Whether an episode begins here; absent if the method does not decide it.
    #[serde(skip_serializing_if = "Option::is_none")]
    opens: Option<bool>,
    source: &'a RecordId,
}

impl<'a> ScoredLine<'a> {
    /// Creates the line of an event; `figures` are present once its series is judged.
    pub(crate) fn of(source: &'a RecordId, event: &'a Event<'_>, figures: Option<&Judgement>) -> Self {
        ScoredLine {
            device_id: &event.device_id,
            metric_name: event.metric_name.as_deref(),
            metric_value: event.metric_value,
            timestamp: event.timestamp,
            mean: figures.and_then(|f| f.mean),
            std_dev: figures.and_then(|f| f.std_dev),
            z_score: figures.and_then(|f| f.z_score),
            score: figures.map(|f| f.score),
            expected: figures.map(|f| f.expected),
            lower: figures.map(|f| f.lower),
            upper: figures.map(|f| f.upper),
            is_anomaly: figures.is_some_and(|f| f.abnormal),
            evidence: figures.into_iter().flat_map(|f| f.evidence.into_iter().flatten()).collect(),
            reason: figures.and_then(|f| f.reason),
            return_period_events: figures.and_then(|f| f.return_period_events),
            return_period_seconds: figures.and_then(|f| f.return_period_seconds),
            opens: figures.and_then(|f| f.opens),
            source,
        }
    }
}

impl ResultWriter {
    /// Returns the text before the first line.
    pub(crate) fn header(self) -> String {
        if !self.is_table {
            return String::new();
        }
        let (time, device, metric, value, band, score) = ("TIME", "DEVICE", "METRIC", "VALUE", "EXPECTED", "SCORE");
        format!("{time:<24}  {device:<18}  {metric:<15}  {value:>9}  {band:<23}  {score:>8}  VERDICT\n")
    }

    /// Returns the line of an anomaly.
    pub(crate) fn anomaly(self, anomaly: &Anomaly) -> Option<Vec<u8>> {
        if !self.is_table {
            return json(anomaly);
        }
        let Anomaly { device_id, metric_name, metric_value, timestamp, lower, upper, score, severity, .. } = anomaly;
        let columns = Columns {
            time: *timestamp,
            device: device_id,
            metric: metric_name.as_deref(),
            value: *metric_value,
            band: Some((*lower, *upper)),
            score: Some(*score),
            verdict: severity.as_str(),
        };
        Some(columns.line())
    }

    /// Returns the line of any event.
    pub(crate) fn outcome(self, outcome: &ScoredLine<'_>) -> Option<Vec<u8>> {
        if !self.is_table {
            return json(outcome);
        }
        let verdict = match (outcome.score, outcome.is_anomaly) {
            (None, _) => "learning",
            (_, false) => "normal",
            (_, true) => "abnormal",
        };
        let columns = Columns {
            time: outcome.timestamp,
            device: outcome.device_id,
            metric: outcome.metric_name,
            value: outcome.metric_value,
            band: outcome.lower.zip(outcome.upper),
            score: outcome.score,
            verdict,
        };
        Some(columns.line())
    }
}

/// This cannot fail: all numbers are finite, all names are text.
fn json<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line)
}

/// The cells of a row of the table.
struct Columns<'a> {
    time: Option<Timestamp>,
    device: &'a str,
    metric: Option<&'a str>,
    value: f64,
    band: Option<(f64, f64)>,
    score: Option<f64>,
    verdict: &'a str,
}

impl Columns<'_> {
    fn line(&self) -> Vec<u8> {
        let time = self.time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let (device, metric) = (name(self.device, 18), name(self.metric.unwrap_or("-"), 15));
        let value = number(self.value);
        let band = self.band.map_or_else(String::new, |(low, high)| format!("{} to {}", number(low), number(high)));
        let score = match self.score {
            None => String::new(),
            // The window has no deviation.
            Some(f64::MAX) => "-".to_owned(),
            Some(score) => format!("{score:.1}"),
        };
        let verdict = self.verdict;
        format!("{time:<24}  {device:<18}  {metric:<15}  {value:>9}  {band:<23}  {score:>8}  {verdict}\n").into_bytes()
    }
}

/// Truncates a name to this many characters.
fn name(text: &str, most: usize) -> String {
    let text = foreign::name(text).to_string();
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// Formats a number with at most six significant digits.
fn number(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{x:.3e}");
    }
    let whole = if size < 1.0 { 1 } else { size.log10() as usize + 1 };
    let text = format!("{x:.*}", 6_usize.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (21.5, "21.5"),
            (-1234.5678, "-1234.57"),
            (100_000.0, "100000"),
            (1e9, "1.000e9"),
            (0.000_012, "1.200e-5"),
            (0.25, "0.25"),
        ] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn an_event_is_learning_only_without_a_score_whatever_its_method_computes() {
        let source = RecordId { topic: "t".into(), generation: 0, partition: 0, offset: 0, index: 0 };
        let event = Event { device_id: "d".into(), metric_name: None, metric_value: 1.0, timestamp: None };
        let figures = Judgement {
            mean: None,
            std_dev: None,
            z_score: None,
            score: 0.5,
            threshold: 3.0,
            expected: 1.0,
            lower: 0.0,
            upper: 2.0,
            abnormal: false,
            evidence: Default::default(),
            reason: None,
            return_period_events: None,
            return_period_seconds: None,
            opens: None,
        };
        let writer = ResultWriter { is_all: true, is_table: true };
        let line =
            |figures| String::from_utf8(writer.outcome(&ScoredLine::of(&source, &event, figures)).unwrap()).unwrap();
        assert!(line(Some(&figures)).ends_with("  normal\n") && line(None).ends_with("  learning\n"));
    }

    #[test]
    fn columns_stand_below_their_titles_and_names_cannot_leave_them() {
        let columns = Columns {
            time: Timestamp::from_millis(0),
            device: "a\u{1b}[31m and a name that is far too long",
            metric: None,
            value: 93.1,
            band: Some((20.56, 22.42)),
            score: Some(231.0),
            verdict: "critical",
        };
        let line = String::from_utf8(columns.line()).unwrap();
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z  a\\u{1b}[31m and a…  -                     93.1  20.56 to 22.42           \
             \u{20}  231.0  critical\n"
        );
        let header = ResultWriter { is_all: false, is_table: true }.header();
        let place = |line: &str, word: &str| line.replace('…', ".").find(word);
        assert_eq!(place(&header, "VERDICT"), place(&line, "critical"));
    }
}
