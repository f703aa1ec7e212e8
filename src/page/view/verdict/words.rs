//! Parts of the sentence: counts, the last anomaly, and the distance of event times from their arrival.

use super::{Facts, STILL};
use crate::archive::StoredAnomaly;
use crate::health::Activity;
use crate::page::view::format::{age, duration, grouped};
use crate::page::view::text::Sentence;

impl Facts<'_> {
    pub(super) fn anomalies(&self, n: u64) -> String {
        format!("{} {}{}", grouped(n), self.which, if n == 1 { "anomaly" } else { "anomalies" })
    }

    /// Counts the anomalies that were detected in the span with times outside of it.
    pub(super) fn detected(&self) -> String {
        match self.data.outside.records.len() as u64 {
            n if self.data.outside.is_more => format!("{}+ {}anomalies", grouped(n), self.which),
            n => self.anomalies(n),
        }
    }

    pub(super) fn counts(&self) -> Option<[String; 2]> {
        let total = self.data.total();
        (total.total() > 0).then(|| [grouped(total.critical), grouped(total.warning)])
    }

    /// Counts the anomalies of the range; empty if there are none.
    pub(super) fn found(&self) -> Sentence {
        match self.data.total().total() {
            0 => Sentence::default(),
            n => Sentence::say(&format!("{} in {}", self.anomalies(n), self.words)),
        }
    }

    pub(super) fn last(&self) -> Sentence {
        let Some(record) = self.data.newest.records.first() else { return Sentence::default() };
        let anomaly = &record.anomaly;
        let Some(time) = anomaly.timestamp else { return Sentence::default() };
        let sentence = Sentence::say(&format!("last {}, ", age(time, self.now))).name(&anomaly.device_id);
        anomaly.metric_name.iter().fold(sentence, |sentence, metric| sentence.and(" ").name(metric))
    }

    pub(super) fn usual(&self, total: u64) -> Sentence {
        let usual = |usual| format!("{} \u{d7} a usual hour", times(total, usual));
        self.data.usual.filter(|_| total > 0).map_or_else(Sentence::default, |n| Sentence::say(&usual(n)))
    }

    /// Describes anomalies that were detected in the span with times outside of it.
    pub(super) fn beyond(&self, total: u64) -> Sentence {
        let records = &self.data.outside.records;
        let Some(first) = records.first() else { return Sentence::default() };
        let more = if self.data.outside.is_more { "+" } else { "" };
        let whose = if records.len() == 1 { "its time is" } else { "their times are up to" };
        let far = records.iter().map(distance).max_by_key(|millis| millis.abs()).unwrap_or_else(|| distance(first));
        let far = format!("{} {}", duration(far.abs()), if far > 0 { "ahead" } else { "behind" });
        Sentence::say(&match total {
            0 => format!("{whose} {far}"),
            _ => format!("{}{more} more detected, {whose} {far}", grouped(records.len() as u64)),
        })
    }

    /// Describes events whose times differ from their arrival.
    pub(super) fn times(&self) -> Sentence {
        let arrived = &self.data.reports.arrived;
        let events = arrived.tally.judged + arrived.tally.learning;
        match arrived.late + arrived.early {
            0 => Sentence::default(),
            off if off >= events => Sentence::say(&format!("all event times are {}", offset(arrived))),
            off => Sentence::say(&format!(
                "the times of {} of {} events are {}",
                grouped(off),
                grouped(events),
                offset(arrived)
            )),
        }
    }

    /// Reports that no input has arrived for a while.
    pub(super) fn still(&self) -> Sentence {
        let last = self.current.rows.iter().filter_map(|row| row.arrived_at).max();
        match last.filter(|last| self.taken.millis() - last.millis() > STILL && self.data.reports.skew().is_none()) {
            Some(last) => {
                Sentence::say(&format!("nothing arrived for {}", duration(self.taken.millis() - last.millis())))
            }
            None => Sentence::default(),
        }
    }
}

/// Returns by how many milliseconds a record's own time is ahead of its detection.
fn distance(record: &StoredAnomaly) -> i64 {
    record.anomaly.timestamp.map_or(0, |time| time.millis() - record.detected_at.millis())
}

/// Describes an average distance: "2 h behind", "10 min ahead".
pub(super) fn offset(arrived: &Activity) -> String {
    let mean = |sum: i64, n: u64| duration(sum / (n.max(1) as i64) * 1000);
    let late = (arrived.late > 0).then(|| format!("{} behind", mean(arrived.late_seconds, arrived.late)));
    let early = (arrived.early > 0).then(|| format!("{} ahead", mean(arrived.early_seconds, arrived.early)));
    [late, early].into_iter().flatten().collect::<Vec<_>>().join(" or ")
}

/// Formats a ratio, with one decimal if it is small.
fn times(now: u64, usual: u64) -> String {
    let ratio = now as f64 / usual as f64;
    if ratio < 10.0 { format!("{ratio:.1}") } else { grouped(ratio.round() as u64) }
}
