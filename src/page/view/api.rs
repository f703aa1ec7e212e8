//! `/api/v1/anomalies`: records as JSON with cursors for paging; and the OpenAPI description.

use hyper::body::Bytes;
use serde::Serialize;

use super::list;
use crate::archive::StoredAnomaly;
use crate::http::Response;
use crate::page::site::Site;

/// The JSON document of the API's answer.
#[derive(Serialize)]
pub(crate) struct ApiDocument<'a> {
    anomalies: &'a [StoredAnomaly],
    /// Anomalies that were detected in the span but have times outside of it. Only the first page of a span has this
    /// field.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<&'a [StoredAnomaly]>,
    /// Whether there are more of them than `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside_is_cut: Option<bool>,
    /// Value for `before` that returns the next page; null on the last page.
    next: Option<String>,
    /// Value for `after` that returns the previous page; null on the first page.
    prev: Option<String>,
    /// Value for `/events?cursor=`; the event stream then starts after these records.
    cursor: String,
}

impl<'a> ApiDocument<'a> {
    /// Makes the document from a page of the list.
    pub(crate) fn of(data: &'a list::ListData) -> ApiDocument<'a> {
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

/// Answers with the OpenAPI description. Its paths are relative to the server's URL, which contains the base path.
pub(crate) fn description(site: &Site) -> Response {
    const TEXT: &str = include_str!("../assets/openapi.json");
    let headers = vec![("content-type", "application/json".to_owned())];
    let server = if site.base.as_str().is_empty() { "/" } else { site.base.as_str() };
    let servers = format!("\"servers\": [{{ \"url\": \"{server}\" }}],\n \"paths\":");
    let body = Bytes::from(TEXT.replacen("\"paths\":", &servers, 1));
    Response { status: 200, headers, body: body.into() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_description_has_the_fields_of_an_anomaly() {
        let text = serde_json::from_str::<serde_json::Value>(include_str!("../assets/openapi.json")).unwrap();
        let described = &text["components"]["schemas"]["Anomaly"]["properties"];
        let names = |json: &serde_json::Value| {
            json.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
        };
        let (mut own, source) = crate::anomaly::tests::json_names();
        own.insert("review".to_owned());
        assert_eq!(names(&described["source"]["properties"]), source);
        assert_eq!(names(described), own);
    }

    #[test]
    fn every_field_of_an_anomaly_has_a_column() {
        let json = serde_json::to_value(crate::page::chart::spark::tests::sample(93.1)).unwrap();
        let names = |json: &serde_json::Value| {
            json.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
        };
        let (mut own, source) = crate::anomaly::tests::json_names();
        // Kafka stores this time outside of the record.
        own.remove("detected_at");
        assert_eq!(names(&json["source"]), source);
        assert_eq!(names(&json), own);
    }
}
