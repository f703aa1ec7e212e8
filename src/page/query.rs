//! The parameters of a URL's query. Each parameter is known by name, occurs once, and is checked. An unknown parameter
//! is an error that names it: a page that ignored a filter would show wrong data.

mod span;

use std::fmt;

use crate::anomaly::Severity;
use crate::archive::{Archive, Bins, DEFAULT_LIMIT, Filter, MAX_LIMIT, NoAnswer, PageKey, Ranking, Review};
use crate::event::{MAX_NAME, Timestamp};
use span::BARS;
pub(crate) use span::{Manner, Span, Theme};

/// A valid query. An absent parameter has its default.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PageQuery {
    /// Parameter `span`: a time span until now.
    pub span: Option<Span>,
    /// Parameters `device`, `metric`, `severity`, `method`, `label`, `review`, `from` and `to`.
    pub filter: Filter,
    /// Parameter `q`: a part of a device's name.
    pub search: Option<String>,
    /// Parameter `limit`: the number of rows.
    pub limit: Option<u32>,
    /// Parameter `before`: a cursor to older rows.
    pub before: Option<PageKey>,
    /// Parameter `after`: a cursor to newer rows.
    pub after: Option<PageKey>,
    /// Parameter `sort`; `None` sorts by time.
    pub sort: Option<Ranking>,
    /// Parameter `format=json`: the event stream sends records instead of rows of a page.
    pub is_json: bool,
    /// Parameter `generation`: which topic of the name in the path. `None` means the newest one.
    pub generation: Option<i32>,
    /// Parameters `live`, `tz` and `theme`.
    pub manner: Manner,
}

/// A parameter that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// Name of the parameter as given.
    pub parameter: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Names of the sort orders.
const SORTS: [(&str, Option<Ranking>); 4] = [
    ("time", None),
    ("score", Some(Ranking::Score)),
    ("device", Some(Ranking::Device)),
    ("metric", Some(Ranking::Metric)),
];

/// Returns the name of a sort order in the URL.
pub(crate) fn sort_name(sort: Option<Ranking>) -> &'static str {
    SORTS.into_iter().find(|(_, order)| *order == sort).map_or("time", |(name, _)| name)
}

/// Names of the parameters that select anomalies.
const FILTERS: &[&str] = &["span", "from", "to", "device", "metric", "severity", "method", "label", "review", "q"];
/// Parameters that order and divide the selected anomalies.
const PAGING: &[&str] = &["sort", "limit", "before", "after"];
/// Names of the parameters that set display preferences.
const MANNER: &[&str] = &["live", "tz", "theme"];

/// Parameters of pages that show the anomalies of a time range.
pub(crate) const RANGE: &[&[&str]] = &[FILTERS, MANNER];
/// Parameters of pages that are divided into pages of rows.
pub(crate) const LIST: &[&[&str]] = &[FILTERS, PAGING, MANNER];
/// Parameters of the API and of exports.
pub(crate) const API: &[&[&str]] = &[FILTERS, PAGING];
/// Parameters of the event stream; they include those of the page that opens it.
pub(crate) const STREAM: &[&[&str]] = &[FILTERS, PAGING, MANNER, &["cursor", "format"]];
/// Parameters of pages that only have a span.
pub(crate) const SPAN: &[&[&str]] = &[&["span"], MANNER];
/// Parameters of pages that show one thing.
pub(crate) const PLAIN: &[&[&str]] = &[MANNER];
/// Parameters of the page of one anomaly.
pub(crate) const ANOMALY: &[&[&str]] = &[&["generation"], MANNER];
/// Parameters that may occur several times: an anomaly matches if it has any of the values.
const SEVERAL: &[&str] = &["device", "metric", "severity", "method", "label", "review"];
/// Maximum number of values of one parameter.
const MAX_VALUES: usize = 100;
/// Maximum number of devices that a search matches.
pub(crate) const FOUND: u32 = 200;

