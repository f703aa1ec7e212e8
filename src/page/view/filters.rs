//! The form above a page: spans as links, filters as fields with their current values.

use serde::Serialize;

use crate::archive::Filter;
use crate::page::query::{PageQuery, Span};

/// Values for the template of the form.
#[derive(Debug, Serialize)]
pub(crate) struct Filters {
    path: String,
    spans: Vec<Link>,
    /// Names and values of parameters that the form has no field for; it sends them as hidden fields.
    kept: Vec<[String; 2]>,
    device: String,
    metric: String,
    severity: &'static str,
    review: &'static str,
    search: String,
    /// Whether any filter is set; the page then has a link that clears them.
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
    /// Makes the form of the page at `path`. Without a default span, the form also offers all times.
    pub(crate) fn of(path: &str, query: &PageQuery, default: Option<Span>) -> Filters {
        let url = |span: Option<Span>| {
            let filter = Filter { from: None, to: None, ..query.filter.clone() };
            let other = PageQuery { span: span.filter(|s| Some(*s) != default), filter, before: None, ..query.clone() };
            format!("{path}{}", other.query())
        };
        let has_range = query.filter.from.is_some() || query.filter.to.is_some();
        let current = query.span.or(default).filter(|_| !has_range);
        let mut spans = Vec::new();
        if default.is_none() {
            spans.push(Link { text: "all", url: url(None), is_current: current.is_none() && !has_range });
        }
        for span in Span::ALL {
            spans.push(Link { text: span.as_str(), url: url(Some(span)), is_current: current == Some(span) });
        }
        let filter = &query.filter;
        // A field has room for one value. Several values of one parameter stay in hidden fields.
        let single = |values: &[String]| if let [one] = values { one.clone() } else { String::new() };
        let mut rest = PageQuery { search: None, before: None, ..query.clone() };
        for values in [&mut rest.filter.devices, &mut rest.filter.metrics] {
            if values.len() == 1 {
                values.clear();
            }
        }
        let (severity, review) = (one(&filter.severities), one(&filter.reviews));
        if severity.is_some() {
            rest.filter.severities.clear();
        }
        if review.is_some() {
            rest.filter.reviews.clear();
        }
        let rest_query = rest.query();
        let kept = url::form_urlencoded::parse(rest_query.trim_start_matches('?').as_bytes());
        let bare = PageQuery { span: query.span, ..query.plain() };
        Filters {
            path: path.to_owned(),
            spans,
            kept: kept.map(|(name, value)| [name.into_owned(), value.into_owned()]).collect(),
            device: single(&filter.devices),
            metric: single(&filter.metrics),
            severity: severity.map_or("", |severity| severity.as_str()),
            review: review.map_or("", |review| review.as_str()),
            search: query.search.clone().unwrap_or_default(),
            is_set: has_range
                || query.search.is_some()
                || Filter { from: None, to: None, ..filter.clone() } != Filter::default(),
            clear: format!("{path}{}", bare.query()),
        }
    }
}

fn one<T: Copy>(values: &[T]) -> Option<T> {
    if let [one] = values { Some(*one) } else { None }
}
