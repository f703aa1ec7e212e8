//! The event stream: one follower of the database for all readers. A reader that comes back says how far it was, and gets
//! what came since, nothing twice; one that is too slow is disconnected, and comes back so.

pub mod hub;
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
use hub::{Hub, Wish};

/// `/events`: what is committed after the cursor, as it comes.
pub fn stream(hub: &Hub, visit: &RequestContext<'_>, asked: &PageQuery) -> Response {
    let given = visit.request.header("last-event-id").map(str::to_owned).or_else(|| {
        let query = url::form_urlencoded::parse(visit.request.query.as_bytes());
        query.into_iter().find(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned())
    });
    let since = match given.filter(|text| !text.is_empty()).map(|text| Cursor::parse(&text)) {
        Some(None) => {
            let error = "`cursor`: expected the `id` of an earlier message";
            return respond::json(400, &serde_json::json!({ "error": error, "parameter": "cursor" }));
        }
        since => since.flatten(),
    };
    let Some(body) = hub.join(Wish::of(asked), since.as_ref()) else {
        let mut response = respond::json(503, &serde_json::json!({ "error": "the stream cannot be followed now" }));
        response.headers.push(("retry-after", "5".to_owned()));
        return response;
    };
    let headers = vec![
        ("content-type", "text/event-stream".to_owned()),
        ("cache-control", "no-store".to_owned()),
        // A proxy that gathers would hold them back.
        ("x-accel-buffering", "no".to_owned()),
    ];
    Response { status: 200, headers, body: ResponseBody::Events(body) }
}

/// Follows the database for the readers of a dashboard, on a thread of its own, until a stop is requested or the dashboard is
/// dropped.
///
/// # Errors
/// 70 when the system gives no thread.
pub fn follow(dashboard: &Arc<Dashboard>) -> Result<()> {
    let dashboard = Arc::downgrade(dashboard);
    std::thread::Builder::new()
        .name("follow".into())
        .spawn(move || tail::run(&dashboard))
        .map(drop)
        .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))
}

#[cfg(test)]
mod tests;
