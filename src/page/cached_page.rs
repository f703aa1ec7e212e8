//! Defines a page: the path and query that it accepts, the data that it loads, and how it is rendered. Answers are
//! cached. In an outage the last answer is shown with a banner that states the reason.

use super::answer_cache::{AnswerCache, CachedAnswer, NoNewAnswer};
use super::context::RequestContext;
use super::frame::Frame;
use super::query::{PageQuery, QueryError};
use super::respond;
use super::site::{Site, Template};
use super::view::text::shown;
use super::view::{format, notice};
use crate::archive::{Archive, NoAnswer};
use crate::event::Timestamp;
use crate::http::Response;

/// A page of the dashboard. The registry lists all pages.
pub(crate) trait Page: Sized + 'static {
    /// What a request asks of the archive: the key of the answer cache.
    type Key: Clone + PartialEq + Send + 'static;
    /// The data of the page.
    type Data: Send + Sync + 'static;

    /// The navigation link that is highlighted on this page.
    const NAV: &'static str;
    /// Groups of parameters that the query may contain.
    const ACCEPTS: &'static [&'static [&'static str]];
    /// The page's own template: name and text.
    const TEMPLATE: Template;

    /// Derives the key from a path (decoded, without the first slash) and a query; returns `None` for the path of
    /// another page.
    fn key(path: &[&str], query: &PageQuery) -> Option<Self::Key>;

    /// Returns the title and the URL path of the page.
    fn title(key: &Self::Key) -> (String, String);

    /// Loads the data from the archive.
    ///
    /// # Errors
    /// The errors of the archive.
    fn load(archive: &dyn Archive, key: &Self::Key, now: Timestamp) -> Result<Self::Data, NoAnswer>;

    /// Renders the data of an answer.
    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Self>) -> Response;
}

/// An answer with all that a page needs to render it.
pub(crate) struct Answer<'a, P: Page> {
    /// The key of the answer.
    pub key: &'a P::Key,
    /// The query of the request, as parsed.
    pub query: &'a PageQuery,
    /// The data from the archive.
    pub data: &'a P::Data,
    /// Time at which the data was read.
    pub taken: Timestamp,
}

/// A page with its cache of answers.
pub(crate) struct CachedPage<P: Page> {
    cache: AnswerCache<P::Key, P::Data>,
}

impl<P: Page> CachedPage<P> {
    /// Makes a page with an empty cache.
    pub(crate) fn new(site: &Site) -> Self {
        CachedPage { cache: site.cache() }
    }

    /// Returns the cache of the page.
    pub(crate) fn cache(&self) -> &AnswerCache<P::Key, P::Data> {
        &self.cache
    }

    /// Returns a new answer if it comes in time, else the last one with the reason.
    pub(crate) fn get(&self, site: &Site, key: &P::Key) -> CachedAnswer<P::Data> {
        site.ask(&self.cache, key, P::load)
    }

    /// Returns why the query of the page at this path has no new answer, or `None` if it has one.
    pub(crate) fn unanswered(&self, site: &Site, path: &[&str]) -> Option<NoNewAnswer> {
        self.get(site, &P::key(path, &PageQuery::default())?).why
    }

    /// Answers a request; returns `None` when its path belongs to another page. `alarm` returns what is wrong with the
    /// detection.
    pub(crate) fn answer(
        &self,
        context: &RequestContext<'_>,
        path: &[&str],
        alarm: impl FnOnce() -> Option<String>,
    ) -> Option<Response> {
        P::key(path, &PageQuery::default())?;
        let query = match PageQuery::read(&context.request.query, P::ACCEPTS) {
            Ok(query) => query,
            Err(error) => return Some(misread(context, &error)),
        };
        let key = P::key(path, &query)?;
        let (title, address) = P::title(&key);
        let frame = Frame::live(context, &title, P::NAV, &address, &query);
        let site = context.site;
        let got = self.get(site, &key);
        // The first answer tells how much this machine's clock differs from the database's clock.
        let now = site.now();
        let alarm = alarm().unwrap_or_default();
        let frame = Frame { clock: format::clock(now), made: now.to_string(), alarm, ..frame };
        let render =
            |data: &P::Data, frame, taken| P::render(site, frame, &Answer { key: &key, query: &query, data, taken });
        Some(match (got.answer, got.why) {
            (Some((data, taken)), None) => render(&data, frame, taken),
            (Some((data, taken)), Some(why)) => {
                let banner = Some(notice::outage(&why, Some(taken), now));
                respond::stale(render(&data, Frame { banner, is_late: true, ..frame }, taken))
            }
            (None, why) => notice::nothing(site, frame, &why.unwrap_or(NoNewAnswer::Slow)),
        })
    }
}

/// Answers a request whose query is not valid.
pub(crate) fn misread(context: &RequestContext<'_>, error: &QueryError) -> Response {
    let frame = Frame::still(context, "Not valid");
    notice::page(context.site, 400, &frame, "The URL is not valid.", &shown(&error.message))
}
