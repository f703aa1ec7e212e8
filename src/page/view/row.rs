//! An anomaly as a table row: severity, time, device, metric, window, numbers, and a link to its page.

use serde::Serialize;

use super::format::{DisplayedNumbers, age, grouped, moment, signed};
use super::links::{anomaly_key, anomaly_url, device_url};
use super::review;
use super::text::{TimeForm, isolated, shown, timed};

use crate::archive::{Outside, StoredAnomaly};
use crate::event::Timestamp;
use crate::page::chart::spark;

/// Age in milliseconds up to which a row is highlighted.
const NEW: i64 = 30_000;

/// Values for the template of the row.
#[derive(Debug, Serialize)]
pub(crate) struct AnomalyRow {
    /// Identity of the row within the page.
    pub key: String,
    severity: &'static str,
    time: String,
    iso: String,
    age: String,
    detected: String,
    detected_age: String,
    device: String,
    device_url: String,
    metric: String,
    /// Description of the row as plain text, for screen readers.
    label: String,
    spark: String,
    value: String,
    exact: String,
    expected: String,
    z: String,
    meter: String,
    url: String,
    review: &'static str,
    /// The newest review in words.
    reviewed: &'static str,
    /// Whether the anomaly was detected just now.
    pub is_new: bool,
}

impl AnomalyRow {
    /// Makes the row of an anomaly.
    pub(crate) fn of(record: &StoredAnomaly, now: Timestamp) -> AnomalyRow {
        let anomaly = &record.anomaly;
        let figures = DisplayedNumbers::of(anomaly);
        let time = anomaly.timestamp.unwrap_or(record.detected_at);
        let expected = format!("{} \u{2013} {}", figures.lower, figures.upper);
        let title = format!("{} values before, expected {expected}, then {}", anomaly.window.len(), figures.value);
        AnomalyRow {
            key: anomaly_key(&anomaly.id()),
            severity: anomaly.severity.as_str(),
            time: moment(time, now),
            iso: time.to_string(),
            age: age(time, now),
            detected: timed(record.detected_at, TimeForm::Moment, now),
            detected_age: age(record.detected_at, now),
            device: shown(&anomaly.device_id),
            device_url: device_url(&anomaly.device_id),
            metric: anomaly.metric_name.as_deref().map_or_else(|| "\u{2014}".into(), shown),
            label: format!(
                "{} {}, {}",
                isolated(&anomaly.device_id),
                anomaly.metric_name.as_deref().map(isolated).unwrap_or_default(),
                age(time, now)
            ),
            spark: spark::draw(anomaly, &title),
            value: figures.value,
            exact: signed(anomaly.metric_value),
            expected,
            z: figures.z,
            meter: spark::meter(anomaly),
            url: anomaly_url(record),
            review: record.review.as_str(),
            reviewed: review::words(record.review),
            is_new: (0..NEW).contains(&(now.millis() - record.detected_at.millis())),
        }
    }

    /// Makes the rows of several anomalies, in the same order.
    pub(crate) fn all(records: &[StoredAnomaly], now: Timestamp) -> Vec<AnomalyRow> {
        records.iter().map(|record| AnomalyRow::of(record, now)).collect()
    }
}

/// Makes the heading of the group of anomalies whose times are outside the range.
pub(crate) fn outside_heading(outside: &Outside, words: &str) -> String {
    let more = if outside.is_more { "More than " } else { "" };
    match outside.records.len() as u64 {
        0 => String::new(),
        1 => format!("{more}1 anomaly was detected in {words} and has an event time outside of it"),
        n => format!("{more}{} anomalies were detected in {words} and have event times outside of it", grouped(n)),
    }
}
