//! One file for each page: what it asks of the archive, and what its template gets. Templates lay out; they compute nothing.

pub mod api;
pub mod device;
pub mod devices;
pub mod explain;
pub mod filters;
pub mod format;
pub mod list;
pub mod notice;
pub mod overview;
pub mod row;
pub mod strip;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::asked::Asked;
use super::site::Site;
use strip::Strip;

/// What surrounds every page.
#[derive(Serialize)]
pub struct Frame<'a> {
    /// Of the window.
    pub title: String,
    /// Which link is this page.
    pub nav: &'static str,
    /// Seconds; 0 when the page does not refresh itself.
    pub refresh: u64,
    /// The reader has stopped it.
    pub is_paused: bool,
    /// This page, refreshing or not, whichever it is not now.
    pub toggle: String,
    /// Time of the page.
    pub clock: String,
    /// The sentence above all else.
    pub strip: Option<Strip>,
    /// Address of the style sheet.
    pub style: &'a str,
    /// Address of the script.
    pub script: &'a str,
    /// Address of the icon.
    pub icon: &'a str,
}

impl<'a> Frame<'a> {
    /// A page that refreshes itself.
    pub fn live(site: &'a Site, title: &str, nav: &'static str, path: &str, asked: &Asked) -> Frame<'a> {
        let other = Asked { is_paused: !asked.is_paused, ..asked.clone() };
        let frame = Frame::still(site, title);
        Frame {
            nav,
            refresh: if asked.is_paused { 0 } else { site.refresh },
            is_paused: asked.is_paused,
            toggle: format!("{path}{}", other.query()),
            ..frame
        }
    }

    /// A page that does not.
    pub fn still(site: &'a Site, title: &str) -> Frame<'a> {
        let [style, script, icon] = site.assets.paths();
        Frame {
            title: title.to_owned(),
            nav: "",
            refresh: 0,
            is_paused: false,
            toggle: String::new(),
            clock: format::clock(site.now()),
            strip: None,
            style,
            script,
            icon,
        }
    }
}

/// Letters, digits and what RFC 3986 calls unreserved stay; `.` does not, since a segment `..` means another path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// One segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}
