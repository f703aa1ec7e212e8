//! What surrounds every page: title, links, the clock, and how the page looks.

use serde::Serialize;

use super::context::RequestContext;
use super::query::{Manner, PageQuery, Theme};
use super::view::banner::Banner;
use super::view::format;

/// What surrounds every page.
#[derive(Serialize)]
pub struct Frame<'a> {
    /// Of the window.
    pub title: String,
    /// Which link is this page.
    pub nav: &'static str,
    /// Query of links to other pages: how they look.
    pub manner: String,
    /// Seconds; 0 when the page does not refresh itself.
    pub refresh: u64,
    /// How often it does, in words; the script says when the page is live.
    pub every: String,
    /// What the page shows is up to here: the event stream goes on from it. Empty when the page has no rows that come.
    pub cursor: String,
    /// It was made without a new answer: the script asks again soon.
    pub is_late: bool,
    /// The reader has stopped it.
    pub is_paused: bool,
    /// Times stay in UTC.
    pub is_utc: bool,
    /// `light` or `dark`; empty: the system's.
    pub theme: &'static str,
    /// This page, refreshing or not, whichever it is not now.
    pub toggle: String,
    /// Time of the page.
    pub clock: String,
    /// As `clock`, for the script.
    pub made: String,
    /// This page with its times in the reader's zone, and in UTC; empty when it cannot be had so.
    pub zones: Vec<Choice>,
    /// This page in other colours.
    pub themes: Vec<Choice>,
    /// The sentence above all else.
    pub banner: Option<Banner>,
    /// What is wrong with the detection, on pages without that sentence; empty when nothing is known to be.
    pub alarm: String,
    /// Who reads; empty when nobody is asked.
    pub visitor: String,
    /// May mark.
    pub is_operator: bool,
    /// Before each address of this site, as `link` puts it there: for the script.
    pub base: &'a str,
    /// This page's own address, without `base` and query; empty when no rows come to it.
    pub path: String,
    /// What this page was asked with, spelled as `Asked` spells it.
    pub asked: String,
    /// Address of the style sheet.
    pub style: &'a str,
    /// Address of the script.
    pub script: &'a str,
}

impl<'a> Frame<'a> {
    /// A page that refreshes itself.
    pub fn live(
        visit: &RequestContext<'a>,
        title: &str,
        nav: &'static str,
        path: &str,
        asked: &PageQuery,
    ) -> Frame<'a> {
        let Manner { is_paused, is_utc, theme } = asked.manner;
        let other = PageQuery { manner: Manner { is_paused: !is_paused, ..asked.manner }, ..asked.clone() };
        let frame = Frame::still(visit, title);
        Frame {
            nav,
            manner: asked.plain().query(),
            refresh: if is_paused { 0 } else { visit.site.refresh },
            every: format::every(visit.site.refresh),
            is_paused,
            is_utc,
            path: path.to_owned(),
            asked: asked.query(),
            theme: theme.map_or("", Theme::as_str),
            toggle: format!("{path}{}", other.query()),
            zones: [("local", false), ("UTC", true)]
                .map(|(text, is_utc)| Choice::of(text, path, asked, Manner { is_utc, ..asked.manner }))
                .into(),
            themes: [("system", None), ("light", Some(Theme::Light)), ("dark", Some(Theme::Dark))]
                .map(|(text, theme)| Choice::of(text, path, asked, Manner { theme, ..asked.manner }))
                .into(),
            ..frame
        }
    }

    /// A page that does not.
    pub fn still(visit: &RequestContext<'a>, title: &str) -> Frame<'a> {
        let site = visit.site;
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
            visitor: if visit.visitor.can_leave { visit.visitor.name.clone() } else { String::new() },
            is_operator: visit.visitor.is_operator,
            base: site.base.as_str(),
            path: String::new(),
            asked: String::new(),
            style,
            script,
        }
    }
}

/// A page that looks otherwise.
#[derive(Serialize)]
pub struct Choice {
    text: &'static str,
    url: String,
    is_current: bool,
}

impl Choice {
    fn of(text: &'static str, path: &str, asked: &PageQuery, manner: Manner) -> Choice {
        let other = PageQuery { manner, ..asked.clone() };
        Choice { text, url: format!("{path}{}", other.query()), is_current: manner == asked.manner }
    }
}
