//! The devices of a span, those with most anomalies first.

use serde::Serialize;

use super::filters::Filters;
use super::format::{counted, grouped};
use super::text::shown;
use super::{Frame, device};
use crate::archive::{Archive, Filter, NameCount, NoAnswer};
use crate::event::Timestamp;
use crate::page::chart::minutes;
use crate::page::http::Response;
use crate::page::query::{PageQuery, Span};
use crate::page::respond;
use crate::page::site::Site;

/// Devices shown.
const MOST: u32 = 100;

/// What was asked of the archive.
pub struct DevicesData {
    devices: Vec<NameCount>,
}

/// Asks.
pub fn look(archive: &dyn Archive, asked: &PageQuery, now: Timestamp) -> Result<DevicesData, NoAnswer> {
    let bins = asked.axis(Span::Hour, now);
    let range = Filter { from: Some(bins.from), to: bins.to(), ..asked.filter.clone() };
    Ok(DevicesData { devices: archive.by_device(&asked.found(archive, range)?, MOST)? })
}

#[derive(Serialize)]
struct Content {
    heading: String,
    note: String,
    filters: Filters,
    devices: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    url: String,
    svg: String,
    count: String,
    critical: String,
}

/// The page.
pub fn show(site: &Site, frame: Frame<'_>, asked: &PageQuery, data: &DevicesData) -> Response {
    let words = asked.words(Span::Hour);
    let most = data.devices.iter().map(|device| device.count.total()).max().unwrap_or(0);
    let query = PageQuery { span: asked.span, ..asked.plain() }.query();
    let line = |of: &NameCount| {
        let name = of.name.clone()?;
        Some(Line {
            url: format!("{}{query}", device::url(&name)),
            name: shown(&name),
            svg: minutes::bar(of.count, most),
            count: grouped(of.count.total()),
            critical: grouped(of.count.critical),
        })
    };
    let devices = data.devices.iter().filter_map(line).collect::<Vec<_>>();
    let content = Content {
        heading: match devices.len() {
            0 => format!("No device had anomalies in {}", words),
            n if n == MOST as usize => format!("The {n} devices with most anomalies in {}", words),
            n => format!("{} with anomalies in {}", counted(n as u64, "device", "devices"), words),
        },
        note: "most anomalies first".into(),
        filters: Filters::of("/devices", asked, Some(Span::Hour)),
        devices,
    };
    respond::html(site, 200, "devices.html", &frame, &content)
}
