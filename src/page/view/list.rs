//! All anomalies that match, page by page.

use serde::Serialize;

use super::Frame;
use super::filters::Filters;
use super::format::grouped;
use super::row::Row;
use crate::archive::{Archive, Cursor, Failure, Filter, Key, Order, Page};
use crate::event::Instant;
use crate::page::asked::{Asked, Span, sort_name};
use crate::page::listener::Response;
use crate::page::respond;
use crate::page::site::Site;

/// A ranking reaches so far back unless a range is given: it reads all of it.
const RANKED: Span = Span::Day;
/// Rows that are counted to say what a filter hides.
const COUNTED: u32 = 100;

/// What was asked of the archive; also the API's answer.
pub struct Data {
    /// One page.
    pub page: Page,
    /// Where newer ones are; `None` on the first page.
    pub newer: Option<Key>,
    /// Nothing that came before is missing.
    pub cursor: Cursor,
    /// When nothing matches: the part of the filter without which most would, and how many.
    without: Option<(&'static str, usize)>,
}

/// Asks.
pub fn look(archive: &dyn Archive, asked: &Asked, now: Instant) -> Result<Data, Failure> {
    // The place in the stream first: what is committed meanwhile comes twice rather than never.
    let cursor = archive.position()?;
    let is_open = asked.span.is_none() && asked.filter.from.is_none();
    let span = asked.span.or(asked.sort.filter(|_| is_open).map(|_| RANKED));
    let range = Asked { span, ..asked.clone() }.range(now);
    let filter = asked.found(archive, range.clone())?;
    let (page, newer) = match (&asked.sort, &asked.after) {
        (Some(order), _) => (Page { records: archive.ranked(&filter, *order, asked.rows())?, next: None }, None),
        (None, Some(after)) => {
            let page = archive.newer(&filter, after, asked.rows())?;
            let next = page.records.last().and_then(|last| Key::of(&last.anomaly));
            (Page { records: page.records, next }, page.next)
        }
        (None, None) => {
            let page = archive.newest(&filter, asked.before.as_ref(), asked.rows())?;
            let newer = asked.before.as_ref().and(page.records.first()).and_then(|first| Key::of(&first.anomaly));
            (page, newer)
        }
    };
    let is_first = asked.before.is_none() && asked.after.is_none();
    let without = if page.records.is_empty() && is_first { without(archive, asked, &range)? } else { None };
    Ok(Data { page, newer, cursor, without })
}

/// Which part of a filter hides most.
fn without(archive: &dyn Archive, asked: &Asked, range: &Filter) -> Result<Option<(&'static str, usize)>, Failure> {
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
    let mut look = |name, filter: &Filter| -> Result<(), Failure> {
        let count = archive.newest(filter, None, COUNTED)?.records.len();
        if count > most.map_or(0, |(_, most)| most) {
            most = Some((name, count));
        }
        Ok(())
    };
    for (name, filter) in parts {
        look(name, &asked.found(archive, filter)?)?;
    }
    if asked.search.is_some() {
        look("the search", range)?;
    }
    Ok(most)
}

#[derive(Serialize)]
struct Content {
    heading: String,
    filters: Filters,
    rows: Vec<Row>,
    show_device: bool,
    newest: String,
    newer: String,
    older: String,
    sorts: Vec<Sort>,
    hint: String,
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

/// The page. Later pages never change, so only the first refreshes itself.
pub fn show(site: &Site, frame: Frame<'_>, asked: &Asked, data: &Data) -> Response {
    let rows = Row::all(&data.page.records, site.now());
    let more = if data.page.next.is_some() { "+" } else { "" };
    let count = format!("{}{more}", grouped(rows.len() as u64));
    let url = |asked: Asked| format!("/anomalies{}", asked.query());
    let export = Asked { limit: None, before: None, after: None, sort: None, ..asked.still() }.query();
    let first = Asked { before: None, after: None, ..asked.clone() };
    let is_first = asked.before.is_none() && asked.after.is_none();
    let content = Content {
        heading: match (asked.sort, rows.len()) {
            (Some(Order::Score), _) => format!("The {count} farthest of {}", asked.words(RANKED)),
            (Some(_), _) => format!("{count} of {} by {}", asked.words(RANKED), sort_name(asked.sort)),
            (None, _) if !is_first => format!("{count} earlier anomalies"),
            (None, 1) => "1 anomaly".to_owned(),
            (None, _) => format!("{count} anomalies"),
        },
        filters: Filters::of("/anomalies", asked, None),
        rows,
        show_device: true,
        newest: if is_first { String::new() } else { url(first.clone()) },
        newer: match &data.newer {
            Some(key) => url(Asked { after: Some(key.clone()), ..first.clone() }),
            None => String::new(),
        },
        older: match &data.page.next {
            Some(key) => url(Asked { before: Some(key.clone()), ..first.clone() }),
            None => String::new(),
        },
        sorts: [
            ("newest", None),
            ("farthest", Some(Order::Score)),
            ("device", Some(Order::Device)),
            ("metric", Some(Order::Metric)),
        ]
        .map(|(text, sort)| Sort { text, url: url(Asked { sort, ..first.clone() }), is_current: asked.sort == sort })
        .into(),
        hint: match data.without {
            Some((name, count)) if count == COUNTED as usize => format!("Without {name} there are {COUNTED} or more."),
            Some((name, 1)) => format!("Without {name} there is one."),
            Some((name, count)) => format!("Without {name} there are {count}."),
            None => String::new(),
        },
        json: format!("/api/v1/anomalies{}", asked.still().query()),
        csv: format!("/api/v1/anomalies.csv{export}"),
        lines: format!("/api/v1/anomalies.jsonl{export}"),
    };
    let is_live = is_first && asked.sort.is_none();
    let frame = Frame {
        refresh: if is_first { frame.refresh } else { 0 },
        cursor: if is_live { data.cursor.to_string() } else { String::new() },
        ..frame
    };
    respond::html(site, 200, "list.html", &frame, &content)
}
