//! The first page: does it detect, what happened by minute and by device, what is newest.

use std::time::{Duration, Instant as Clock};

use serde::Serialize;

use super::filters::Filters;
use super::format::{counted, grouped, minute};
use super::row::Row;
use super::strip::{self, Pulse};
use super::{Frame, device};
use crate::archive::{
    Archive, BinCount, Bins, Count, CoverageRow, Cursor, Failure, Filter, LaneCount, NameCount, Page, Review, StatusRow,
};
use crate::event::Instant;
use crate::page::asked::{Asked, Span};
use crate::page::chart::minutes::{self, Minutes};
use crate::page::listener::Response;
use crate::page::respond;
use crate::page::site::Site;

/// Lanes of devices.
const LANES: u32 = 7;
/// Names in a side list.
const NAMES: u32 = 8;
/// Rows of newest anomalies.
const ROWS: u32 = 12;

const HOUR: i64 = 3_600_000;
/// Hours before the shown one that tell what is usual.
const BEFORE: usize = 24;
/// Fewer than so many tell nothing.
const FEW: usize = 3;

/// What was asked of the archive.
pub struct Data {
    bins: Bins,
    by_time: Vec<BinCount>,
    /// Anomalies of an hour, when an hour is shown and enough is known of those before it.
    pub usual: Option<u64>,
    devices: Vec<NameCount>,
    lanes: Vec<LaneCount>,
    metrics: Vec<NameCount>,
    /// Of the range.
    pub coverage: Vec<CoverageRow>,
    /// Of all partitions.
    pub status: Vec<StatusRow>,
    /// Values that a series needs, while none has enough.
    pub min_samples: Option<u64>,
    /// Whatever their time.
    pub newest: Page,
    reviews: Vec<(Review, u64)>,
    cursor: Cursor,
    /// For all of it together.
    pub took: Duration,
}

impl Data {
    /// Anomalies of the range.
    pub fn total(&self) -> Count {
        self.by_time.iter().fold(Count::default(), |sum, bin| Count {
            critical: sum.critical + bin.count.critical,
            warning: sum.warning + bin.count.warning,
        })
    }
}

/// Asks.
pub fn look(archive: &dyn Archive, asked: &Asked, now: Instant) -> Result<Data, Failure> {
    let start = Clock::now();
    let bins = asked.axis(Span::Hour, now);
    // The place in the stream first: what is committed meanwhile comes twice rather than never.
    let cursor = archive.position()?;
    let always = asked.found(archive, asked.filter.clone())?;
    let filter = Filter { from: Some(bins.from), to: bins.to(), ..always.clone() };
    let newest = archive.newest(&always, None, ROWS)?;
    let status = archive.status()?;
    let coverage = archive.coverage(minute_of(bins.from), bins.to().unwrap_or(now), bins.grain())?;
    let is_learning = coverage.iter().all(|row| row.judged == 0) && coverage.iter().any(|row| row.learning > 0);
    let min_samples = match status.first().filter(|_| is_learning) {
        Some(row) => archive.settings(&row.settings_hash)?.and_then(|settings| {
            settings.iter().find(|(name, _)| name == "min_samples").and_then(|(_, value)| value.parse().ok())
        }),
        None => None,
    };
    let reviews = archive.reviews(bins.from, bins.to().unwrap_or(now))?;
    let by_time = archive.by_time(&filter, &bins)?;
    let usual = usual(archive, &filter, &bins)?;
    let devices = archive.by_device(&filter, LANES)?;
    let names = devices.iter().filter_map(|device| device.name.clone()).collect::<Vec<_>>();
    let lanes = archive.lanes(&filter, &bins, &names)?;
    let metrics = archive.by_metric(&filter, NAMES)?;
    Ok(Data {
        bins,
        by_time,
        usual,
        devices,
        lanes,
        metrics,
        coverage,
        status,
        min_samples,
        newest,
        reviews,
        cursor,
        took: start.elapsed(),
    })
}

/// The median of the hours before the shown one, from the first that had an anomaly; bursts, and hours in which nothing was judged,
/// do not change it much.
fn usual(archive: &dyn Archive, filter: &Filter, bins: &Bins) -> Result<Option<u64>, Failure> {
    // What totals answer at once; bars of an hour always begin at a minute.
    let is_quick = filter.is_plain() && filter.devices.is_empty() && filter.metrics.is_empty();
    let from = Instant::from_millis(bins.from.millis() - HOUR * BEFORE as i64);
    let (Some(from), true) = (from, is_quick && bins.width * bins.count as i64 == HOUR) else { return Ok(None) };
    let hours = Bins { from, width: HOUR, count: BEFORE };
    let counts = archive.by_time(&Filter { from: Some(from), to: Some(bins.from), ..filter.clone() }, &hours)?;
    let mut known = vec![0; counts.iter().map(|hour| hour.bin).min().map_or(0, |first| BEFORE.saturating_sub(first))];
    counts.iter().zip(&mut known).for_each(|(hour, known)| *known = hour.count.total());
    known.sort_unstable();
    Ok(known.get(known.len() / 2).copied().filter(|median| known.len() >= FEW && *median > 0))
}

/// The minute that a time is in: coverage is kept by whole ones.
pub fn minute_of(time: Instant) -> Instant {
    Instant::from_millis(time.millis().div_euclid(60_000) * 60_000).unwrap_or(time)
}

#[derive(Serialize)]
struct Content {
    filters: Filters,
    unit: String,
    span: &'static str,
    short: &'static str,
    scale: String,
    bars: String,
    clock: String,
    lanes: Vec<Lane>,
    metrics: Vec<Bar>,
    reviews: Vec<[String; 3]>,
    rows: Vec<Row>,
    show_device: bool,
    news: String,
    all: String,
    all_text: String,
    older: String,
    took: String,
}

