//! The event stream: one thread follows the database for all subscribers. A subscriber that reconnects names its last
//! position and gets the rows since then, each once. A subscriber that reads too slowly is disconnected and continues
//! in the same way.

pub(crate) mod hub;
mod recent;
mod tail;

use std::sync::Arc;

use super::context::RequestContext;
use super::dashboard::Dashboard;
use super::query::PageQuery;
use super::respond;
use crate::archive::Cursor;
use crate::error::{Error, Result};
use crate::http::{Response, ResponseBody};
use hub::{Hub, Selection};

/// Answers `/events`: sends the anomalies committed after the cursor, as they are committed.
pub(crate) fn stream(hub: &Hub, context: &RequestContext<'_>, query: &PageQuery) -> Response {
    let given = context.request.header("last-event-id").map(str::to_owned).or_else(|| {
        let parameters = url::form_urlencoded::parse(context.request.query.as_bytes());
        parameters.into_iter().find(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned())
    });
    let since = match given.filter(|text| !text.is_empty()).map(|text| Cursor::parse(&text)) {
        Some(None) => {
            let error = "`cursor`: expected the `id` of an earlier message";
            return respond::json(400, &serde_json::json!({ "error": error, "parameter": "cursor" }));
        }
        since => since.flatten(),
    };
    let session = context.site.auth.session(context.request);
    let Some(body) = hub.subscribe(Selection::of(query), since.as_ref(), session) else {
        let mut response = respond::json(503, &serde_json::json!({ "error": "the event stream is not available now" }));
        response.headers.push(("retry-after", "5".to_owned()));
        return response;
    };
    let headers = vec![
        ("content-type", "text/event-stream".to_owned()),
        ("cache-control", "no-store".to_owned()),
        // Without this header a buffering proxy would delay the events.
        ("x-accel-buffering", "no".to_owned()),
    ];
    Response { status: 200, headers, body: ResponseBody::Events(body) }
}

/// Follows the database for the subscribers of a dashboard, on a thread of its own. The thread ends when a stop is
/// requested or the dashboard is dropped.
///
/// # Errors
/// 70 when the system cannot start a thread.
pub(crate) fn follow(dashboard: &Arc<Dashboard>) -> Result<()> {
    let dashboard = Arc::downgrade(dashboard);
    std::thread::Builder::new()
        .name("follow".into())
        .spawn(move || tail::run(&dashboard))
        .map(drop)
        .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))
}

#[cfg(test)]
mod tests;
