//! The verdict on the detector itself, in one sentence with its checks. Quiet and stopped never sound alike: without a
//! heartbeat nothing is claimed, and without a judged value nothing is called normal.

use serde::Serialize;

use super::format::{age, counted, duration, grouped, moment, rough};
use super::overview::Data;
use crate::event::Instant;
use crate::page::asked::Asked;

/// A heartbeat is due every 5 s; three in a row are missing then.
pub const SILENT: f64 = 15.0;

/// How the strip looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// As it should be.
    #[default]
    Well,
    /// Values come, none has a verdict yet.
    Learning,
    /// Inverted: what is below may not be believed.
    Stopped,
}

impl Tone {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Tone::Well => "ok",
            Tone::Learning => "learning",
            Tone::Stopped => "stopped",
        }
    }
}

/// One check: a tick, a cross or a dash, its name, what it found.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    glyph: &'static str,
    name: &'static str,
    value: String,
    note: String,
}

/// The sentence above all else.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Strip {
    /// How it looks.
    pub tone: Tone,
    /// First words.
    pub lead: String,
    /// The words that count.
    pub strong: String,
    /// Last words.
    pub tail: String,
    /// What it means.
    pub detail: String,
    /// What to look at.
    pub command: Option<&'static str>,
    /// Anomalies by severity, when there are any.
    pub counts: Option<[String; 2]>,
    /// May be none.
    pub checks: Vec<Check>,
}

impl Strip {
    /// The whole sentence.
    pub fn sentence(&self) -> String {
        format!("{} {} {}", self.lead, self.strong, self.tail).trim_end().to_owned()
    }
}

/// What the heartbeats say together.
pub struct Pulse {
    /// Age of the newest in seconds, now; `None` without any.
    pub age: Option<f64>,
    /// Partitions that report.
    fresh: usize,
    partitions: usize,
}

impl Pulse {
    /// Of data that was taken a while ago.
    pub fn of(data: &Data, taken: Instant, now: Instant) -> Pulse {
        let since = (now.millis() - taken.millis()).max(0) as f64 / 1000.0;
        let ages = data.status.iter().map(|row| row.age.max(0.0) + since).collect::<Vec<_>>();
        Pulse {
            age: ages.iter().copied().reduce(f64::min),
            fresh: ages.iter().filter(|age| **age <= SILENT).count(),
            partitions: ages.len(),
        }
    }

    /// Whether any worker reports.
    pub fn is_reporting(&self) -> bool {
        self.fresh > 0
    }
}

/// The strip of the overview.
pub fn verdict(data: &Data, asked: &Asked, taken: Instant, now: Instant) -> Strip {
    let pulse = Pulse::of(data, taken, now);
    let words = asked.words(crate::page::asked::Span::Hour);
    let total = data.total();
    let judged = data.coverage.iter().map(|row| row.judged).sum::<u64>();
    let learning = data.coverage.iter().map(|row| row.learning).sum::<u64>();
    let last = data.newest.records.first().and_then(|record| {
        let anomaly = &record.anomaly;
        let metric = anomaly.metric_name.as_deref().map(|m| format!(" {m}")).unwrap_or_default();
        Some((age(anomaly.timestamp?, now), format!("{}{metric}", anomaly.device_id)))
    });
    let stopped_since = data.status.iter().map(|row| row.updated_at).max();
    let mut strip = match (pulse.age, stopped_since) {
        (None, _) | (_, None) => Strip {
            tone: Tone::Stopped,
            lead: "No detector has reported yet.".into(),
            strong: "Nothing is judged.".into(),
            detail: "This database has never heard from a detector.".into(),
            command: Some("systemctl status anomaly-detector"),
            ..Strip::default()
        },
        (Some(silence), Some(since)) if !pulse.is_reporting() => Strip {
            tone: Tone::Stopped,
            lead: "Detection has stopped.".into(),
            strong: format!("No report for {}.", duration((silence * 1000.0) as i64)),
            detail: format!(
                "The detector is not reporting since {}. Anomalies since then are not known.",
                moment(since, now)
            ),
            command: Some("journalctl -u anomaly-detector -n 50"),
            ..Strip::default()
        },
        _ if total.total() > 0 => Strip {
            lead: "Detecting.".into(),
            strong: counted(total.total(), "anomaly", "anomalies"),
            tail: format!("in {}.", words),
            detail: [
                last.map(|(age, _)| format!("last {age}")),
                data.usual.map(|usual| format!("{} \u{d7} a usual hour", times(total.total(), usual))),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" \u{b7} "),
            counts: Some([grouped(total.critical), grouped(total.warning)]),
            ..Strip::default()
        },
        _ if judged > 0 => Strip {
            lead: "Quiet.".into(),
            strong: "No anomalies".into(),
            tail: format!("in {}.", words),
            detail: match last {
                Some((age, who)) => format!("{} values judged \u{b7} last anomaly {age}, {who}", rough(judged)),
                None => format!("{} values judged, none abnormal", rough(judged)),
            },
            ..Strip::default()
        },
        _ if learning > 0 => Strip {
            tone: Tone::Learning,
            lead: "Learning.".into(),
            strong: "Nothing is judged yet.".into(),
            detail: match left(data, learning, taken) {
                Some(minutes) => format!("{} values seen; a series is judged in about {minutes} min.", rough(learning)),
                None => format!("{} values seen; a series is judged once it has enough of them.", rough(learning)),
            },
            ..Strip::default()
        },
        _ => Strip {
            lead: "Waiting.".into(),
            strong: "No event".into(),
            tail: format!("in {}.", words),
            detail: "The detector runs, but nothing came to be judged.".into(),
            ..Strip::default()
        },
    };
    strip.checks = checks(data, &pulse, judged, now, taken);
    strip
}

