//! The page that lists the devices of a time range by their number of anomalies.

use serde::Serialize;

use super::filters::Filters;
use super::format::{counted, grouped};
use super::links::device_url;
use super::text::shown;
use crate::anomaly::Severity;
use crate::archive::{Archive, Count, Filter, MAX_LIMIT, NameCount, NoAnswer, Outside};
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::cached_page::{Answer, Page};
use crate::page::chart::minutes;
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery, Span};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// Maximum number of devices shown.
const MAX_DEVICES: u32 = 100;

/// The page `/devices`, a ranking of devices.
pub(crate) struct Devices;

impl Page for Devices {
    type Key = PageQuery;
    type Data = DevicesData;

    const NAV: &'static str = "devices";
    const ACCEPTS: &'static [&'static [&'static str]] = query::RANGE;
    const TEMPLATE: Template = ("devices.html", include_str!("../templates/devices.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<PageQuery> {
        (path == ["devices"]).then(|| query.still())
    }

    fn title(_: &PageQuery) -> (String, String) {
        ("Devices".to_owned(), "/devices".to_owned())
    }

    fn load(archive: &dyn Archive, key: &PageQuery, now: Timestamp) -> Result<DevicesData, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Devices>) -> Response {
        show(site, frame, answer.query, answer.data)
    }
}

/// Data that the page loads from the archive.
pub(crate) struct DevicesData {
    /// Devices with their anomalies, also those of `outside`.
    devices: Vec<NameCount>,
    /// Anomalies detected in the span with times outside of it.
    outside: Outside,
}

/// Loads the data from the archive.
fn load(archive: &dyn Archive, query: &PageQuery, now: Timestamp) -> Result<DevicesData, NoAnswer> {
    let bins = query.axis(Span::Hour, now);
    let range = Filter { from: Some(bins.from), to: bins.to(), ..query.filter.clone() };
    let filter = query.found(archive, range)?;
    let mut devices = archive.by_device(&filter, MAX_DEVICES)?;
    // A range that the user gave refers to event times, so anomalies with other times do not belong to it.
    let outside = match query.filter.from.is_none() && query.filter.to.is_none() {
        true => archive.outside(&filter, bins.from, MAX_LIMIT)?,
        false => Outside::default(),
    };
    for anomaly in outside.records.iter().map(|record| &record.anomaly) {
        let is_critical = anomaly.severity == Severity::Critical;
        let one = Count { critical: u64::from(is_critical), warning: u64::from(!is_critical) };
        match devices.iter_mut().find(|device| device.name.as_ref() == Some(&anomaly.device_id)) {
            Some(NameCount { count, .. }) => {
                *count = Count { critical: count.critical + one.critical, warning: count.warning + one.warning };
            }
            None => devices.push(NameCount { name: Some(anomaly.device_id.clone()), count: one }),
        }
    }
    devices.sort_by_key(|device| std::cmp::Reverse(device.count.total()));
    devices.truncate(MAX_DEVICES as usize);
    Ok(DevicesData { devices, outside })
}

#[derive(Serialize)]
struct DevicesContent {
    heading: String,
    note: String,
    filters: Filters,
    devices: Vec<DeviceLine>,
}

#[derive(Serialize)]
struct DeviceLine {
    name: String,
    url: String,
    svg: String,
    count: String,
    critical: String,
}

/// Renders the page from its data.
fn show(site: &Site, frame: Frame<'_>, query: &PageQuery, data: &DevicesData) -> Response {
    let words = query.words(Span::Hour);
    let most = data.devices.iter().map(|device| device.count.total()).max().unwrap_or(0);
    let link_query = PageQuery { span: query.span, ..query.plain() }.query();
    let line = |of: &NameCount| {
        let name = of.name.clone()?;
        Some(DeviceLine {
            url: format!("{}{link_query}", device_url(&name)),
            name: shown(&name),
            svg: minutes::bar(of.count, most),
            count: grouped(of.count.total()),
            critical: grouped(of.count.critical),
        })
    };
    let devices = data.devices.iter().filter_map(line).collect::<Vec<_>>();
    let content = DevicesContent {
        heading: match devices.len() {
            0 => format!("No device had anomalies in {}", words),
            n if n == MAX_DEVICES as usize => format!("The {n} devices with most anomalies in {}", words),
            n => format!("{} with anomalies in {}", counted(n as u64, "device", "devices"), words),
        },
        note: match (data.outside.records.len() as u64, data.outside.is_more) {
            (0, _) => "most anomalies first".into(),
            (1, false) => "most anomalies first; 1 of them has an event time outside of this span".into(),
            (n, is_more) => {
                let more = if is_more { "more than " } else { "" };
                format!("most anomalies first; {more}{} of them have event times outside of this span", grouped(n))
            }
        },
        filters: Filters::of("/devices", query, Some(Span::Hour)),
        devices,
    };
    respond::html(site, 200, "devices.html", &frame, &content)
}
