//! The first page: does it detect, what happened by minute and by device, what is newest.

use std::time::{Duration, Instant as Clock};

use serde::Serialize;

use super::banner::{Banner, Tone};
use super::filters::Filters;
use super::format::{counted, grouped};
use super::reports::{self, Reports};
use super::row::AnomalyRow;
use super::text::shown;
use super::{Frame, banner, device};
use crate::archive::{
    AnomalyPage, Archive, BinCount, Bins, Count, CoverageRow, Cursor, Filter, LaneCount, NameCount, NoAnswer, Outside,
    PUNCTUAL, Review,
};
use crate::event::Timestamp;
use crate::page::chart::minutes::{self, MinuteChart};
use crate::page::http::Response;
use crate::page::query::{PageQuery, Span};
use crate::page::respond;
use crate::page::site::Site;

/// Lanes of devices.
const LANES: u32 = 7;
/// Names in a side list.
const NAMES: u32 = 8;
/// Rows of newest anomalies.
const ROWS: u32 = 12;
/// Rows of anomalies with other times.
const OUTSIDE: u32 = 6;
/// Milliseconds in which a detection is news.
const NEWS: i64 = 30_000;

const HOUR: i64 = 3_600_000;
/// Hours before the shown one that tell what is usual.
const BEFORE: usize = 24;
/// Fewer than so many tell nothing.
const FEW: usize = 3;

/// What was asked of the archive.
pub struct OverviewData {
    bins: Bins,
    by_time: Vec<BinCount>,
    /// Anomalies of an hour, when an hour is shown and enough is known of those before it.
    pub usual: Option<u64>,
    devices: Vec<NameCount>,
    lanes: Vec<LaneCount>,
    metrics: Vec<NameCount>,
    /// Of the range.
    pub coverage: Vec<CoverageRow>,
    /// What the detectors say.
    pub reports: Reports,
    /// Detected in the range, with times outside of it.
    pub outside: Outside,
    /// Detected a moment ago.
    fresh: u64,
    /// Values that a series needs, while none has enough.
    pub min_samples: Option<u64>,
    /// Of the range; when it has none, earlier ones.
    pub newest: AnomalyPage,
    reviews: Vec<(Review, u64)>,
    cursor: Cursor,
    /// For all of it together.
    pub took: Duration,
}

impl OverviewData {
    /// Records that wait; `None` when not known of some partition.
    pub fn lag(&self, taken: Timestamp) -> Option<u64> {
        let current = self.reports.current(taken, taken);
        current.rows.iter().map(|row| Some(row.lag?.max(0) as u64)).sum()
    }

    /// Anomalies of the range.
    pub fn total(&self) -> Count {
        self.by_time.iter().fold(Count::default(), |sum, bin| Count {
            critical: sum.critical + bin.count.critical,
            warning: sum.warning + bin.count.warning,
        })
    }
}

/// Asks.
pub fn look(archive: &dyn Archive, asked: &PageQuery, now: Timestamp) -> Result<OverviewData, NoAnswer> {
    let start = Clock::now();
    let bins = asked.axis(Span::Hour, now);
    // The place in the stream first: what is committed meanwhile comes twice rather than never.
    let cursor = archive.position()?;
    let always = asked.found(archive, asked.filter.clone())?;
    let filter = Filter { from: Some(bins.from), to: bins.to(), ..always.clone() };
    let reports = reports::look(archive, bins.from, bins.grain(), now)?;
    let coverage = archive.coverage(minute_of(bins.from), bins.to().unwrap_or(now), bins.grain())?;
    let is_learning = coverage.iter().all(|row| row.judged == 0) && coverage.iter().any(|row| row.learning > 0);
    let min_samples = match reports.status.first().filter(|_| is_learning) {
        Some(row) => archive.settings(&row.settings_hash)?.and_then(|settings| {
            settings.iter().find(|(name, _)| name == "min_samples").and_then(|(_, value)| value.parse().ok())
        }),
        None => None,
    };
    let reviews = archive.reviews(bins.from, bins.to().unwrap_or(now))?;
    let (newest, by_time) = rows_and_bars(archive, &always, &filter, &bins, now)?;
    // A range that someone gave is one of the events' own times.
    let outside = match asked.filter.from.is_none() && asked.filter.to.is_none() {
        true => archive.outside(&filter, bins.from, OUTSIDE)?,
        false => Outside::default(),
    };
    let fresh = archive.fresh(&always, Timestamp::from_millis(now.millis() - NEWS).unwrap_or(now))?;
    let usual = usual(archive, &filter, &bins)?;
    let devices = archive.by_device(&filter, LANES)?;
    let names = devices.iter().filter_map(|device| device.name.clone()).collect::<Vec<_>>();
    let lanes = archive.lanes(&filter, &bins, &names)?;
    let metrics = archive.by_metric(&filter, NAMES)?;
    Ok(OverviewData {
        bins,
        by_time,
        usual,
        devices,
        lanes,
        metrics,
        coverage,
        reports,
        outside,
        fresh,
        min_samples,
        newest,
        reviews,
        cursor,
        took: start.elapsed(),
    })
}

