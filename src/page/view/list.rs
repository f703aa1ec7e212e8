//! All anomalies that match, page by page.

use serde::Serialize;

use super::Frame;
use super::filters::Filters;
use super::format::grouped;
use super::row::Row;
use crate::archive::{Archive, Failure, Page};
use crate::event::Instant;
use crate::page::asked::Asked;
use crate::page::listener::Response;
use crate::page::respond;
use crate::page::site::Site;

/// What was asked of the archive; also the API's answer.
pub struct Data {
    /// One page.
    pub page: Page,
}

/// Asks.
pub fn look(archive: &dyn Archive, asked: &Asked, now: Instant) -> Result<Data, Failure> {
    Ok(Data { page: archive.newest(&asked.range(now), asked.before.as_ref(), asked.rows())? })
}

#[derive(Serialize)]
struct Content {
    heading: String,
    filters: Filters,
    rows: Vec<Row>,
    show_device: bool,
    newest: String,
    older: String,
    json: String,
}

/// The page. Later pages never change, so only the first refreshes itself.
pub fn show(site: &Site, frame: Frame<'_>, asked: &Asked, data: &Data) -> Response {
    let rows = Row::all(&data.page.records, site.now());
    let more = if data.page.next.is_some() { "+" } else { "" };
    let count = format!("{}{more}", grouped(rows.len() as u64));
    let url = |asked: Asked| format!("/anomalies{}", asked.query());
    let content = Content {
        heading: match (&asked.before, rows.len()) {
            (Some(_), _) => format!("{count} older anomalies"),
            (None, 1) => "1 anomaly".to_owned(),
            (None, _) => format!("{count} anomalies"),
        },
        filters: Filters::of("/anomalies", asked, None),
        rows,
        show_device: true,
        newest: asked.before.as_ref().map_or_else(String::new, |_| url(Asked { before: None, ..asked.clone() })),
        older: data
            .page
            .next
            .as_ref()
            .map_or_else(String::new, |next| url(Asked { before: Some(next.clone()), ..asked.clone() })),
        json: format!("/api/anomalies{}", Asked { is_paused: false, ..asked.clone() }.query()),
    };
    let refresh = if asked.before.is_some() { 0 } else { frame.refresh };
    respond::html(site, 200, "list.html", &Frame { refresh, ..frame }, &content)
}
