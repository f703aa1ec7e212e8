//! The form above a page: its spans as links, its filters as fields with what is asked now.

use serde::Serialize;

use crate::archive::Filter;
use crate::page::asked::{Asked, Span};

/// What the template gets.
#[derive(Debug, Serialize)]
pub struct Filters {
    path: String,
    spans: Vec<Link>,
    /// The span when it is not the default, so that the form keeps it.
    span: &'static str,
    device: String,
    metric: String,
    severity: &'static str,
    is_paused: bool,
    /// Whether anything is filtered, so that it can be cleared.
    is_set: bool,
    clear: String,
}

#[derive(Debug, Serialize)]
struct Link {
    text: &'static str,
    url: String,
    is_current: bool,
}

impl Filters {
    /// For a page at `path`. Without a default span, no span is also a choice.
    pub fn of(path: &str, asked: &Asked, default: Option<Span>) -> Filters {
        let url = |span: Option<Span>| {
            let filter = Filter { from: None, to: None, ..asked.filter.clone() };
            let other = Asked { span: span.filter(|s| Some(*s) != default), filter, before: None, ..asked.clone() };
            format!("{path}{}", other.query())
        };
        let has_range = asked.filter.from.is_some() || asked.filter.to.is_some();
        let current = asked.span.or(default);
        let mut spans = Vec::new();
        if default.is_none() {
            spans.push(Link { text: "all", url: url(None), is_current: current.is_none() && !has_range });
        }
        for span in Span::ALL {
            spans.push(Link { text: span.as_str(), url: url(Some(span)), is_current: current == Some(span) });
        }
        let Filter { device, metric, severity, .. } = &asked.filter;
        let bare = Asked { span: asked.span, is_paused: asked.is_paused, ..Asked::default() };
        Filters {
            path: path.to_owned(),
            spans,
            span: asked.span.filter(|s| Some(*s) != default).map_or("", Span::as_str),
            device: device.clone().unwrap_or_default(),
            metric: metric.clone().unwrap_or_default(),
            severity: severity.map_or("", |s| s.as_str()),
            is_paused: asked.is_paused,
            is_set: device.is_some() || metric.is_some() || severity.is_some() || has_range,
            clear: format!("{path}{}", bare.query()),
        }
    }
}
