//! Reviews of an anomaly: the form, the list of reviews, and adding one.

use serde::Serialize;

use super::format::{age, moment};
use super::links::{anomaly_url, reviews_url};
use super::notice;
use super::text::shown;
use crate::anomaly::AnomalyId;
use crate::archive::{AnomalyAddress, MAX_NOTE, NewReview, Review, ReviewRecord};
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::context::RequestContext;
use crate::page::frame::Frame;
use crate::page::respond;

/// Describes a review in words for users.
pub(crate) fn words(review: Review) -> &'static str {
    match review {
        Review::None => "not reviewed",
        Review::Ack => "acknowledged",
        Review::True => "true alarm",
        Review::False => "false alarm",
        Review::Expected => "expected",
    }
}

/// Values for the template of the form.
#[derive(Serialize)]
pub(crate) struct ReviewForm {
    /// URL to which the form is sent.
    url: String,
    current: &'static str,
    words: &'static str,
    choices: Vec<ReviewChoice>,
    reviews: Vec<ReviewLine>,
    most: usize,
}

#[derive(Serialize)]
struct ReviewChoice {
    name: &'static str,
    words: &'static str,
    key: &'static str,
    is_current: bool,
}

#[derive(Serialize)]
struct ReviewLine {
    words: &'static str,
    by: String,
    note: String,
    time: String,
    iso: String,
    age: String,
}

impl ReviewForm {
    /// Makes the form of an anomaly from its reviews, newest first.
    pub(crate) fn of(id: &AnomalyId, reviews: &[ReviewRecord], now: Timestamp) -> ReviewForm {
        use Review as R;
        let current = reviews.first().map_or(R::None, |newest| newest.review);
        let choice = |(review, words, key): (R, _, _)| ReviewChoice {
            name: review.as_str(),
            words,
            key,
            is_current: review == current,
        };
        let line = |record: &ReviewRecord| ReviewLine {
            words: words(record.review),
            by: shown(&record.by),
            note: crate::foreign::lines(&record.note).to_string(),
            time: moment(record.at, now),
            iso: record.at.to_string(),
            age: age(record.at, now),
        };
        ReviewForm {
            url: reviews_url(id),
            current: current.as_str(),
            words: words(current),
            choices: [
                (R::Ack, "Acknowledge", "a"),
                (R::True, "True alarm", "t"),
                (R::False, "False alarm", "f"),
                (R::Expected, "Expected", "e"),
                (R::None, "Clear review", ""),
            ]
            .map(choice)
            .into_iter()
            // Without a review there is nothing to clear.
            .filter(|choice| !(choice.is_current && current == R::None))
            .collect(),
            reviews: reviews.iter().map(line).collect(),
            most: MAX_NOTE,
        }
    }
}

/// Adds a review and redirects to the anomaly.
pub(crate) fn add(context: &RequestContext<'_>, address: &AnomalyAddress) -> Response {
    let site = context.site;
    let refuse = |status, heading: &str, text: &str| {
        notice::page(site, status, &Frame::still(context, "Review not saved"), heading, text)
    };
    if !context.visitor.is_operator {
        return refuse(
            403,
            "Viewers cannot review anomalies.",
            "An operator can: `anomaly passwd NAME --role operator`.",
        );
    }
    let (mut review, mut note) = (None, String::new());
    for (name, value) in url::form_urlencoded::parse(&context.request.body) {
        match name.as_ref() {
            "review" => review = Review::parse(&value),
            "note" => note = value.trim().replace('\0', ""),
            _ => return refuse(400, "The form is not valid.", "It has an unknown field."),
        }
    }
    let Some(review) = review else {
        return refuse(400, "The form is not valid.", "`review` must be none, ack, true, false or expected.");
    };
    if note.chars().count() > MAX_NOTE {
        return refuse(400, "The note is too long.", &format!("It can have at most {MAX_NOTE} characters."));
    }
    let by = context.visitor.name.clone();
    let added = site.archive.find(address).and_then(|found| {
        let Some(record) = found else { return Ok(None) };
        let is_added = site.archive.add_review(&NewReview { anomaly: record.anomaly.id(), review, note, by })?;
        Ok(is_added.then_some(record))
    });
    match added {
        Ok(Some(record)) => respond::see_other(site, &anomaly_url(&record)),
        Ok(None) => refuse(404, "There is no such anomaly.", "Anomalies are deleted after the retention time."),
        Err(failure) => {
            let why = super::notice::sentence(&site.failed(&failure));
            refuse(503, "The review was not saved.", &format!("{why}. Go back and send it again."))
        }
    }
}
