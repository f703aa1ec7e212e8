//! Exports all matching anomalies as a file, newest first. Pages of rows are read while the file is sent, so that
//! neither the database nor this program keeps more than one page in memory.

use std::sync::Arc;
use std::time::Duration;

use super::notice;
use crate::archive::{Archive, Filter, NoAnswer, PageKey, StoredAnomaly};
use crate::event::Timestamp;
use crate::http::{NotSent, PieceSender, Response, ResponseBody, pieces};
use crate::page::context::RequestContext;
use crate::page::query::PageQuery;
use crate::page::respond;
use crate::page::site::EXPORTS;

/// Number of rows that are read at a time.
const ROWS: u32 = 200;
/// Time in which a client must take 64 KiB.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Value of the header `Retry-After` while all places are in use, in seconds.
const RETRY: &str = "10";

/// Maximum number of rows whose times are outside the span.
const OUTSIDE: u32 = 5_000;

/// File format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    /// CSV: a header line, then a line for each anomaly, without its window.
    Csv,
    /// JSON lines: each record as in topic `anomalies`.
    JsonLines,
}

/// Answers with the file. If the database fails while the file is sent, the last line states that the file is
/// incomplete.
pub(crate) fn answer(context: &RequestContext<'_>, query: &PageQuery, format: ExportFormat) -> Response {
    let site = context.site;
    let Ok(place) = Arc::clone(&site.exports).try_acquire_owned() else { return busy() };
    let first = query.found(site.archive.as_ref(), query.range(site.now())).and_then(|filter| {
        let page = site.archive.newest(&filter, query.before.as_ref(), query.limit.unwrap_or(ROWS))?;
        Ok((filter, page))
    });
    let (filter, page) = match first {
        Ok(first) => first,
        Err(failure) => return notice::json_away(&site.failed(&failure)),
    };
    let (sender, body) = pieces(CLIENT_TIMEOUT);
    // The rows of a span have times in it. Anomalies detected in the span with other times follow at the end.
    let is_span = query.span.is_some() && query.before.is_none() && query.after.is_none();
    let since = filter.from.filter(|_| is_span);
    let outside = query.limit.map_or(OUTSIDE, |limit| limit.saturating_sub(page.records.len() as u32));
    let mut rest =
        RemainingRows { archive: Arc::clone(&site.archive), filter, next: page.next, format, since, outside };
    // With a limit the first page contains all rows.
    if query.limit.is_some() {
        rest.next = None;
    }
    let records = page.records;
    let send = move || {
        if rest.send(records, &sender) == Err(NotSent::Slow) {
            tracing::warn!(
                "an export was ended, because its client took less than 64 KiB in {} s",
                CLIENT_TIMEOUT.as_secs()
            );
        }
        drop(place);
    };
    let started = std::thread::Builder::new().name("export".into()).spawn(send);
    if started.is_err() {
        return notice::json_away(&crate::page::answer_cache::NoNewAnswer::Slow);
    }
    let (kind, name) = match format {
        ExportFormat::Csv => ("text/csv; charset=utf-8", "anomalies.csv"),
        ExportFormat::JsonLines => ("application/jsonl", "anomalies.jsonl"),
    };
    let headers =
        vec![("content-type", kind.to_owned()), ("content-disposition", format!("attachment; filename=\"{name}\""))];
    Response { status: 200, headers, body: ResponseBody::Stream(body) }
}

/// Answers while all places for exports are in use.
fn busy() -> Response {
    let error = format!("{EXPORTS} exports are sent now, which is the maximum: try again later");
    let mut response = respond::json(503, &serde_json::json!({ "error": error }));
    response.headers.push(("retry-after", RETRY.to_owned()));
    response
}

/// The rows that are still to be read for the file.
struct RemainingRows {
    archive: Arc<dyn Archive>,
    filter: Filter,
    next: Option<PageKey>,
    format: ExportFormat,
    /// Start of the exported span.
    since: Option<Timestamp>,
    /// Maximum number of rows whose times are outside the span.
    outside: u32,
}

impl RemainingRows {
    fn send(&mut self, first: Vec<StoredAnomaly>, sender: &PieceSender) -> Result<(), NotSent> {
        let mut text = write(&first, self.format, true);
        drop(first);
        loop {
            sender.send(text)?;
            let Some(key) = self.next.take() else { return self.send_outside(sender) };
            match self.archive.newest(&self.filter, Some(&key), ROWS) {
                Ok(page) => {
                    self.next = page.next;
                    text = write(&page.records, self.format, false);
                }
                Err(failure) => {
                    tracing::warn!(%failure, "an export is incomplete");
                    return sender.send(cut_off(&failure, self.format));
                }
            }
        }
    }
}

