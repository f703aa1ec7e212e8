//! The page that lists all matching anomalies, divided into pages.

use serde::Serialize;

use super::filters::Filters;
use super::format::{age, grouped};
use super::links::device_url;
use super::row::{AnomalyRow, outside_heading};
use crate::archive::{
    AnomalyPage, Archive, Cursor, Filter, Known, NoAnswer, Outside, PUNCTUAL, PageKey, Ranking, StoredAnomaly,
};
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::cached_page::{Answer, Page};
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery, Span, sort_name};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// Default span of a ranking; a ranking reads all anomalies of its span.
const RANKED: Span = Span::Day;
/// Maximum number of rows with times in the future.
const MAX_FUTURE_ROWS: usize = 20;
/// Age in milliseconds up to which a noted record shows that its device still sends. Records are noted once a day.
const NOTED_AGE: i64 = 2 * 86_400_000;
/// Number of rows that are counted to report what a filter hides.
const MAX_COUNTED: u32 = 100;

/// The page `/anomalies`, whose data is also the answer of the API.
pub(crate) struct List;

impl Page for List {
    type Key = PageQuery;
    type Data = ListData;

    const NAV: &'static str = "anomalies";
    const ACCEPTS: &'static [&'static [&'static str]] = query::LIST;
    const TEMPLATE: Template = ("list.html", include_str!("../templates/list.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<PageQuery> {
        (path == ["anomalies"]).then(|| query.still())
    }

    fn title(_: &PageQuery) -> (String, String) {
        ("Anomalies".to_owned(), "/anomalies".to_owned())
    }

    fn load(archive: &dyn Archive, key: &PageQuery, now: Timestamp) -> Result<ListData, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, List>) -> Response {
        show(site, frame, answer.query, answer.data)
    }
}

/// Data from the archive; also the answer of the API.
pub(crate) struct ListData {
    /// One page of matching anomalies.
    pub page: AnomalyPage,
    /// Cursor to newer anomalies; `None` on the first page.
    pub newer: Option<PageKey>,
    /// On the first page of a span: anomalies detected in the span with times outside of it.
    pub outside: Option<Outside>,
    /// If nothing matches: what is known of the device whose name the search is.
    known: Option<Known>,
    /// If the first page starts with times in the future: the page without them.
    present: Option<AnomalyPage>,
    /// Position in the event stream; all earlier anomalies are in this data.
    pub cursor: Cursor,
    /// If nothing matches: the part of the filter that hides most anomalies, and how many.
    without: Option<(&'static str, usize)>,
}

/// Loads the data from the archive.
fn load(archive: &dyn Archive, query: &PageQuery, now: Timestamp) -> Result<ListData, NoAnswer> {
    // The position is read first: a row committed meanwhile is then sent twice, which is better than never.
    let cursor = archive.position()?;
    let is_open = query.span.is_none() && query.filter.from.is_none();
    let span = query.span.or(query.sort.filter(|_| is_open).map(|_| RANKED));
    let range = PageQuery { span, ..query.clone() }.range(now);
    let filter = query.found(archive, range.clone())?;
    let (page, newer) = match (&query.sort, &query.after) {
        (Some(order), _) => (AnomalyPage { records: archive.ranked(&filter, *order, query.rows())?, next: None }, None),
        (None, Some(after)) => {
            let page = archive.newer(&filter, after, query.rows())?;
            let next = page.records.last().and_then(|last| PageKey::of(&last.anomaly));
            (AnomalyPage { records: page.records, next }, page.next)
        }
        (None, None) => {
            let page = archive.newest(&filter, query.before.as_ref(), query.rows())?;
            let newer = query.before.as_ref().and(page.records.first()).and_then(|first| PageKey::of(&first.anomaly));
            (page, newer)
        }
    };
    let is_first = query.before.is_none() && query.after.is_none();
    let without = if page.records.is_empty() && is_first { without(archive, query, &range)? } else { None };
    let outside = match (filter.from, query.span, is_first && query.sort.is_none()) {
        (Some(from), Some(_), true) => Some(archive.outside(&filter, from, query.rows())?),
        _ => None,
    };
    let end = Timestamp::from_millis(now.millis() + PUNCTUAL);
    let is_ahead = |record: &StoredAnomaly| record.anomaly.timestamp > end;
    let is_open = is_first && query.sort.is_none() && filter.from.is_none() && filter.to.is_none();
    let present = match is_open && page.records.first().is_some_and(is_ahead) {
        true => Some(archive.newest(&Filter { to: end, ..filter }, None, query.rows())?),
        false => None,
    };
    let known = match &query.search {
        Some(name) if page.records.is_empty() => Some(archive.knows(name)?),
        _ => None,
    };
    Ok(ListData { page, newer, outside, known, present, cursor, without })
}

/// Finds the part of a filter without which most anomalies would match.
fn without(
    archive: &dyn Archive,
    query: &PageQuery,
    range: &Filter,
) -> Result<Option<(&'static str, usize)>, NoAnswer> {
    let with = |change: &dyn Fn(&mut Filter)| {
        let mut filter = range.clone();
        change(&mut filter);
        filter
    };
    let mut parts = Vec::new();
    let mut part = |name, change: &dyn Fn(&mut Filter)| {
        let filter = with(change);
        if filter != *range {
            parts.push((name, filter));
        }
    };
    part("the device", &|filter| filter.devices.clear());
    part("the metric", &|filter| filter.metrics.clear());
    part("the severity", &|filter| filter.severities.clear());
    part("the method", &|filter| filter.methods.clear());
    part("the label", &|filter| filter.labels.clear());
    part("the review", &|filter| filter.reviews.clear());
    part("the time", &|filter| (filter.from, filter.to) = (None, None));
    let mut most = None::<(&'static str, usize)>;
    let mut count_without = |name, filter: &Filter| -> Result<(), NoAnswer> {
        let count = archive.newest(filter, None, MAX_COUNTED)?.records.len();
        if count > most.map_or(0, |(_, most)| most) {
            most = Some((name, count));
        }
        Ok(())
    };
    for (name, filter) in parts {
        count_without(name, &query.found(archive, filter)?)?;
    }
    if query.search.is_some() {
        count_without("the search", range)?;
    }
    Ok(most)
}

#[derive(Serialize)]
struct AnomaliesContent {
    heading: String,
    filters: Filters,
    rows: Vec<AnomalyRow>,
    outside: Vec<AnomalyRow>,
    outside_heading: String,
    show_device: bool,
    newest: String,
    newer: String,
    older: String,
    sorts: Vec<Sort>,
    hint: String,
    known: String,
    device: String,
    json: String,
    csv: String,
    lines: String,
}

#[derive(Serialize)]
struct Sort {
    text: &'static str,
    url: String,
    is_current: bool,
}

/// Renders the page. Only the first page refreshes itself, since later pages do not change.
fn show(site: &Site, frame: Frame<'_>, query: &PageQuery, data: &ListData) -> Response {
    // Anomalies with times in the future are shown as a separate group; otherwise they would hide the others for years.
    let page = data.present.as_ref().unwrap_or(&data.page);
    let rows = AnomalyRow::all(&page.records, site.now());
    let export = PageQuery { limit: None, before: None, after: None, sort: None, ..query.still() }.query();
    let first = PageQuery { before: None, after: None, ..query.clone() };
    let is_first = query.before.is_none() && query.after.is_none();
    let (aside, aside_heading) = aside(data, query, site.now());
    let content = AnomaliesContent {
        heading: heading(query, is_first, rows.len(), page.next.is_some()),
        filters: Filters::of("/anomalies", query, None),
        rows,
        outside: AnomalyRow::all(&aside, site.now()),
        outside_heading: aside_heading,
        show_device: true,
        newest: if is_first { String::new() } else { url(first.clone()) },
        newer: match &data.newer {
            Some(key) => url(PageQuery { after: Some(key.clone()), ..first.clone() }),
            None => String::new(),
        },
        older: match &page.next {
            Some(key) => url(PageQuery { before: Some(key.clone()), ..first.clone() }),
            None => String::new(),
        },
        sorts: sorts(query, &first),
        hint: data.without.map_or_else(String::new, |(name, count)| count_without(name, count)),
        known: data.known.map_or_else(String::new, |known| device_words(known, site.now())),
        device: match (&query.search, data.known) {
            (Some(name), Some(Known::Seen(_))) => format!("{}{}", device_url(name), query.plain().query()),
            _ => String::new(),
        },
        json: format!("/api/v1/anomalies{}", query.still().query()),
        csv: format!("/api/v1/anomalies.csv{export}"),
        lines: format!("/api/v1/anomalies.jsonl{export}"),
    };
    let is_live = is_first && query.sort.is_none();
    let frame = Frame {
        refresh: if is_first { frame.refresh } else { 0 },
        cursor: if is_live { data.cursor.to_string() } else { String::new() },
        ..frame
    };
    respond::html(site, 200, "list.html", &frame, &content)
}

fn url(query: PageQuery) -> String {
    format!("/anomalies{}", query.query())
}

/// Says how many anomalies the page shows, and in which order.
fn heading(query: &PageQuery, is_first: bool, rows: usize, has_more: bool) -> String {
    let count = format!("{}{}", grouped(rows as u64), if has_more { "+" } else { "" });
    match (query.sort, rows) {
        (Some(Ranking::Score), _) => format!("The {count} farthest of {}", query.words(RANKED)),
        (Some(_), _) => format!("{count} of {} by {}", query.words(RANKED), sort_name(query.sort)),
        (None, _) if !is_first => format!("{count} earlier anomalies"),
        (None, 1) => "1 anomaly".to_owned(),
        (None, _) => format!("{count} anomalies"),
    }
}

/// Returns the links to all orders; `first` is the query of the first page.
fn sorts(query: &PageQuery, first: &PageQuery) -> Vec<Sort> {
    let orders = [
        ("newest", None),
        ("farthest", Some(Ranking::Score)),
        ("device", Some(Ranking::Device)),
        ("metric", Some(Ranking::Metric)),
    ];
    let link =
        |(text, sort)| Sort { text, url: url(PageQuery { sort, ..first.clone() }), is_current: query.sort == sort };
    orders.map(link).into()
}

/// Says how many anomalies there are without the condition of this name.
fn count_without(name: &str, count: usize) -> String {
    match count {
        count if count == MAX_COUNTED as usize => format!("Without {name} there are {MAX_COUNTED} or more."),
        1 => format!("Without {name} there is one."),
        count => format!("Without {name} there are {count}."),
    }
}

/// Describes what is known of the device whose name the search is.
fn device_words(known: Known, now: Timestamp) -> String {
    match known {
        Known::Seen(at) if now.millis() - at.millis() <= NOTED_AGE => "It has sent within the last 2 days.".to_owned(),
        Known::Seen(at) => format!("Its last record was noted {}.", age(at, now)),
        Known::Unknown => "No device of exactly this name is known to have sent a record.".to_owned(),
        Known::Incomplete => "It is not known whether a device of exactly this name sends.".to_owned(),
    }
}

/// Returns the group above the rows, whose times are outside the page's, with its heading.
fn aside(data: &ListData, query: &PageQuery, now: Timestamp) -> (Vec<StoredAnomaly>, String) {
    if let Some(outside) = &data.outside {
        return (outside.records.clone(), outside_heading(outside, query.words(RANKED)));
    }
    let end = Timestamp::from_millis(now.millis() + PUNCTUAL);
    let of_page = data.present.as_ref().map(|_| data.page.records.iter().filter(|r| r.anomaly.timestamp > end));
    let ahead = of_page.into_iter().flatten().take(MAX_FUTURE_ROWS).cloned().collect::<Vec<_>>();
    let heading = match ahead.len() {
        0 => String::new(),
        1 => "1 anomaly has a time that has not come yet".to_owned(),
        MAX_FUTURE_ROWS => format!("{MAX_FUTURE_ROWS} or more anomalies have times that have not come yet"),
        n => format!("{n} anomalies have times that have not come yet"),
    };
    (ahead, heading)
}
