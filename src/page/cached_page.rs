//! What a page is: the path and query that it accepts, what it loads from the archive, and how it is rendered. Answers are
//! cached; in an outage the last one is shown below the reason.

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

/// One page. The registry lists all of them.
pub trait Page: Sized + 'static {
    /// What is asked of the archive; answers are cached by it.
    type Question: Clone + PartialEq + Send + 'static;
    /// What the archive answers.
    type Data: Send + Sync + 'static;

    /// The link of the navigation that leads here.
    const NAV: &'static str;
    /// Groups of parameters that the query may have.
    const ACCEPTS: &'static [&'static [&'static str]];
    /// Its own template.
    const TEMPLATE: Template;

    /// The question that a path (decoded, without the first slash) and a query ask; `None` for the path of another page.
    fn question(path: &[&str], query: &PageQuery) -> Option<Self::Question>;

    /// Title and address of the page.
    fn title(question: &Self::Question) -> (String, String);

    /// Asks the archive.
    ///
    /// # Errors
    /// Those of the archive.
    fn load(archive: &dyn Archive, question: &Self::Question, now: Timestamp) -> Result<Self::Data, NoAnswer>;

    /// Renders an answer.
    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Self>) -> Response;
}

/// What a page renders.
pub struct Answer<'a, P: Page> {
    /// What was asked.
    pub question: &'a P::Question,
    /// The query as it was sent.
    pub query: &'a PageQuery,
    /// What the archive said.
    pub data: &'a P::Data,
    /// When it was true.
    pub taken: Timestamp,
}

/// A page with its answers.
pub struct CachedPage<P: Page> {
    cache: AnswerCache<P::Question, P::Data>,
}

impl<P: Page> CachedPage<P> {
    /// Nothing is asked yet.
    pub fn new(site: &Site) -> Self {
        CachedPage { cache: site.cache() }
    }

    /// The answers.
    pub fn cache(&self) -> &AnswerCache<P::Question, P::Data> {
        &self.cache
    }

    /// A new answer if there is one in time, else the last one with the reason.
    pub fn get(&self, site: &Site, question: &P::Question) -> CachedAnswer<P::Data> {
        site.ask(&self.cache, question, P::load)
    }

    /// Answers a request; `None` when its path is that of another page. `alarm` says what is wrong with the detection.
    pub fn answer(
        &self,
        visit: &RequestContext<'_>,
        path: &[&str],
        alarm: impl FnOnce() -> Option<String>,
    ) -> Option<Response> {
        P::question(path, &PageQuery::default())?;
        let query = match PageQuery::read(&visit.request.query, P::ACCEPTS) {
            Ok(query) => query,
            Err(error) => return Some(misread(visit, &error)),
        };
        let question = P::question(path, &query)?;
        let (title, address) = P::title(&question);
        let frame = Frame::live(visit, &title, P::NAV, &address, &query);
        let site = visit.site;
        let got = self.get(site, &question);
        // The first answer tells how far this clock is from that of the database.
        let now = site.now();
        let alarm = alarm().unwrap_or_default();
        let frame = Frame { clock: format::clock(now), made: now.to_string(), alarm, ..frame };
        let render = |data: &P::Data, frame, taken| {
            P::render(site, frame, &Answer { question: &question, query: &query, data, taken })
        };
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

/// The query of a page that is not understood.
pub fn misread(visit: &RequestContext<'_>, error: &QueryError) -> Response {
    let frame = Frame::still(visit, "Not understood");
    notice::page(visit.site, 400, &frame, "The address is not understood.", &shown(&error.message))
}
