//! What a reader asks for in the URL's query: each key is known by name, given once, and checked. What is not understood is
//! an error that names the key; it is never ignored, since a filter that is ignored shows wrong data.

use std::fmt;

use crate::anomaly::Severity;
use crate::archive::{DEFAULT_LIMIT, Filter, Key, MAX_LIMIT};
use crate::event::{Instant, MAX_NAME};

/// How far back, from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 15 minutes
    Quarter,
    /// 1 hour
    Hour,
    /// 6 hours
    Six,
    /// 24 hours
    Day,
}

impl Span {
    /// From the shortest.
    pub const ALL: [Span; 4] = [Span::Quarter, Span::Hour, Span::Six, Span::Day];

    /// As in the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Span::Quarter => "15m",
            Span::Hour => "1h",
            Span::Six => "6h",
            Span::Day => "24h",
        }
    }

    /// As in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Span::Quarter => "the last 15 minutes",
            Span::Hour => "the last hour",
            Span::Six => "the last 6 hours",
            Span::Day => "the last 24 hours",
        }
    }

    /// In milliseconds.
    pub fn millis(self) -> i64 {
        60_000
            * match self {
                Span::Quarter => 15,
                Span::Hour => 60,
                Span::Six => 360,
                Span::Day => 1_440,
            }
    }
}

/// A query that is understood. An absent part is the default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// `span`
    pub span: Option<Span>,
    /// `device`, `metric`, `severity`, `from`, `to`
    pub filter: Filter,
    /// `limit`
    pub limit: Option<u32>,
    /// `before`
    pub before: Option<Key>,
    /// `live=off`: the page does not refresh itself.
    pub is_paused: bool,
}

/// A parameter that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// Its name as given.
    pub parameter: String,
    /// What was expected.
    pub message: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Keys of pages with charts.
pub const CHART: &[&str] = &["span", "metric", "severity", "live"];
/// Keys of the overview.
pub const OVERVIEW: &[&str] = &["span", "device", "metric", "severity", "live"];
/// Keys of the list.
pub const LIST: &[&str] = &["span", "from", "to", "device", "metric", "severity", "limit", "before", "live"];
/// Keys of the API.
pub const API: &[&str] = &["span", "from", "to", "device", "metric", "severity", "limit", "before"];
/// Keys of a page that never changes but for its ages.
pub const PLAIN: &[&str] = &["live"];

