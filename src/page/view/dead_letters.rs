//! The page of rejected records: the newest ones of each error class, with the reason.

use serde::Serialize;

use super::format::{age, counted, grouped};
use super::reports;
use super::text::{TimeForm, isolated, timed};
use crate::archive::{Archive, DeadLetter, Excerpt, NoAnswer};
use crate::event::Timestamp;
use crate::health::{EXCERPT, Tally};
use crate::http::Response;
use crate::page::cached_page::{Answer, Page};
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery, Span};
use crate::page::respond;
use crate::page::site::{Site, Template};

/// Maximum number of rows of the page.
const MAX_ROWS: u32 = 100;
/// Default span of the page.
const SPAN: Span = Span::Day;

/// The page `/dead-letters`, about rejected records
pub(crate) struct DeadLetters;

impl Page for DeadLetters {
    type Key = PageQuery;
    type Data = DeadLettersData;

    const NAV: &'static str = "detection";
    const ACCEPTS: &'static [&'static [&'static str]] = query::SPAN;
    const TEMPLATE: Template = ("dead_letters.html", include_str!("../templates/dead_letters.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<PageQuery> {
        (path == ["dead-letters"]).then(|| query.still())
    }

    fn title(_: &PageQuery) -> (String, String) {
        ("Rejected records".to_owned(), "/dead-letters".to_owned())
    }

    fn load(archive: &dyn Archive, key: &PageQuery, now: Timestamp) -> Result<DeadLettersData, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, DeadLetters>) -> Response {
        show(site, frame, answer.query, answer.data)
    }
}

/// Data that the page loads from the archive.
pub(crate) struct DeadLettersData {
    dead_letters: Vec<DeadLetter>,
    /// Outcome counts of the page's span.
    arrived: Tally,
}

/// Loads the data from the archive.
///
/// # Errors
/// The errors of the archive.
fn load(archive: &dyn Archive, query: &PageQuery, now: Timestamp) -> Result<DeadLettersData, NoAnswer> {
    let bins = query.axis(SPAN, now);
    let dead_letters = archive.dead_letters(MAX_ROWS)?;
    let mut arrived = Tally::default();
    let arrivals = reports::arrivals(archive, &archive.status()?, bins.from, bins.grain())?;
    arrivals.iter().for_each(|row| arrived += row.activity.tally);
    Ok(DeadLettersData { dead_letters, arrived })
}

#[derive(Serialize)]
struct DeadLettersContent {
    heading: String,
    note: String,
    rows: Vec<DeadLetterLine>,
}

#[derive(Serialize)]
struct DeadLetterLine {
    time: String,
    age: String,
    class: String,
    message: String,
    place: String,
    key: String,
    value: String,
}

/// Renders the page from its data.
fn show(site: &Site, frame: Frame<'_>, query: &PageQuery, data: &DeadLettersData) -> Response {
    let now = site.now();
    let (rejected, all) = (data.arrived.rejected, data.arrived.sum());
    let words = query.words(SPAN);
    let content = DeadLettersContent {
        heading: match rejected {
            0 => format!("No record was rejected in {words}"),
            n => format!("{} of {} rejected in {words}", grouped(n), counted(all, "record", "records")),
        },
        note: format!(
            "The newest {} are shown, a few of each class; all of them are in the dead-letter topic unless \
             detector.on_reject is \"drop\".",
            grouped(data.dead_letters.len() as u64)
        ),
        rows: data.dead_letters.iter().map(|dead_letter| line(dead_letter, now)).collect(),
    };
    respond::html(site, 200, "dead_letters.html", &frame, &content)
}

fn line(dead_letter: &DeadLetter, now: Timestamp) -> DeadLetterLine {
    DeadLetterLine {
        time: timed(dead_letter.at, TimeForm::Moment, now),
        age: age(dead_letter.at, now),
        class: isolated(&dead_letter.class),
        message: isolated(&dead_letter.message),
        place: format!("{} [{}] {}", isolated(&dead_letter.topic), dead_letter.partition, dead_letter.offset),
        key: excerpt(dead_letter.key.as_ref()),
        value: excerpt(dead_letter.value.as_ref()),
    }
}

/// Returns the beginning of a key or value, with the whole size if it is longer.
fn excerpt(of: Option<&Excerpt>) -> String {
    let Some(Excerpt { bytes, size }) = of else { return "\u{2014}".to_owned() };
    let text = format!("\u{2068}{}\u{2069}", crate::foreign::bytes(bytes, EXCERPT));
    match usize::try_from(*size) {
        Ok(size) if size > bytes.len() => format!("{text}\u{2026} ({})", counted(size as u64, "byte", "bytes")),
        _ if bytes.is_empty() => "empty".to_owned(),
        _ => text,
    }
}