#[derive(Serialize)]
struct Lane {
    name: String,
    url: String,
    svg: String,
    count: String,
}

#[derive(Serialize)]
struct Bar {
    name: String,
    url: String,
    svg: String,
    count: String,
}

/// The page. A strip that is there already (an outage) stays.
pub fn show(site: &Site, frame: Frame<'_>, asked: &Asked, data: &Data, taken: Instant) -> Response {
    let now = site.now();
    let pulse = Pulse::of(data, taken, now);
    // Old data ends where it was taken; the axis does too.
    let runs = minutes::runs(&data.bins, &data.coverage, taken, pulse.is_reporting());
    let chart = Minutes { bins: &data.bins, counts: &data.by_time, runs: &runs };
    let words = asked.words(Span::Hour);
    let rows = Row::all(&data.newest.records, now);
    let fresh = rows.iter().filter(|row| row.is_new).count() as u64;
    let list = Asked { limit: None, before: None, ..asked.clone() };
    // Old data does not reach up to now.
    let end = if frame.strip.is_some() { minute(taken) } else { "now".to_owned() };
    let content = Content {
        filters: Filters::of("/", asked, Some(Span::Hour)),
        unit: unit(data.bins.width),
        span: words,
        short: asked.short(Span::Hour),
        scale: chart.scale(),
        bars: chart.bars(),
        clock: minutes::clock(&data.bins, &end),
        lanes: lanes(data, &chart, asked),
        metrics: metrics(data, asked),
        reviews: reviews(data, asked),
        rows,
        show_device: true,
        news: if fresh > 0 { format!("{} new in the last 30 s", grouped(fresh)) } else { String::new() },
        all: format!(
            "/anomalies{}",
            Asked { span: asked.span.or(Some(Span::Hour)).filter(|_| asked.filter.from.is_none()), ..list.clone() }
                .query()
        ),
        all_text: format!("All {} of {}", grouped(data.total().total()), words),
        older: data.newest.next.as_ref().map_or_else(String::new, |next| {
            format!("/anomalies{}", Asked { span: None, before: Some(next.clone()), ..list.clone() }.query())
        }),
        took: format!("{:.1} ms", data.took.as_secs_f64() * 1000.0),
    };
    let strip = frame.strip.or_else(|| Some(strip::verdict(data, asked, taken, now)));
    let frame = Frame { strip, title: title(data, &frame.title), cursor: data.cursor.to_string(), ..frame };
    respond::html(site, 200, "overview.html", &frame, &content)
}

/// The count first: it is what a tab shows.
fn title(data: &Data, name: &str) -> String {
    match data.total().total() {
        0 => name.to_owned(),
        n => format!("{} \u{b7} {name}", counted(n, "anomaly", "anomalies")),
    }
}

/// "minute", "24 minutes", "15 seconds", "3 hours"
fn unit(width: i64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")];
    let (size, name) =
        units.into_iter().find(|(size, _)| width >= *size && width % size == 0).unwrap_or((1, "millisecond"));
    if width == size { name.to_owned() } else { format!("{} {name}s", width / size) }
}

fn lanes(data: &Data, chart: &Minutes<'_>, asked: &Asked) -> Vec<Lane> {
    let query = Asked { span: asked.span, ..asked.plain() }.query();
    let lane = |of: &NameCount| {
        let name = of.name.clone()?;
        let cells = data.lanes.iter().filter(|cell| cell.device == name).map(|cell| (cell.bin, cell.count));
        let svg = chart.lane(&cells.collect::<Vec<_>>());
        Some(Lane { url: format!("{}{query}", device::url(&name)), name, svg, count: grouped(of.count.total()) })
    };
    data.devices.iter().filter_map(lane).collect()
}

fn metrics(data: &Data, asked: &Asked) -> Vec<Bar> {
    let most = data.metrics.iter().map(|metric| metric.count.total()).max().unwrap_or(0);
    let bar = |of: &NameCount| {
        let filter = Filter { metrics: of.name.iter().cloned().collect(), ..asked.filter.clone() };
        // Events without a metric's name cannot be asked for.
        let url =
            of.name.as_ref().map_or_else(String::new, |_| format!("/{}", Asked { filter, ..asked.clone() }.query()));
        Bar {
            name: of.name.clone().unwrap_or_else(|| "\u{2014}".into()),
            url,
            svg: minutes::bar(of.count, most),
            count: grouped(of.count.total()),
        }
    };
    data.metrics.iter().map(bar).collect()
}

/// Name, address and number of each review; what has none comes first.
fn reviews(data: &Data, asked: &Asked) -> Vec<[String; 3]> {
    let marked = data.reviews.iter().map(|(_, count)| count).sum::<u64>();
    let is_whole = asked.filter == Filter { from: asked.filter.from, to: asked.filter.to, ..Filter::default() };
    let count = |review: Review| match review {
        // Counted over everything; beside a filter the rest would be of other anomalies.
        Review::None if is_whole && asked.search.is_none() => Some(data.total().total().saturating_sub(marked)),
        Review::None => None,
        _ => data.reviews.iter().find(|(known, _)| *known == review).map(|(_, count)| *count).or(Some(0)),
    };
    let line = |review: Review| {
        let filter = Filter { reviews: vec![review], ..asked.filter.clone() };
        let span = asked.span.or(Some(Span::Hour)).filter(|_| asked.filter.from.is_none());
        let url = format!("/anomalies{}", Asked { filter, span, ..asked.clone() }.query());
        Some([super::mark::words(review).to_owned(), url, grouped(count(review)?)])
    };
    Review::ALL.into_iter().filter_map(line).collect()
}
