//! The page of one device: its anomalies over time by metric, a chart of the last one of each metric, and the newest as
//! rows.

use serde::Serialize;

use super::filters::Filters;
use super::format::{DASH, DisplayedNumbers, age, grouped, number};
use super::links::{anomaly_url, device_url, segment};
use super::notice;
use super::reports::{self, has_ended, is_fresh};
use super::row::{AnomalyRow, outside_heading};
use super::text::{Sentence, isolated, shown};
use crate::anomaly::{Anomaly, Severity};
use crate::archive::{
    ActivityRow, AnomalyPage, Archive, Bins, Count, CoverageRow, Cursor, Filter, Known, MAX_LIMIT, NameCount, NoAnswer,
    Outside, StoredAnomaly,
};
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::cached_page::{Answer, Page};
use crate::page::chart::minutes::minute_of;
use crate::page::chart::{explain as drawing, history, minutes};
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery, Span};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// Default span; longer than that of the overview, since one device has few anomalies in an hour.
const SPAN: Span = Span::Day;
/// Maximum number of rows of the table.
const MAX_ROWS: usize = 20;
/// Maximum number of metrics shown as lanes and as small charts.
const METRICS: u32 = 8;

/// The pages `/devices/DEVICE` and `/devices/DEVICE/METRIC`.
pub(crate) struct Device;

impl Page for Device {
    type Key = (SeriesName, PageQuery);
    type Data = DeviceData;

    const NAV: &'static str = "devices";
    const ACCEPTS: &'static [&'static [&'static str]] = query::RANGE;
    const TEMPLATE: Template = ("device.html", include_str!("../templates/device.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<(SeriesName, PageQuery)> {
        let (device, metric) = match path {
            ["devices", device] => (query::named(device).ok()?, None),
            ["devices", device, metric] => (query::named(device).ok()?, Some(query::named(metric).ok()?)),
            _ => return None,
        };
        Some((SeriesName { device, metric }, query.still()))
    }

    fn title((name, _): &(SeriesName, PageQuery)) -> (String, String) {
        (name.title(), name.url())
    }

    fn load(archive: &dyn Archive, key: &(SeriesName, PageQuery), now: Timestamp) -> Result<DeviceData, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Device>) -> Response {
        if answer.data.is_unknown() {
            let frame = Frame { refresh: 0, ..frame };
            let text = "No event of a device with exactly this name has arrived so far. A device that has just started to send appears \
                        after some seconds; with very many devices, after some minutes.";
            return notice::page(site, 404, &frame, "There is no such device.", text);
        }
        show(site, frame, &answer.key.0, answer.query, answer.data, answer.taken)
    }
}

/// Data that the page loads from the archive.
pub(crate) struct DeviceData {
    bins: Bins,
    /// The newest anomalies of the span.
    page: AnomalyPage,
    /// Anomalies detected in the span with times outside of it.
    outside: Outside,
    metrics: Vec<NameCount>,
    /// The newest anomaly of each metric, inside or outside the span.
    last: Vec<StoredAnomaly>,
    coverage: Vec<CoverageRow>,
    arrivals: Vec<ActivityRow>,
    is_reporting: bool,
    /// What the archive knows of a device that has no anomaly.
    known: Option<Known>,
    cursor: Cursor,
}

impl DeviceData {
    /// Returns whether the archive has never seen the device.
    pub(crate) fn is_unknown(&self) -> bool {
        self.known == Some(Known::Unknown)
    }
}

/// A device, or one of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeriesName {
    /// Name of the device in its events.
    pub device: String,
    /// Name of the series' metric; `None` for all series of the device.
    pub metric: Option<String>,
}

impl SeriesName {
    /// Returns the URL path of the page.
    pub(crate) fn url(&self) -> String {
        let metric = self.metric.as_deref().map(|metric| format!("/{}", segment(metric))).unwrap_or_default();
        format!("{}{metric}", device_url(&self.device))
    }

    /// Returns the title of the page.
    pub(crate) fn title(&self) -> String {
        let metric = self.metric.as_deref().map(|metric| format!(" \u{b7} {}", isolated(metric))).unwrap_or_default();
        format!("{}{metric}", isolated(&self.device))
    }
}