/// Minutes until a series of usual pace has enough values; `None` when that cannot be told.
fn left(data: &Data, learning: u64, taken: Instant) -> Option<u64> {
    const LATELY: i64 = 5;
    let series = data.status.iter().map(|row| row.series.max(0) as u64).sum::<u64>();
    let since = taken.millis() - LATELY * 60_000;
    let lately = data.coverage.iter().filter(|row| row.minute.millis() >= since).map(|row| row.learning).sum::<u64>();
    if series == 0 || lately == 0 {
        return None;
    }
    let missing = data.min_samples? as f64 - learning as f64 / series as f64;
    // Not before the minutes that were counted are over.
    let counted =
        data.coverage.first().map_or(1.0, |row| ((taken.millis() - row.minute.millis()) as f64 / 60_000.0).max(0.5));
    let pace = lately as f64 / series as f64 / counted.min(LATELY as f64);
    (missing > 0.0).then(|| (missing / pace).ceil() as u64)
}

fn checks(data: &Data, pulse: &Pulse, judged: u64, now: Instant, taken: Instant) -> Vec<Check> {
    let glyph = |is_well: bool| if is_well { "tick" } else { "cross" };
    let is_known = pulse.is_reporting();
    let mut states = data.status.iter().map(|row| row.state.as_str()).collect::<Vec<_>>();
    states.sort_unstable();
    states.dedup();
    let newest = pulse.age.map(|age| format!("reported {} ago", short(age)));
    let detector = Check {
        glyph: if pulse.partitions == 0 { "dash" } else { glyph(pulse.fresh == pulse.partitions) },
        name: "Detector",
        value: match pulse.partitions {
            0 => "not known".into(),
            all if pulse.fresh == all => states.join(", "),
            all => format!("{} of {all} partitions silent", all - pulse.fresh),
        },
        note: newest.unwrap_or_else(|| "no report".into()),
    };
    let lags = data.status.iter().map(|row| row.lag).collect::<Vec<_>>();
    let is_lag_known = is_known && lags.iter().all(Option::is_some);
    let lag = Check {
        glyph: if is_lag_known { "tick" } else { "dash" },
        name: "Kafka lag",
        value: match lags.iter().flatten().map(|lag| (*lag).max(0) as u64).sum() {
            _ if lags.iter().all(Option::is_none) => "not known".into(),
            sum => counted(sum, "event", "events"),
        },
        note: match (is_known, data.status.iter().map(|row| row.updated_at).max()) {
            (false, Some(since)) => format!("at {}", moment(since, now)),
            _ => counted(data.status.len() as u64, "partition", "partitions"),
        },
    };
    let rate = data.coverage.iter().rev().find(|row| row.minute.millis() + 60_000 <= taken.millis());
    let values = Check {
        glyph: if judged > 0 { glyph(is_known) } else { "dash" },
        name: "Judged",
        value: if judged == 0 { "nothing".into() } else { format!("{} values", rough(judged)) },
        note: match rate.map(|row| row.judged as f64 / 60.0) {
            Some(rate) if rate >= 10.0 => format!("{} a second", grouped(rate.round() as u64)),
            Some(rate) if rate > 0.0 => format!("{rate:.1} a second"),
            _ => "no full minute yet".into(),
        },
    };
    let database = Check {
        glyph: "tick",
        name: "Database",
        value: format!("answers in {:.1} ms", data.took.as_secs_f64() * 1000.0),
        note: format!("asked {}", age(taken, now)),
    };
    let series = data.status.iter().map(|row| row.series.max(0) as u64).sum::<u64>();
    let rejected = data.coverage.iter().map(|row| row.rejected).sum::<u64>();
    let series = Check {
        glyph: if data.status.is_empty() { "dash" } else { glyph(is_known) },
        name: "Series",
        value: if data.status.is_empty() { "not known".into() } else { format!("{} watched", grouped(series)) },
        note: if rejected == 0 {
            "no record rejected".into()
        } else {
            format!("{} records rejected", grouped(rejected))
        },
    };
    vec![detector, lag, values, database, series]
}

/// How many times as much, with a tenth while that means something.
fn times(now: u64, usual: u64) -> String {
    let ratio = now as f64 / usual as f64;
    if ratio < 10.0 { format!("{ratio:.1}") } else { grouped(ratio.round() as u64) }
}

/// Seconds, with a tenth while that means something.
fn short(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { duration((seconds * 1000.0) as i64) }
}
