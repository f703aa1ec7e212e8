//! `/api/v1/anomalies`: the records as they are, with the place where the next page starts; and the API's own description.

use hyper::body::Bytes;
use serde::Serialize;

use super::list;
use crate::archive::Record;
use crate::page::listener::Response;
use crate::page::site::Site;

/// The document.
#[derive(Serialize)]
pub struct Body<'a> {
    anomalies: &'a [Record],
    /// For `before`; null on the last page.
    next: Option<String>,
    /// For `after`; null on the first page.
    prev: Option<String>,
    /// For `/events?cursor=`: what is committed from here on.
    cursor: String,
}

impl<'a> Body<'a> {
    /// Of a page of the list.
    pub fn of(data: &'a list::Data) -> Body<'a> {
        Body {
            anomalies: &data.page.records,
            next: data.page.next.as_ref().map(ToString::to_string),
            prev: data.newer.as_ref().map(ToString::to_string),
            cursor: data.cursor.to_string(),
        }
    }
}

/// As OpenAPI. Its addresses are relative to the server, which has the path of a proxy.
pub fn description(site: &Site) -> Response {
    const TEXT: &str = include_str!("../assets/openapi.json");
    let headers = vec![("content-type", "application/json".to_owned())];
    let server = if site.base.as_str().is_empty() { "/" } else { site.base.as_str() };
    let servers = format!("\"servers\": [{{ \"url\": \"{server}\" }}],\n \"paths\":");
    let body = Bytes::from(TEXT.replacen("\"paths\":", &servers, 1));
    Response { status: 200, headers, body: body.into() }
}