impl RemainingRows {
    fn send_outside(&self, sender: &PieceSender) -> Result<(), NotSent> {
        let (Some(since), 1..) = (self.since, self.outside) else { return Ok(()) };
        let mut text = Vec::new();
        match self.archive.outside(&self.filter, since, self.outside) {
            Ok(outside) => {
                text.extend(write(&outside.records, self.format, false));
                if outside.is_more && self.outside == OUTSIDE {
                    text.extend(incomplete("more anomalies of the span have event times outside of it", self.format));
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, "an export is incomplete");
                text = cut_off(&failure, self.format);
            }
        }
        sender.send(text)
    }
}

/// Makes a last line that cannot be mistaken for a record.
fn cut_off(failure: &NoAnswer, format: ExportFormat) -> Vec<u8> {
    let why = match failure {
        NoAnswer::Slow => "the database is too slow",
        _ => "the database became unreachable",
    };
    incomplete(why, format)
}

fn incomplete(why: &str, format: ExportFormat) -> Vec<u8> {
    match format {
        ExportFormat::Csv => format!("# incomplete: {why}\r\n").into_bytes(),
        ExportFormat::JsonLines => format!("{{\"incomplete\":\"{why}\"}}\n").into_bytes(),
    }
}

/// All columns but the window and the version of the record.
const COLUMNS: [&str; 28] = [
    "event_time",
    "device_id",
    "metric_name",
    "metric_value",
    "severity",
    "direction",
    "method",
    "score",
    "threshold",
    "expected",
    "lower",
    "upper",
    "mean",
    "std_dev",
    "z_score",
    "evidence",
    "window_count",
    "reason",
    "return_period_events",
    "return_period_seconds",
    "label",
    "source_topic",
    "source_generation",
    "source_partition",
    "source_offset",
    "source_index",
    "kind",
    "detected_at",
];

fn write(records: &[StoredAnomaly], format: ExportFormat, is_first: bool) -> Vec<u8> {
    match format {
        ExportFormat::JsonLines => {
            let mut text = Vec::new();
            for record in records {
                // A record consists of finite numbers and strings, so it can always be written as JSON.
                if serde_json::to_writer(&mut text, record).is_ok() {
                    text.push(b'\n');
                }
            }
            text
        }
        ExportFormat::Csv => {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
            let header = is_first.then_some(COLUMNS.map(str::to_owned));
            for line in header.into_iter().chain(records.iter().map(line)) {
                // Writing to memory cannot fail.
                let _ = writer.write_record(&line);
            }
            writer.into_inner().unwrap_or_default()
        }
    }
}

fn line(record: &StoredAnomaly) -> [String; COLUMNS.len()] {
    let a = &record.anomaly;
    [
        a.timestamp.map(|time| time.to_string()).unwrap_or_default(),
        harmless(&a.device_id),
        harmless(a.metric_name.as_deref().unwrap_or_default()),
        a.metric_value.to_string(),
        a.severity.as_str().to_owned(),
        a.direction.as_str().to_owned(),
        harmless(&a.method),
        a.score.to_string(),
        optional(a.threshold),
        optional(a.expected),
        a.lower.to_string(),
        a.upper.to_string(),
        optional(a.mean),
        optional(a.std_dev),
        optional(a.z_score),
        // Names and finite numbers can always be written as JSON.
        serde_json::to_string(&a.evidence).unwrap_or_default(),
        a.window_count.to_string(),
        harmless(a.reason.as_deref().unwrap_or_default()),
        optional(a.return_period_events),
        optional(a.return_period_seconds),
        harmless(a.label.as_deref().unwrap_or_default()),
        harmless(&a.source.topic),
        a.source.generation.to_string(),
        a.source.partition.to_string(),
        a.source.offset.to_string(),
        a.source.index.to_string(),
        harmless(&a.kind),
        record.detected_at.to_string(),
    ]
}

fn optional(number: Option<f64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Prefixes a text that a spreadsheet would run as a formula with an apostrophe
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). Spreadsheets ignore white space and invisible characters
/// before the formula. Some drop tabs and line ends anywhere at the start.
fn harmless(text: &str) -> String {
    let is_ignored = |c: char| {
        let is_invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        c.is_whitespace() || c.is_control() || is_invisible
    };
    let is_formula = text
        .trim_start_matches(is_ignored)
        .starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    if is_formula || text.starts_with(['\t', '\r', '\n']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_becomes_text_and_other_cells_stay_unchanged() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\tx", "＝1"].into_iter().chain([
            " =1",
            "  \t +1",
            "\u{a0}-1",
            "\u{3000}@x",
            "\u{feff}=1",
            "\u{200b} =1",
            "\u{202e}=1",
            "\0=1",
            "\u{b}=1",
        ]) {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for text in ["pump-1", "", " ", "a=b", " a =b", "'x", "'=1"] {
            assert_eq!(harmless(text), text);
        }
    }

    #[test]
    fn a_csv_has_every_column_but_the_window_and_the_version() {
        let listed = std::collections::BTreeSet::from(COLUMNS);
        let left_out = ["window", "schema_version"];
        let all = crate::anomaly::COLUMNS.iter().map(|(name, _)| *name).filter(|name| !left_out.contains(name));
        assert_eq!(listed, all.collect());
    }
}