/// Loads the data from the archive.
fn load(
    archive: &dyn Archive,
    (name, query): &(SeriesName, PageQuery),
    now: Timestamp,
) -> Result<DeviceData, NoAnswer> {
    let bins = query.axis(SPAN, now);
    let cursor = archive.position()?;
    let mut always = Filter { devices: vec![name.device.clone()], ..query.filter.clone() };
    if let Some(metric) = &name.metric {
        always.metrics = vec![metric.clone()];
    }
    let filter = Filter { from: Some(bins.from), to: bins.to(), ..always.clone() };
    let mut page = archive.newest(&filter, None, MAX_LIMIT)?;
    let metrics = archive.by_metric(&filter, METRICS)?;
    if page.records.is_empty() {
        // If the span has no anomalies, older ones are shown with their dates.
        page = archive.newest(&always, None, MAX_ROWS as u32)?;
    }
    let every = Filter { devices: always.devices.clone(), ..Filter::default() };
    // A range that the user gave refers to event times, so anomalies with other times do not belong to it.
    let outside = match query.filter.from.is_none() && query.filter.to.is_none() {
        true => archive.outside(&filter, bins.from, MAX_ROWS as u32)?,
        false => Outside::default(),
    };
    let is_empty = page.records.is_empty() && outside.records.is_empty();
    let known = match is_empty && archive.newest(&every, None, 1)?.records.is_empty() {
        true => Some(archive.knows(&name.device)?),
        false => None,
    };
    let mut last = Vec::<StoredAnomaly>::new();
    for record in &page.records {
        let is_known = |seen: &StoredAnomaly| seen.anomaly.metric_name == record.anomaly.metric_name;
        if last.len() < METRICS as usize && !last.iter().any(is_known) {
            last.push(record.clone());
        }
    }
    let coverage = archive.coverage(minute_of(bins.from), bins.to().unwrap_or(now), bins.grain())?;
    let status = archive.status()?;
    let arrivals = reports::arrivals(archive, &status, minute_of(bins.from), bins.grain())?;
    let is_reporting = status.iter().any(|row| is_fresh(row.age) && !has_ended(row));
    Ok(DeviceData { bins, page, outside, metrics, last, coverage, arrivals, is_reporting, known, cursor })
}

#[derive(Serialize)]
struct DeviceContent {
    name: String,
    metric: String,
    device_url: String,
    filters: Filters,
    summary: [String; 2],
    detail: String,
    none: Sentence,
    lanes: Vec<MetricLane>,
    scale: String,
    clock: String,
    cards: Vec<Card>,
    rows: Vec<AnomalyRow>,
    outside: Vec<AnomalyRow>,
    outside_heading: String,
    show_device: bool,
    older: String,
    all: String,
}

#[derive(Serialize)]
struct MetricLane {
    name: String,
    url: String,
    note: String,
    svg: String,
}

#[derive(Serialize)]
struct Card {
    metric: String,
    url: String,
    severity: &'static str,
    age: String,
    value: String,
    expected: String,
    z: String,
    left: String,
    plot: String,
    mean: String,
    std_dev: String,
    window: String,
}