impl PageQuery {
    /// Parses a query; `known` lists the parameters that the page accepts.
    ///
    /// # Errors
    /// The first parameter that is not valid.
    pub(crate) fn read(query: &str, known: &[&[&str]]) -> Result<PageQuery, QueryError> {
        let known = known.concat();
        let mut parsed = PageQuery::default();
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let misread = |message: String| QueryError { parameter: name.to_string(), message };
            if !known.contains(&name.as_ref()) {
                return Err(misread(format!("`{name}` is not a parameter of this page; known: {}", known.join(", "))));
            }
            if seen.iter().filter(|other| **other == name).count()
                >= if SEVERAL.contains(&name.as_ref()) { MAX_VALUES } else { 1 }
            {
                return Err(misread(format!("`{name}` occurs too often")));
            }
            // An empty field of a form counts as absent.
            if !value.is_empty() {
                parsed.set(&name, &value).map_err(|expected| misread(format!("`{name}`: {expected}")))?;
            }
            seen.push(name);
        }
        if parsed.span.is_some() && parsed.filter.from.is_some() {
            let message = "`span` and `from` exclude one another".to_owned();
            return Err(QueryError { parameter: "span".to_owned(), message });
        }
        if parsed.before.is_some() && (parsed.after.is_some() || parsed.sort.is_some()) {
            let message = "`before` cannot be combined with `after` or `sort`".to_owned();
            return Err(QueryError { parameter: "before".to_owned(), message });
        }
        if parsed.after.is_some() && parsed.sort.is_some() {
            let message = "`after` cannot be combined with `sort`".to_owned();
            return Err(QueryError { parameter: "after".to_owned(), message });
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "span" => {
                let span = Span::ALL.into_iter().find(|span| span.as_str() == value);
                self.span = Some(span.ok_or("expected 15m, 1h, 6h, 24h, 7d or 30d")?);
            }
            "q" => self.search = Some(named(value.trim())?),
            "generation" => {
                let generation = value.parse().ok().filter(|generation| *generation >= 0);
                self.generation = Some(generation.ok_or("expected a whole number of at least 0")?);
            }
            "cursor" => {}
            "format" => {
                self.is_json = value == "json";
                if !self.is_json {
                    return Err("expected json".to_owned());
                }
            }
            name if PAGING.contains(&name) => self.set_paging(name, value)?,
            name if MANNER.contains(&name) => self.set_manner(name, value)?,
            _ => self.set_filter(name, value)?,
        }
        Ok(())
    }

    /// Sets a parameter of [`FILTERS`].
    fn set_filter(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "device" => self.filter.devices.push(named(value)?),
            "metric" => self.filter.metrics.push(named(value)?),
            "method" => self.filter.methods.push(named(value)?),
            "label" => self.filter.labels.push(named(value)?),
            "severity" => {
                let all = [Severity::Critical, Severity::Warning];
                let severity = all.into_iter().find(|severity| severity.as_str() == value);
                self.filter.severities.push(severity.ok_or("expected critical or warning")?);
            }
            "review" => {
                let review = Review::parse(value).ok_or("expected none, ack, true, false or expected")?;
                self.filter.reviews.push(review);
            }
            "from" => self.filter.from = Some(time(value)?),
            _ => self.filter.to = Some(time(value)?),
        }
        Ok(())
    }

    /// Sets a parameter of [`PAGING`].
    fn set_paging(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
                self.limit = Some(limit.ok_or_else(|| format!("expected a whole number from 1 to {MAX_LIMIT}"))?);
            }
            "before" => {
                self.before = Some(PageKey::parse(value).ok_or("expected the `next` of an earlier answer")?);
            }
            "after" => {
                self.after = Some(PageKey::parse(value).ok_or("expected the `prev` of an earlier answer")?);
            }
            _ => {
                let sort = SORTS.into_iter().find(|(name, _)| *name == value);
                self.sort = sort.ok_or_else(|| format!("expected {}", SORTS.map(|(name, _)| name).join(", ")))?.1;
            }
        }
        Ok(())
    }

    /// Sets a parameter of [`MANNER`].
    fn set_manner(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "tz" => {
                self.manner.is_utc = value == "UTC";
                if !self.manner.is_utc {
                    return Err("expected UTC".to_owned());
                }
            }
            "theme" => {
                let theme = [Theme::Light, Theme::Dark].into_iter().find(|theme| theme.as_str() == value);
                self.manner.theme = Some(theme.ok_or("expected light or dark")?);
            }
            _ => {
                self.manner.is_paused = value == "off";
                if !["on", "off"].contains(&value) {
                    return Err("expected on or off".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Returns the filter with the span replaced by times. They are the limits of the chart's bars, so that a list has
    /// all anomalies that a chart counts.
    pub(crate) fn range(&self, now: Timestamp) -> Filter {
        let mut filter = self.filter.clone();
        if let Some(span) = self.span {
            let bins = self.axis(span, now);
            (filter.from, filter.to) = (Some(bins.from), bins.to());
        }
        filter
    }

    /// Returns the filter with the search replaced by the names of the matching devices.
    ///
    /// # Errors
    /// The errors of the archive.
    pub(crate) fn found(&self, archive: &dyn Archive, filter: Filter) -> Result<Filter, NoAnswer> {
        let Some(text) = &self.search else { return Ok(filter) };
        let mut devices = archive.search(text, FOUND)?;
        if !filter.devices.is_empty() {
            devices.retain(|device| filter.devices.contains(device));
        }
        Ok(Filter { is_impossible: devices.is_empty(), devices, ..filter })
    }

    /// Divides the time range into bars. The last bar contains the current time and the first one the start of the
    /// span. So bars do not move while they grow, and no part of the span is missing.
    pub(crate) fn axis(&self, default: Span, now: Timestamp) -> Bins {
        let (start, end, width) = match (self.filter.from, self.filter.to) {
            (None, None) => {
                let span = self.span.unwrap_or(default);
                let end = now.millis().div_euclid(span.bar()) * span.bar() + span.bar();
                ((now.millis() - span.millis()).div_euclid(span.bar()) * span.bar(), end, span.bar())
            }
            (from, to) => {
                let end = to.unwrap_or(now).millis();
                let start = from.map_or(end - default.millis(), Timestamp::millis).min(end - 1);
                let seconds = [1, 5, 15, 60, 300, 900, 3_600, 10_800, 43_200, 86_400, 604_800, 2_419_200];
                let widths = seconds.into_iter().map(|s| s * 1000);
                let width = widths.clone().find(|width| (end - start) / width <= BARS);
                let width = width.unwrap_or((end - start) / BARS);
                let start = start.div_euclid(width) * width;
                (start, start + ((end - start) / width + 1) * width, width)
            }
        };
        let from = Timestamp::from_millis(start).unwrap_or(now);
        Bins { from, width, count: usize::try_from((end - start) / width).unwrap_or(1) }
    }

    /// Describes the time range in a sentence.
    pub(crate) fn words(&self, default: Span) -> &'static str {
        match (self.filter.from, self.filter.to) {
            (None, None) => self.span.unwrap_or(default).words(),
            _ => "the chosen time",
        }
    }

    /// Describes the time range in one word.
    pub(crate) fn short(&self, default: Span) -> &'static str {
        match (self.filter.from, self.filter.to) {
            (None, None) => self.span.unwrap_or(default).as_str(),
            _ => "chosen",
        }
    }

    /// Returns the query for a link to another page: only the display preferences.
    pub(crate) fn plain(&self) -> PageQuery {
        PageQuery { manner: self.manner, ..PageQuery::default() }
    }

    /// Returns the query without display preferences; it is the key of the answer cache.
    pub(crate) fn still(&self) -> PageQuery {
        PageQuery { manner: Manner::default(), ..self.clone() }
    }

    /// Returns the number of rows of a page.
    pub(crate) fn rows(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// Writes the query in canonical form: fixed order, no defaults. The text starts with `?` or is empty.
    pub(crate) fn query(&self) -> String {
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
        for (name, values) in [
            ("device", &filter.devices),
            ("metric", &filter.metrics),
            ("method", &filter.methods),
            ("label", &filter.labels),
        ] {
            values.iter().for_each(|value| add(name, Some(value.clone())));
        }
        filter.severities.iter().for_each(|severity| add("severity", Some(severity.as_str().to_owned())));
        filter.reviews.iter().for_each(|review| add("review", Some(review.as_str().to_owned())));
        add("q", self.search.clone());
        add("limit", self.limit.map(|limit| limit.to_string()));
        add("sort", self.sort.map(|sort| sort_name(Some(sort)).to_owned()));
        add("before", self.before.as_ref().map(ToString::to_string));
        add("after", self.after.as_ref().map(ToString::to_string));
        add("generation", self.generation.map(|generation| generation.to_string()));
        add("live", self.manner.is_paused.then(|| "off".to_owned()));
        add("tz", self.manner.is_utc.then(|| "UTC".to_owned()));
        add("theme", self.manner.theme.map(|theme| theme.as_str().to_owned()));
        let text = url.finish();
        if text.is_empty() { text } else { format!("?{text}") }
    }
}

/// Checks the name of a device or a metric, in a query or a path.
pub(crate) fn named(value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > MAX_NAME || value.contains('\0') {
        return Err(format!("expected a name of 1 to {MAX_NAME} bytes without U+0000"));
    }
    Ok(value.to_owned())
}

fn time(value: &str) -> Result<Timestamp, String> {
    // The `+` of a time zone offset arrives as a space if it was not encoded.
    let plus = value.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
    Timestamp::parse_rfc3339(value)
        .or_else(|| Timestamp::parse_rfc3339(&plus?))
        .ok_or_else(|| "expected a time as RFC 3339, such as 2026-11-23T17:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_written_again() {
        let query = "span=6h&device=a%26b%3C&device=c&metric=t&method=sigma&label=spike&severity=critical&review=none\
                     &review=ack&q=pump&limit=7&before=1.0.2.3.4.point.t&live=off&tz=UTC&theme=dark";
        let parsed = PageQuery::read(query, LIST).unwrap();
        assert_eq!(parsed.filter.devices, ["a&b<", "c"]);
        assert_eq!(parsed.query(), format!("?{query}"));
        let now = 100_000_000;
        let range = parsed.range(Timestamp::from_millis(now).unwrap());
        let [from, to] = [range.from, range.to].map(|time| time.unwrap().millis());
        assert!(from <= now - 6 * 3_600_000 && from > now - 6 * 3_600_000 - Span::Six.bar() && to > now, "{from} {to}");
    }

    #[test]
    fn a_range_has_about_sixty_bars_of_a_round_width() {
        let now = Timestamp::parse_rfc3339("2026-11-25T17:03:21Z").unwrap();
        for span in Span::ALL {
            let bins = PageQuery { span: Some(span), ..PageQuery::default() }.axis(Span::Hour, now);
            assert!((57..=61).contains(&bins.count), "{span:?} {bins:?}");
            assert!(bins.to().unwrap() > now && bins.from.millis() % bins.width == 0, "{span:?} {bins:?}");
        }
        let parsed = PageQuery::read("from=2026-11-01T00:00:00Z&to=2026-11-01T05:00:00Z", RANGE).unwrap();
        let bins = parsed.axis(Span::Hour, now);
        assert_eq!((bins.width, bins.count), (300_000, 61));
        let all = PageQuery::read("from=1931-01-01T00:00:00Z&to=9999-11-01T05:00:00Z", RANGE).unwrap();
        assert!(all.axis(Span::Hour, now).count <= 62);
    }

    #[test]
    fn an_order_is_read_and_that_of_time_is_the_default() {
        assert_eq!(PageQuery::read("sort=score", LIST).unwrap().query(), "?sort=score");
        assert_eq!(PageQuery::read("sort=time", LIST).unwrap().query(), "");
        assert_eq!(PageQuery::read("after=1.0.2.3.4.point.t", LIST).unwrap().query(), "?after=1.0.2.3.4.point.t");
    }

    #[test]
    fn an_offset_may_have_lost_its_plus() {
        let parsed = PageQuery::read("from=2026-11-23T18:00:00+01:00&to=2026-11-23T18:00:00Z", API).unwrap();
        assert_eq!(parsed.filter.from.unwrap().to_string(), "2026-11-23T17:00:00.000Z");
        assert!(parsed.filter.to.is_some());
    }

    #[test]
    fn an_empty_field_of_a_form_is_absent() {
        assert_eq!(PageQuery::read("device=&metric=&severity=&span=", LIST).unwrap(), PageQuery::default());
    }

    #[test]
    fn an_invalid_parameter_is_named_in_the_error() {
        for (query, parameter) in [
            ("colour=red", "colour"),
            ("span=1h&span=6h", "span"),
            ("review=maybe", "review"),
            ("tz=Mars", "tz"),
            ("theme=red", "theme"),
            ("q=%00", "q"),
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=-1", "limit"),
            ("severity=Critical", "severity"),
            ("span=2h", "span"),
            ("span=1h&from=2026-11-23T18:00:00Z", "span"),
            ("from=yesterday", "from"),
            ("before=x", "before"),
            ("sort=colour", "sort"),
            ("sort=score&before=1.0.2.3.4.point.t", "before"),
            ("after=1.0.2.3.4.point.t&before=1.0.2.3.4.point.t", "before"),
            ("device=%00", "device"),
            ("live=maybe", "live"),
        ] {
            let misread = PageQuery::read(query, LIST).unwrap_err();
            assert_eq!(misread.parameter, parameter, "{query}");
            assert!(misread.message.contains(parameter), "{misread}");
        }
    }
}
