//! Pages and banners that report that data or a page is not available.

use serde::Serialize;

use super::banner::{Banner, Tone};
use super::format::age;
use super::text::Sentence;
use crate::event::Timestamp;
use crate::http::Response;
use crate::page::answer_cache::NoNewAnswer;
use crate::page::frame::Frame;
use crate::page::respond;
use crate::page::site::Site;
use crate::unavailable::Service;

/// Value of the header `Retry-After`, in seconds.
const RETRY_AFTER: &str = "5";

/// Values for the template: a sentence and its remedy. Both are empty below a banner that contains them.
#[derive(Default, Serialize)]
pub(crate) struct Notice {
    /// The sentence, as a heading.
    pub heading: String,
    /// Explanation or remedy, below the heading.
    pub text: String,
}

/// Describes in one sentence why there is no new answer.
pub(crate) fn sentence(why: &NoNewAnswer) -> String {
    match why {
        NoNewAnswer::Unavailable { since } => format!("{}{since}", Service::Postgresql.unreachable_since()),
        NoNewAnswer::Slow => "PostgreSQL does not answer in time".to_owned(),
        NoNewAnswer::Refused(remedy) => remedy.clone(),
    }
}

/// Makes the banner of a page without new data.
pub(crate) fn outage(why: &NoNewAnswer, taken: Option<Timestamp>, now: Timestamp) -> Banner {
    let (lead, command) = match why {
        NoNewAnswer::Unavailable { since } => (
            Sentence::say(&Service::Postgresql.unreachable_since()).time(*since, now).and("."),
            "systemctl status postgresql",
        ),
        NoNewAnswer::Slow => (Sentence::say("PostgreSQL does not answer in time."), "systemctl status postgresql"),
        NoNewAnswer::Refused(_) => {
            (Sentence::say("PostgreSQL refuses to answer."), "anomaly check --role dashboard --connect")
        }
    };
    let strong = match taken {
        Some(taken) => Sentence::say("The last data is from ").time(taken, now).and("."),
        None => Sentence::say("There is no earlier data to show."),
    };
    let detail = match why {
        NoNewAnswer::Refused(remedy) => Sentence::default().name(remedy).and("."),
        NoNewAnswer::Slow => Sentence::say("A narrower filter or a shorter span may be answered."),
        NoNewAnswer::Unavailable { .. } => {
            Sentence::say("Anomalies detected meanwhile are kept in Kafka and will appear on this page.")
        }
    };
    let mut detail = detail.and(" This page retries by itself.");
    if let Some(taken) = taken {
        detail = detail.and(&format!(" The data below was read {}.", age(taken, now)));
    }
    Banner { tone: Tone::Unknown, lead, strong, detail, command: Some(command), ..Banner::default() }
}

/// Answers when there is no data to show, not even old data.
pub(crate) fn nothing(site: &Site, frame: Frame<'_>, why: &NoNewAnswer) -> Response {
    let banner = outage(why, None, site.now());
    let frame = Frame { banner: Some(banner), is_late: true, ..frame };
    let mut response = respond::html(site, 503, "notice.html", &frame, &Notice::default());
    response.headers.push(("retry-after", RETRY_AFTER.to_owned()));
    response
}

/// Renders a page that contains one sentence.
pub(crate) fn page(site: &Site, status: u16, frame: &Frame<'_>, heading: &str, text: &str) -> Response {
    respond::html(site, status, "notice.html", frame, &Notice { heading: heading.into(), text: text.into() })
}

/// Answers an API request when there is no new data.
pub(crate) fn json_away(why: &NoNewAnswer) -> Response {
    let mut response = respond::json(503, &serde_json::json!({ "error": sentence(why) }));
    response.headers.push(("retry-after", RETRY_AFTER.to_owned()));
    response
}
