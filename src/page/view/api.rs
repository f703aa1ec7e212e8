//! `/api/v1/anomalies`: the records as they are, with the place where the next page starts; and the API's own description.

use hyper::body::Bytes;
use serde::Serialize;

use super::list;
use crate::archive::StoredAnomaly;
use crate::http::Response;
use crate::page::site::Site;

/// The document.
#[derive(Serialize)]
pub struct ApiDocument<'a> {
    anomalies: &'a [StoredAnomaly],
    /// Of the first page of a span: detected in it, with times outside of it. Absent on other pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<&'a [StoredAnomaly]>,
    /// There are more of these than `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside_is_cut: Option<bool>,
    /// For `before`; null on the last page.
    next: Option<String>,
    /// For `after`; null on the first page.
    prev: Option<String>,
    /// For `/events?cursor=`: what is committed from here on.
    cursor: String,
}

impl<'a> ApiDocument<'a> {
    /// Of a page of the list.
    pub fn of(data: &'a list::ListData) -> ApiDocument<'a> {
        ApiDocument {
            anomalies: &data.page.records,
            outside: data.outside.as_ref().map(|outside| &outside.records[..]),
            outside_is_cut: data.outside.as_ref().map(|outside| outside.is_more),
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