impl Asked {
    /// Reads a query of which only some keys are known.
    ///
    /// # Errors
    /// The first parameter that is not understood.
    pub fn read(query: &str, known: &[&str]) -> Result<Asked, Misread> {
        let mut asked = Asked::default();
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let misread = |message: String| Misread { parameter: name.to_string(), message };
            if !known.contains(&name.as_ref()) {
                return Err(misread(format!("`{name}` is not a parameter here; known: {}", known.join(", "))));
            }
            if seen.contains(&name) {
                return Err(misread(format!("`{name}` is given twice")));
            }
            // An empty field of a form is an absent one.
            if !value.is_empty() {
                asked.set(&name, &value).map_err(|expected| misread(format!("`{name}`: {expected}")))?;
            }
            seen.push(name);
        }
        if asked.span.is_some() && asked.filter.from.is_some() {
            let message = "`span` and `from` exclude one another".to_owned();
            return Err(Misread { parameter: "span".to_owned(), message });
        }
        Ok(asked)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "span" => {
                let span = Span::ALL.into_iter().find(|span| span.as_str() == value);
                self.span = Some(span.ok_or("expected 15m, 1h, 6h or 24h")?);
            }
            "device" => self.filter.device = Some(named(value)?),
            "metric" => self.filter.metric = Some(named(value)?),
            "severity" => {
                let all = [Severity::Critical, Severity::Warning];
                let severity = all.into_iter().find(|severity| severity.as_str() == value);
                self.filter.severity = Some(severity.ok_or("expected critical or warning")?);
            }
            "from" => self.filter.from = Some(time(value)?),
            "to" => self.filter.to = Some(time(value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
                self.limit = Some(limit.ok_or_else(|| format!("expected a whole number from 1 to {MAX_LIMIT}"))?);
            }
            "before" => {
                self.before = Some(Key::parse(value).ok_or("expected the `next` of an earlier answer")?);
            }
            _ => {
                self.is_paused = value == "off";
                if !["on", "off"].contains(&value) {
                    return Err("expected on or off".to_owned());
                }
            }
        }
        Ok(())
    }

    /// The filter with the span made a time.
    pub fn range(&self, now: Instant) -> Filter {
        let mut filter = self.filter.clone();
        if let Some(span) = self.span {
            filter.from = Instant::from_millis(now.millis() - span.millis());
        }
        filter
    }

    /// Rows of a page.
    pub fn rows(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// The query again, in one order and without defaults; starts with `?` or is empty.
    pub fn query(&self) -> String {
        let mut url = url::form_urlencoded::Serializer::new(String::new());
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                url.append_pair(name, &value);
            }
        };
        let filter = &self.filter;
        add("span", self.span.map(|span| span.as_str().to_owned()));
        add("from", filter.from.map(|time| time.to_string()));
        add("to", filter.to.map(|time| time.to_string()));
        add("device", filter.device.clone());
        add("metric", filter.metric.clone());
        add("severity", filter.severity.map(|severity| severity.as_str().to_owned()));
        add("limit", self.limit.map(|limit| limit.to_string()));
        add("before", self.before.as_ref().map(ToString::to_string));
        add("live", self.is_paused.then(|| "off".to_owned()));
        let text = url.finish();
        if text.is_empty() { text } else { format!("?{text}") }
    }
}

/// A device's or metric's name; also checks those in paths.
pub fn named(value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > MAX_NAME || value.contains('\0') {
        return Err(format!("expected a name of 1 to {MAX_NAME} bytes without U+0000"));
    }
    Ok(value.to_owned())
}

fn time(value: &str) -> Result<Instant, String> {
    // A `+` of an offset that was not encoded arrives as a space.
    let plus = value.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
    Instant::parse_rfc3339(value)
        .or_else(|| Instant::parse_rfc3339(&plus?))
        .ok_or_else(|| "expected a time as RFC 3339, such as 2026-11-23T17:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_written_again() {
        let query = "span=6h&device=a%26b%3C&metric=t&severity=critical&limit=7&before=1.2.3.4.point.t&live=off";
        let asked = Asked::read(query, LIST).unwrap();
        assert_eq!(asked.filter.device.as_deref(), Some("a&b<"));
        assert_eq!(asked.query(), format!("?{query}"));
        let range = asked.range(Instant::from_millis(100_000_000).unwrap());
        assert_eq!(range.from, Instant::from_millis(100_000_000 - 6 * 3_600_000));
    }

    #[test]
    fn an_offset_may_have_lost_its_plus() {
        let asked = Asked::read("from=2026-11-23T18:00:00+01:00&to=2026-11-23T18:00:00Z", API).unwrap();
        assert_eq!(asked.filter.from.unwrap().to_string(), "2026-11-23T17:00:00.000Z");
        assert!(asked.filter.to.is_some());
    }

    #[test]
    fn an_empty_field_of_a_form_is_absent() {
        assert_eq!(Asked::read("device=&metric=&severity=&span=", LIST).unwrap(), Asked::default());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (query, parameter) in [
            ("colour=red", "colour"),
            ("device=a&device=b", "device"),
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=-1", "limit"),
            ("severity=Critical", "severity"),
            ("span=2h", "span"),
            ("span=1h&from=2026-11-23T18:00:00Z", "span"),
            ("from=yesterday", "from"),
            ("before=x", "before"),
            ("device=%00", "device"),
            ("live=maybe", "live"),
        ] {
            let misread = Asked::read(query, LIST).unwrap_err();
            assert_eq!(misread.parameter, parameter, "{query}");
            assert!(misread.message.contains(parameter), "{misread}");
        }
    }
}
