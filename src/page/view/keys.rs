//! The page that lists the keyboard shortcuts. It does not query the archive, so it works in an outage.

use crate::http::Response;
use crate::page::context::RequestContext;
use crate::page::frame::Frame;
use crate::page::query::PageQuery;
use crate::page::respond;

/// Renders the page of keys.
pub(crate) fn show(context: &RequestContext<'_>, query: &PageQuery) -> Response {
    let frame = Frame { refresh: 0, toggle: String::new(), ..Frame::live(context, "Keys", "", "/keys", query) };
    respond::html(context.site, 200, "keys.html", &frame, &())
}