/// The rows of a range and its bars. The two are asked for one after the other: what was committed between them is waited for.
fn rows_and_bars(
    archive: &dyn Archive,
    always: &Filter,
    filter: &Filter,
    bins: &Bins,
    now: Timestamp,
) -> Result<(AnomalyPage, Vec<BinCount>), NoAnswer> {
    let mut page = archive.newest(filter, None, ROWS)?;
    let mut bars = archive.by_time(filter, bins)?;
    let shown = page.records.len() as u64;
    if page.next.is_none() && bars.iter().map(|bar| bar.count.total()).sum::<u64>() != shown {
        page = archive.newest(filter, None, ROWS)?;
        bars = archive.by_time(filter, bins)?;
    }
    if page.records.is_empty() {
        // Earlier ones are better than nothing; those of the future would hide them.
        let end = Timestamp::from_millis(now.millis() + PUNCTUAL);
        page = archive.newest(&Filter { to: always.to.or(end), ..always.clone() }, None, ROWS)?;
    }
    Ok((page, bars))
}

/// The median of the hours before the shown one, from the first that had an anomaly; bursts, and hours in which nothing was judged,
/// do not change it much.
fn usual(archive: &dyn Archive, filter: &Filter, bins: &Bins) -> Result<Option<u64>, NoAnswer> {
    // What totals answer at once; bars of an hour always begin at a minute.
    let is_quick = filter.is_plain() && filter.devices.is_empty() && filter.metrics.is_empty();
    let from = Timestamp::from_millis(bins.from.millis() - HOUR * BEFORE as i64);
    // An hour, and the rest of its first minute.
    let is_hour = (HOUR..=HOUR + bins.width).contains(&(bins.width * bins.count as i64));
    let (Some(from), true) = (from, is_quick && is_hour && bins.width == HOUR / 60) else { return Ok(None) };
    let hours = Bins { from, width: HOUR, count: BEFORE };
    let counts = archive.by_time(&Filter { from: Some(from), to: Some(bins.from), ..filter.clone() }, &hours)?;
    let mut known = vec![0; counts.iter().map(|hour| hour.bin).min().map_or(0, |first| BEFORE.saturating_sub(first))];
    counts.iter().zip(&mut known).for_each(|(hour, known)| *known = hour.count.total());
    known.sort_unstable();
    Ok(known.get(known.len() / 2).copied().filter(|median| known.len() >= FEW && *median > 0))
}

/// The minute that a time is in: coverage is kept by whole ones.
pub fn minute_of(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis().div_euclid(60_000) * 60_000).unwrap_or(time)
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
    heading: String,
    rows: Vec<AnomalyRow>,
    outside: Vec<AnomalyRow>,
    outside_heading: String,
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