/// Renders the page from its data.
fn show(
    site: &Site,
    frame: Frame<'_>,
    name: &SeriesName,
    query: &PageQuery,
    data: &DeviceData,
    taken: Timestamp,
) -> Response {
    let now = site.now();
    let words = query.words(SPAN);
    let total = data.metrics.iter().fold(Count::default(), |sum, metric| Count {
        critical: sum.critical + metric.count.critical,
        warning: sum.warning + metric.count.warning,
    });
    let last = data.page.records.first().and_then(|record| record.anomaly.timestamp);
    let mut rows = AnomalyRow::all(data.page.records.get(..MAX_ROWS).unwrap_or(&data.page.records), now);
    rows.truncate(MAX_ROWS);
    let mut filter = Filter { devices: vec![name.device.clone()], ..query.filter.clone() };
    filter.metrics.extend(name.metric.clone());
    let all = PageQuery { filter, ..query.plain() };
    // In an outage the axis ends at the time of the data, not at the current time.
    let end = frame.banner.is_some().then_some(taken);
    let content = DeviceContent {
        name: shown(&name.device),
        metric: name.metric.as_deref().map(shown).unwrap_or_default(),
        device_url: format!("{}{}", device_url(&name.device), query.plain().query()),
        filters: Filters::of(&name.url(), query, Some(SPAN)),
        summary: [
            format!("{} {}", grouped(total.total()), if total.total() == 1 { "anomaly" } else { "anomalies" }),
            format!("in {}, {} critical", words, grouped(total.critical)),
        ],
        detail: match (last, data.known) {
            (Some(time), _) => format!("last one {}", age(time, now)),
            (None, _) => "no anomaly is recorded".to_owned(),
        },
        none: match data.known {
            Some(Known::Seen(seen)) => Sentence::say("A record of this device was noted at ").time(seen, now).and(
                " (once a day). No anomaly of it is recorded. Whether its values are judged is not known here; the page \
                 Detection has the overrides.",
            ),
            Some(Known::Incomplete) => Sentence::say(
                "No anomaly is recorded for this device. It is not known whether it sends. The name must be exact.",
            ),
            _ => Sentence::say("No anomaly of this device matches."),
        },
        lanes: lanes(name, query, data, taken),
        scale: history::scale(newest(data)),
        clock: minutes::clock(&data.bins, end),
        cards: data.last.iter().map(|record| card(record, now)).collect(),
        rows,
        outside: AnomalyRow::all(&data.outside.records, now),
        outside_heading: outside_heading(&data.outside, words),
        show_device: false,
        older: if data.page.records.len() > MAX_ROWS { format!("/anomalies{}", all.query()) } else { String::new() },
        all: format!("/anomalies{}", all.query()),
    };
    let frame = Frame { cursor: data.cursor.to_string(), ..frame };
    respond::html(site, 200, "device.html", &frame, &content)
}

fn lanes(name: &SeriesName, query: &PageQuery, data: &DeviceData, taken: Timestamp) -> Vec<MetricLane> {
    let runs = minutes::runs(&data.bins, &data.coverage, &data.arrivals, taken, data.is_reporting);
    let newest = newest(data);
    let lane = |metric: &NameCount| {
        let is_of = |anomaly: &&Anomaly| anomaly.metric_name == metric.name;
        let anomalies = data.page.records.iter().map(|record| &record.anomaly).filter(is_of);
        MetricLane {
            name: metric.name.as_deref().map_or_else(|| "\u{2014}".into(), shown),
            url: match &metric.name {
                Some(_) if name.metric.is_none() => {
                    let series = SeriesName { device: name.device.clone(), metric: metric.name.clone() };
                    format!("{}{}", series.url(), PageQuery { span: query.span, ..query.plain() }.query())
                }
                _ => String::new(),
            },
            note: format!("{} \u{b7} {} critical", grouped(metric.count.total()), grouped(metric.count.critical)),
            svg: history::lane(&data.bins, &runs, newest, anomalies),
        }
    };
    data.metrics.iter().map(lane).collect()
}

/// Returns the newest anomaly, whose threshold and method the scale shows.
fn newest(data: &DeviceData) -> Option<&Anomaly> {
    data.page.records.first().map(|record| &record.anomaly)
}

fn card(record: &StoredAnomaly, now: Timestamp) -> Card {
    let anomaly = &record.anomaly;
    let figures = DisplayedNumbers::of(anomaly);
    let chart = drawing::draw(anomaly, &figures, drawing::ChartSize::SMALL, &[]);
    Card {
        metric: anomaly.metric_name.as_deref().map_or_else(|| "\u{2014}".into(), shown),
        url: anomaly_url(record),
        severity: if anomaly.severity == Severity::Critical { "critical" } else { "warning" },
        age: age(anomaly.timestamp.unwrap_or(record.detected_at), now),
        value: figures.value,
        expected: format!("{} \u{2013} {}", figures.lower, figures.upper),
        z: figures.z,
        left: chart.left,
        plot: chart.plot,
        mean: anomaly.mean.map_or_else(|| DASH.to_owned(), |mean| number(mean, figures.decimals + 1)),
        std_dev: anomaly.std_dev.map_or_else(|| DASH.to_owned(), |std_dev| number(std_dev, figures.decimals + 2)),
        window: grouped(u64::from(anomaly.window_count)),
    }
}
