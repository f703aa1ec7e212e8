//! The overview: the verdict on the detection, anomalies by time and by device, and the newest anomalies.

use serde::Serialize;

use super::banner::{Banner, Tone};
use super::filters::Filters;
use super::format::{counted, grouped};
use super::links::device_url;
use super::overview_data::{self, NEWS, OverviewData};
use super::row::{AnomalyRow, outside_heading};
use super::text::shown;
use super::{review, verdict};
use crate::archive::{Archive, Filter, NameCount, NoAnswer, Review};
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::cached_page::{Answer, Page};
use crate::page::chart::minutes::{self, MinuteChart};
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery, Span};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// The page `/`, an overview of the last hour.
pub(crate) struct Overview;

impl Page for Overview {
    type Key = PageQuery;
    type Data = OverviewData;

    const NAV: &'static str = "overview";
    const ACCEPTS: &'static [&'static [&'static str]] = query::RANGE;
    const TEMPLATE: Template = ("overview.html", include_str!("../templates/overview.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<PageQuery> {
        (path == [""]).then(|| query.still())
    }

    fn title(_: &PageQuery) -> (String, String) {
        ("Overview".to_owned(), "/".to_owned())
    }

    fn load(archive: &dyn Archive, key: &PageQuery, now: Timestamp) -> Result<OverviewData, NoAnswer> {
        overview_data::load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Overview>) -> Response {
        show(site, frame, answer.query, answer.data, answer.taken)
    }
}

#[derive(Serialize)]
struct OverviewContent {
    filters: Filters,
    unit: String,
    span: &'static str,
    short: &'static str,
    scale: String,
    bars: String,
    has_excluded: bool,
    clock: String,
    lanes: Vec<DeviceLane>,
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
struct DeviceLane {
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

/// Renders the page. In an outage the frame already has a banner, which stays.
fn show(site: &Site, frame: Frame<'_>, query: &PageQuery, data: &OverviewData, taken: Timestamp) -> Response {
    let now = site.now();
    let is_reporting = data.reports.current(taken, now).is_reporting();
    // In an outage the data and the axis end at `taken`.
    let runs = minutes::runs(&data.bins, &data.coverage, &data.reports.arrivals, taken, is_reporting);
    let chart = MinuteChart { bins: &data.bins, counts: &data.by_time, runs: &runs };
    let words = query.words(Span::Hour);
    let rows = AnomalyRow::all(&data.newest.records, now);
    let list = PageQuery { limit: None, before: None, ..query.clone() };
    // In an outage the axis ends at the time of the data, not at the current time.
    let end = frame.banner.is_some().then_some(taken);
    let content = OverviewContent {
        filters: Filters::of("/", query, Some(Span::Hour)),
        unit: unit(data.bins.width),
        span: words,
        short: query.short(Span::Hour),
        scale: chart.scale(),
        bars: chart.bars(),
        has_excluded: minutes::has_excluded(&runs),
        clock: minutes::clock(&data.bins, end),
        lanes: lanes(data, &chart, query),
        metrics: metrics(data, query),
        reviews: reviews(data, query),
        heading: match data.total().total() {
            0 if !rows.is_empty() => format!("Earlier anomalies: none in {words}"),
            _ => "Newest anomalies".to_owned(),
        },
        rows,
        outside: AnomalyRow::all(&data.outside.records, now),
        outside_heading: outside_heading(&data.outside, words),
        show_device: true,
        news: match data.fresh {
            0 => String::new(),
            n => format!("{} new in the last {} s", grouped(n), NEWS / 1000),
        },
        all: format!(
            "/anomalies{}",
            PageQuery { span: query.span.or(Some(Span::Hour)).filter(|_| query.filter.from.is_none()), ..list.clone() }
                .query()
        ),
        all_text: format!("All {} of {}", grouped(data.total().total()), words),
        older: data.newest.next.as_ref().map_or_else(String::new, |next| {
            format!("/anomalies{}", PageQuery { span: None, before: Some(next.clone()), ..list.clone() }.query())
        }),
        took: format!("{:.1} ms", data.took.as_secs_f64() * 1000.0),
    };
    let banner = frame.banner.or_else(|| Some(verdict::of(site, data, query, taken)));
    let title = title(data, banner.as_ref(), &frame.title);
    let frame = Frame { banner, title, cursor: data.cursor.to_string(), ..frame };
    respond::html(site, 200, "overview.html", &frame, &content)
}

/// Makes the title; the problem and the count come first, because a browser's tab shows only the beginning.
fn title(data: &OverviewData, banner: Option<&Banner>, name: &str) -> String {
    let wrong = match banner.map(|banner| banner.tone) {
        Some(Tone::Stopped) => "Stopped \u{b7} ",
        Some(Tone::Unknown) => "State not known \u{b7} ",
        Some(Tone::Degraded) => "Degraded \u{b7} ",
        _ => "",
    };
    match data.total().total() {
        0 => format!("{wrong}{name}"),
        n => format!("{wrong}{} \u{b7} {name}", counted(n, "anomaly", "anomalies")),
    }
}

/// Describes the width of a bar: "minute", "24 minutes", "15 seconds", "3 hours".
fn unit(width: i64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")];
    let (size, name) =
        units.into_iter().find(|(size, _)| width >= *size && width % size == 0).unwrap_or((1, "millisecond"));
    if width == size { name.to_owned() } else { format!("{} {name}s", width / size) }
}

fn lanes(data: &OverviewData, chart: &MinuteChart<'_>, query: &PageQuery) -> Vec<DeviceLane> {
    let link_query = PageQuery { span: query.span, ..query.plain() }.query();
    let lane = |of: &NameCount| {
        let name = of.name.clone()?;
        let cells = data.lanes.iter().filter(|cell| cell.device == name).map(|cell| (cell.bin, cell.count));
        let svg = chart.lane(&cells.collect::<Vec<_>>());
        Some(DeviceLane {
            url: format!("{}{link_query}", device_url(&name)),
            name: shown(&name),
            svg,
            count: grouped(of.count.total()),
        })
    };
    data.devices.iter().filter_map(lane).collect()
}

fn metrics(data: &OverviewData, query: &PageQuery) -> Vec<Bar> {
    let most = data.metrics.iter().map(|metric| metric.count.total()).max().unwrap_or(0);
    let bar = |of: &NameCount| {
        let filter = Filter { metrics: of.name.iter().cloned().collect(), ..query.filter.clone() };
        // No query selects the events that have no metric name.
        let url = of
            .name
            .as_ref()
            .map_or_else(String::new, |_| format!("/{}", PageQuery { filter, ..query.clone() }.query()));
        Bar {
            name: of.name.as_deref().map_or_else(|| "\u{2014}".into(), shown),
            url,
            svg: minutes::bar(of.count, most),
            count: grouped(of.count.total()),
        }
    };
    data.metrics.iter().map(bar).collect()
}

/// Returns name, URL and count for each state of review; anomalies without a review come first.
fn reviews(data: &OverviewData, query: &PageQuery) -> Vec<[String; 3]> {
    let reviewed = data.reviews.iter().map(|(_, count)| count).sum::<u64>();
    let is_whole = query.filter == Filter { from: query.filter.from, to: query.filter.to, ..Filter::default() };
    let count = |review: Review| match review {
        // This count covers all anomalies. With a filter the difference would count other anomalies.
        Review::None if is_whole && query.search.is_none() => Some(data.total().total().saturating_sub(reviewed)),
        Review::None => None,
        _ => data.reviews.iter().find(|(known, _)| *known == review).map(|(_, count)| *count).or(Some(0)),
    };
    let line = |review: Review| {
        let filter = Filter { reviews: vec![review], ..query.filter.clone() };
        let span = query.span.or(Some(Span::Hour)).filter(|_| query.filter.from.is_none());
        let url = format!("/anomalies{}", PageQuery { filter, span, ..query.clone() }.query());
        Some([review::words(review).to_owned(), url, grouped(count(review)?)])
    };
    Review::ALL.into_iter().filter_map(line).collect()
}
