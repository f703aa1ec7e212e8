//! The page about the detection: the state and lag of each partition, outcome counts and the policy in use. It also
//! shows the precision according to reviews and labels.

use serde::Serialize;

use super::filters::Filters;
use super::format::{age, counted, day, duration, grouped, rough};
use crate::page::cached_page::{Answer, Page};
use crate::page::frame::Frame;

use super::reports::{self, Current, Reports, SILENT_SECONDS};
use super::text::{TimeForm, isolated, named, timed};
use crate::archive::{Archive, Bins, ConditionRow, CoverageRow, NoAnswer, Quality, StatusRow};
use crate::event::Timestamp;
use crate::health::ConditionSeverity;
use crate::http::Response;
use crate::page::chart::minutes::{self, MinuteChart, minute_of};
use crate::page::query::{self, PageQuery, Span};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// Default span of the page.
const SPAN: Span = Span::Day;
/// Number of days for which precision is shown.
const DAYS: i64 = 30;
const DAY: i64 = 86_400_000;
/// Name under which the detector stores the overrides of its settings.
const OVERRIDES: &str = "override";

/// The page `/detection`, about the detectors
pub(crate) struct Detection;

impl Page for Detection {
    type Key = PageQuery;
    type Data = DetectionData;

    const NAV: &'static str = "detection";
    const ACCEPTS: &'static [&'static [&'static str]] = query::RANGE;
    const TEMPLATE: Template = ("detection.html", include_str!("../templates/detection.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<PageQuery> {
        (path == ["detection"]).then(|| query.still())
    }

    fn title(_: &PageQuery) -> (String, String) {
        ("Detection".to_owned(), "/detection".to_owned())
    }

    fn load(archive: &dyn Archive, key: &PageQuery, now: Timestamp) -> Result<DetectionData, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Detection>) -> Response {
        show(site, frame, answer.query, answer.data, answer.taken)
    }
}

/// Data that the page loads from the archive.
pub(crate) struct DetectionData {
    bins: Bins,
    coverage: Vec<CoverageRow>,
    reports: Reports,
    settings: Vec<(String, Vec<(String, String)>)>,
    quality: Vec<Quality>,
}

/// Loads the data from the archive.
fn load(archive: &dyn Archive, query: &PageQuery, now: Timestamp) -> Result<DetectionData, NoAnswer> {
    let bins = query.axis(SPAN, now);
    let coverage = archive.coverage(minute_of(bins.from), bins.to().unwrap_or(now), bins.grain())?;
    let reports = reports::load(archive, bins.from, bins.grain(), now)?;
    let mut hashes = reports.status.iter().map(|row| row.settings_hash.clone()).collect::<Vec<_>>();
    hashes.sort();
    hashes.dedup();
    let mut settings = Vec::new();
    for hash in hashes {
        let known = archive.settings(&hash)?.unwrap_or_default();
        settings.push((hash, known));
    }
    let first = Timestamp::from_millis(now.millis().div_euclid(DAY) * DAY - (DAYS - 1) * DAY).unwrap_or(now);
    let quality = archive.quality(first, Timestamp::from_millis(now.millis() + 1).unwrap_or(now))?;
    Ok(DetectionData { bins, coverage, reports, settings, quality })
}

#[derive(Serialize)]
struct DetectionContent {
    heading: String,
    filters: Filters,
    span: &'static str,
    judged: String,
    learning: String,
    /// Number of ignored records; empty if there are none.
    ignored: String,
    /// Number of values of excluded series; empty if there are none.
    excluded: String,
    rejected: String,
    refused: String,
    conditions: Vec<ConditionLine>,
    others: Vec<[String; 3]>,
    ribbon: String,
    has_excluded: bool,
    clock: String,
    partitions: Vec<PartitionLine>,
    settings: Vec<Settings>,
    quality: Vec<QualityLine>,
    precision: String,
}

/// A condition that a detector has reported.
#[derive(Serialize)]
struct ConditionLine {
    severity: &'static str,
    is_stale: bool,
    code: String,
    message: String,
    worker: String,
    since: String,
    report: String,
}

#[derive(Serialize)]
struct PartitionLine {
    topic: String,
    partition: i32,
    worker: String,
    state: String,
    is_silent: bool,
    committed: String,
    lag: String,
    series: String,
    event: String,
    report: String,
}

#[derive(Serialize)]
struct Settings {
    hash: String,
    pairs: Vec<[String; 2]>,
    overrides: Vec<OverrideLine>,
}

/// An override as a row of the table.
#[derive(Serialize)]
struct OverrideLine {
    device: String,
    metric: String,
    /// The settings that it replaces, such as `threshold = 4`.
    sets: Vec<String>,
}

#[derive(Serialize)]
struct QualityLine {
    day: String,
    all: String,
    right: String,
    wrong: String,
    expected: String,
    precision: String,
    labelled: String,
}

/// Renders the page from its data.
fn show(site: &Site, frame: Frame<'_>, query: &PageQuery, data: &DetectionData, taken: Timestamp) -> Response {
    let now = site.now();
    let current = data.reports.current(taken, now);
    let runs = minutes::runs(&data.bins, &data.coverage, &data.reports.arrivals, taken, current.is_reporting());
    let arrived = data.reports.arrived.tally;
    let chart = MinuteChart { bins: &data.bins, counts: &[], runs: &runs };
    let sum = |of: fn(&CoverageRow) -> u64| data.coverage.iter().map(of).sum::<u64>();
    // In an outage the axis ends at the time of the data, not at the current time.
    let end = frame.banner.is_some().then_some(taken);
    let (right, wrong) = data.quality.iter().fold((0, 0), |(r, w), day| (r + day.right, w + day.wrong));
    let content = DetectionContent {
        heading: heading(&current),
        filters: Filters::of("/detection", query, Some(SPAN)),
        span: query.words(SPAN),
        judged: rough(sum(|row| row.judged).max(arrived.judged)),
        learning: rough(sum(|row| row.learning).max(arrived.learning)),
        excluded: if arrived.excluded > 0 { rough(arrived.excluded) } else { String::new() },
        ignored: if arrived.ignored > 0 { rough(arrived.ignored) } else { String::new() },
        rejected: rough(sum(|row| row.rejected).max(arrived.rejected)),
        refused: match data.reports.refused {
            0 => String::new(),
            n => counted(n, "row", "rows"),
        },
        conditions: data.reports.all_conditions().map(|(row, is_fresh)| condition(row, is_fresh, now)).collect(),
        others: current
            .others
            .iter()
            .map(|(group, topic, last)| [named(group), named(topic), timed(*last, TimeForm::Moment, now)])
            .collect(),
        ribbon: chart.coverage(),
        has_excluded: minutes::has_excluded(&runs),
        clock: minutes::clock(&data.bins, end),
        partitions: data.reports.status.iter().map(|row| partition(row, &current, now)).collect(),
        settings: data.settings.iter().map(settings).collect(),
        quality: data.quality.iter().rev().map(line).collect(),
        precision: match right + wrong {
            0 => "No anomaly of these days was reviewed as true or false.".to_owned(),
            n => {
                format!("{} of {} reviewed anomalies were true alarms: {}", grouped(right), grouped(n), share(right, n))
            }
        },
    };
    respond::html(site, 200, "detection.html", &frame, &content)
}

/// Says how many partitions have been reported, and what is wrong with them.
fn heading(current: &Current<'_>) -> String {
    let silent = current.rows.len() - current.fresh();
    match (current.rows.len(), silent) {
        (0, _) if !current.conditions.is_empty() => "No partition has been reported yet".to_owned(),
        (0, _) => "No detector has reported yet".to_owned(),
        (n, 0) if current.degrading().next().is_some() => {
            let count = current.degrading().count() as u64;
            let partitions = counted(n as u64, "partition", "partitions");
            format!("{partitions} reported, {}", counted(count, "degrading condition", "degrading conditions"))
        }
        (n, 0) => format!("{} reported in the last {SILENT_SECONDS} s", counted(n as u64, "partition", "partitions")),
        (n, silent) => {
            let have = if silent == 1 { "has" } else { "have" };
            format!(
                "{silent} of {} {have} not reported for {SILENT_SECONDS} s",
                counted(n as u64, "partition", "partitions")
            )
        }
    }
}

fn condition(row: &ConditionRow, is_fresh: bool, now: Timestamp) -> ConditionLine {
    ConditionLine {
        severity: if row.severity == ConditionSeverity::Degraded { "degraded" } else { "notice" },
        is_stale: !is_fresh,
        code: isolated(&row.code),
        message: named(&row.message),
        worker: isolated(&row.worker),
        since: timed(row.since, TimeForm::Moment, now),
        report: match row.age {
            age if age < -SILENT_SECONDS => format!("{} ahead", duration((-age * 1000.0) as i64)),
            age => duration((age.max(0.0) * 1000.0) as i64),
        },
    }
}

fn partition(row: &StatusRow, current: &Current<'_>, now: Timestamp) -> PartitionLine {
    PartitionLine {
        topic: isolated(&row.topic),
        partition: row.partition,
        worker: isolated(&row.worker),
        state: isolated(&row.state),
        is_silent: current.is_silent(row),
        committed: row.committed.map_or("\u{2014}".to_owned(), |offset| grouped(offset.unsigned_abs())),
        lag: row.lag.map_or("not known".to_owned(), |lag| grouped(lag.unsigned_abs())),
        series: grouped(row.series.unsigned_abs()),
        event: row.event_time.map_or("\u{2014}".to_owned(), |time| timed(time, TimeForm::Moment, now)),
        report: age(row.updated_at, now),
    }
}

fn settings((hash, pairs): &(String, Vec<(String, String)>)) -> Settings {
    let hash = hash.get(..12).unwrap_or(hash).to_owned();
    let mut set = Settings { hash, pairs: Vec::new(), overrides: Vec::new() };
    for (name, value) in pairs {
        match overrides(value).filter(|_| name == OVERRIDES) {
            Some(lines) => set.overrides = lines,
            None => set.pairs.push([isolated(name), isolated(value)]),
        }
    }
    set
}

/// Reads the overrides from JSON; returns `None` if they have another form. A key that this program does not know is
/// shown as it is, because a newer detector may have written it.
fn overrides(json: &str) -> Option<Vec<OverrideLine>> {
    let tables = serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(json).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pattern = |table: &serde_json::Map<_, _>, name| isolated(&table.get(name).map_or_else(|| "*".into(), text));
    let sets = |table: &serde_json::Map<String, _>| {
        let limits = table.iter().filter(|(name, _)| *name != "device" && *name != "metric");
        limits.map(|(name, value)| isolated(&format!("{name} = {}", text(value)))).collect()
    };
    let line =
        |table| OverrideLine { device: pattern(table, "device"), metric: pattern(table, "metric"), sets: sets(table) };
    Some(tables.iter().map(line).collect())
}

fn line(of: &Quality) -> QualityLine {
    QualityLine {
        day: day(of.day),
        all: grouped(of.all),
        right: grouped(of.right),
        wrong: grouped(of.wrong),
        expected: grouped(of.expected),
        precision: share(of.right, of.right + of.wrong),
        labelled: if of.labelled == 0 { "\u{2014}".to_owned() } else { share(of.labelled, of.all) },
    }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "\u{2014}".to_owned() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}