/// The page. A banner that is there already (an outage) stays.
pub fn show(site: &Site, frame: Frame<'_>, asked: &PageQuery, data: &OverviewData, taken: Timestamp) -> Response {
    let now = site.now();
    let is_reporting = data.reports.current(taken, now).is_reporting();
    // Old data ends where it was taken; the axis does too.
    let runs = minutes::runs(&data.bins, &data.coverage, &data.reports.arrivals, taken, is_reporting);
    let chart = MinuteChart { bins: &data.bins, counts: &data.by_time, runs: &runs };
    let words = asked.words(Span::Hour);
    let rows = AnomalyRow::all(&data.newest.records, now);
    let list = PageQuery { limit: None, before: None, ..asked.clone() };
    // Old data does not reach up to now.
    let end = frame.banner.is_some().then_some(taken);
    let content = Content {
        filters: Filters::of("/", asked, Some(Span::Hour)),
        unit: unit(data.bins.width),
        span: words,
        short: asked.short(Span::Hour),
        scale: chart.scale(),
        bars: chart.bars(),
        clock: minutes::clock(&data.bins, end),
        lanes: lanes(data, &chart, asked),
        metrics: metrics(data, asked),
        reviews: reviews(data, asked),
        heading: match data.total().total() {
            0 if !rows.is_empty() => format!("Earlier anomalies: none in {words}"),
            _ => "Newest anomalies".to_owned(),
        },
        rows,
        outside: AnomalyRow::all(&data.outside.records, now),
        outside_heading: super::list::outside_heading(&data.outside, words),
        show_device: true,
        news: match data.fresh {
            0 => String::new(),
            n => format!("{} new in the last {} s", grouped(n), NEWS / 1000),
        },
        all: format!(
            "/anomalies{}",
            PageQuery { span: asked.span.or(Some(Span::Hour)).filter(|_| asked.filter.from.is_none()), ..list.clone() }
                .query()
        ),
        all_text: format!("All {} of {}", grouped(data.total().total()), words),
        older: data.newest.next.as_ref().map_or_else(String::new, |next| {
            format!("/anomalies{}", PageQuery { span: None, before: Some(next.clone()), ..list.clone() }.query())
        }),
        took: format!("{:.1} ms", data.took.as_secs_f64() * 1000.0),
    };
    let banner = frame.banner.or_else(|| Some(banner::verdict(data, asked, taken, now, site.seen(data, taken))));
    let title = title(data, banner.as_ref(), &frame.title);
    let frame = Frame { banner, title, cursor: data.cursor.to_string(), ..frame };
    respond::html(site, 200, "overview.html", &frame, &content)
}

/// What is wrong and the count first: they are what a tab shows.
fn title(data: &OverviewData, banner: Option<&Banner>, name: &str) -> String {
    let wrong = match banner.map(|banner| banner.tone) {
        Some(Tone::Stopped) => "Stopped \u{b7} ",
        Some(Tone::Degraded) => "Degraded \u{b7} ",
        _ => "",
    };
    match data.total().total() {
        0 => format!("{wrong}{name}"),
        n => format!("{wrong}{} \u{b7} {name}", counted(n, "anomaly", "anomalies")),
    }
}

/// "minute", "24 minutes", "15 seconds", "3 hours"
fn unit(width: i64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")];
    let (size, name) =
        units.into_iter().find(|(size, _)| width >= *size && width % size == 0).unwrap_or((1, "millisecond"));
    if width == size { name.to_owned() } else { format!("{} {name}s", width / size) }
}

fn lanes(data: &OverviewData, chart: &MinuteChart<'_>, asked: &PageQuery) -> Vec<Lane> {
    let query = PageQuery { span: asked.span, ..asked.plain() }.query();
    let lane = |of: &NameCount| {
        let name = of.name.clone()?;
        let cells = data.lanes.iter().filter(|cell| cell.device == name).map(|cell| (cell.bin, cell.count));
        let svg = chart.lane(&cells.collect::<Vec<_>>());
        Some(Lane {
            url: format!("{}{query}", device::url(&name)),
            name: shown(&name),
            svg,
            count: grouped(of.count.total()),
        })
    };
    data.devices.iter().filter_map(lane).collect()
}

fn metrics(data: &OverviewData, asked: &PageQuery) -> Vec<Bar> {
    let most = data.metrics.iter().map(|metric| metric.count.total()).max().unwrap_or(0);
    let bar = |of: &NameCount| {
        let filter = Filter { metrics: of.name.iter().cloned().collect(), ..asked.filter.clone() };
        // Events without a metric's name cannot be asked for.
        let url = of
            .name
            .as_ref()
            .map_or_else(String::new, |_| format!("/{}", PageQuery { filter, ..asked.clone() }.query()));
        Bar {
            name: of.name.as_deref().map_or_else(|| "\u{2014}".into(), shown),
            url,
            svg: minutes::bar(of.count, most),
            count: grouped(of.count.total()),
        }
    };
    data.metrics.iter().map(bar).collect()
}

/// Name, address and number of each review; what has none comes first.
fn reviews(data: &OverviewData, asked: &PageQuery) -> Vec<[String; 3]> {
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
        let url = format!("/anomalies{}", PageQuery { filter, span, ..asked.clone() }.query());
        Some([super::review::words(review).to_owned(), url, grouped(count(review)?)])
    };
    Review::ALL.into_iter().filter_map(line).collect()
}
