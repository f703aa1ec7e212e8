//! The part that all pages share: title, links, clock, and display preferences.

use serde::Serialize;

use super::context::RequestContext;
use super::query::{Manner, PageQuery, Theme};
use super::view::banner::Banner;
use super::view::format;

/// Values that the base template shows on every page.
#[derive(Serialize)]
pub(crate) struct Frame<'a> {
    /// Title of the browser's window or tab.
    pub title: String,
    /// Name of the navigation link that is highlighted.
    pub nav: &'static str,
    /// Query with the display preferences, for links to other pages.
    pub manner: String,
    /// Refresh interval in seconds; 0 when the page does not refresh itself.
    pub refresh: u64,
    /// Refresh interval in words; the script changes the words while the event stream is connected.
    pub every: String,
    /// Position in the event stream up to which the page is complete. The stream continues from it; empty when the page
    /// shows no live rows.
    pub cursor: String,
    /// Whether the page was rendered without a new answer; the script then reloads soon.
    pub is_late: bool,
    /// Whether the user has paused the refresh.
    pub is_paused: bool,
    /// Whether times stay in UTC.
    pub is_utc: bool,
    /// `light` or `dark`; empty for the system's theme.
    pub theme: &'static str,
    /// URL of this page with the refresh paused or resumed.
    pub toggle: String,
    /// Time at which the page was rendered.
    pub clock: String,
    /// Same as `clock`, in a format for the script.
    pub made: String,
    /// Links to this page with times in the browser's zone and in UTC; empty when the page has no such choice.
    pub zones: Vec<Choice>,
    /// Links to this page with another theme.
    pub themes: Vec<Choice>,
    /// The banner at the top of the page.
    pub banner: Option<Banner>,
    /// What is wrong with the detection, for pages without a banner; empty when no problem is known.
    pub alarm: String,
    /// Name of the user; empty when no login is needed.
    pub visitor: String,
    /// Whether the user may review anomalies.
    pub is_operator: bool,
    /// Prefix of every URL path of this site, as the filter `link` adds it; for the script.
    pub base: &'a str,
    /// URL path of this page without `base` and query; empty when the page gets no live rows.
    pub path: String,
    /// Query of this page in the canonical form of [`PageQuery::query`].
    pub query: String,
    /// URL of the style sheet, with its hash.
    pub style: &'a str,
    /// URL of the script, with its hash.
    pub script: &'a str,
}

impl<'a> Frame<'a> {
    /// Makes the frame of a page that refreshes itself.
    pub(crate) fn live(
        context: &RequestContext<'a>,
        title: &str,
        nav: &'static str,
        path: &str,
        query: &PageQuery,
    ) -> Frame<'a> {
        let Manner { is_paused, is_utc, theme } = query.manner;
        let other = PageQuery { manner: Manner { is_paused: !is_paused, ..query.manner }, ..query.clone() };
        let frame = Frame::still(context, title);
        Frame {
            nav,
            manner: query.plain().query(),
            refresh: if is_paused { 0 } else { context.site.refresh },
            every: format::every(context.site.refresh),
            is_paused,
            is_utc,
            path: path.to_owned(),
            query: query.query(),
            theme: theme.map_or("", Theme::as_str),
            toggle: format!("{path}{}", other.query()),
            zones: [("local", false), ("UTC", true)]
                .map(|(text, is_utc)| Choice::of(text, path, query, Manner { is_utc, ..query.manner }))
                .into(),
            themes: [("system", None), ("light", Some(Theme::Light)), ("dark", Some(Theme::Dark))]
                .map(|(text, theme)| Choice::of(text, path, query, Manner { theme, ..query.manner }))
                .into(),
            ..frame
        }
    }

    /// Makes the frame of a page that does not refresh itself.
    pub(crate) fn still(context: &RequestContext<'a>, title: &str) -> Frame<'a> {
        let site = context.site;
        let [style, script] = site.assets.paths();
        Frame {
            title: title.to_owned(),
            nav: "",
            manner: String::new(),
            refresh: 0,
            every: String::new(),
            cursor: String::new(),
            is_late: false,
            is_paused: false,
            is_utc: false,
            theme: "",
            toggle: String::new(),
            clock: format::clock(site.now()),
            made: site.now().to_string(),
            zones: Vec::new(),
            themes: Vec::new(),
            banner: None,
            alarm: String::new(),
            visitor: if context.visitor.can_leave { context.visitor.name.clone() } else { String::new() },
            is_operator: context.visitor.is_operator,
            base: site.base.as_str(),
            path: String::new(),
            query: String::new(),
            style,
            script,
        }
    }
}

/// A link to this page with another display preference.
#[derive(Serialize)]
pub(crate) struct Choice {
    text: &'static str,
    url: String,
    is_current: bool,
}

impl Choice {
    fn of(text: &'static str, path: &str, query: &PageQuery, manner: Manner) -> Choice {
        let other = PageQuery { manner, ..query.clone() };
        Choice { text, url: format!("{path}{}", other.query()), is_current: manner == query.manner }
    }
}
