//! Sentences with text of others in them. A name of another writing direction, or with control characters, must not tear the
//! sentence around it: each is isolated and shown as [`crate::foreign`] shows it.

use std::fmt;

use serde::Serialize;

use super::format;
use crate::event::Timestamp;
use crate::page::chart::escape;

/// A name or another text of others, as plain text for a place that knows no elements: attributes, titles, drawings.
pub fn isolated(text: &str) -> String {
    format!("\u{2068}{}\u{2069}", shown(text))
}

/// A name of others, as HTML.
pub fn named(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(&shown(text)))
}

/// Text of others with its control and direction characters visible.
pub fn shown(text: &str) -> String {
    crate::foreign::text(text).to_string()
}

/// A time as HTML: as the server writes it, with what the script needs to write it in the reader's zone.
pub fn timed(time: Timestamp, form: TimeForm, now: Timestamp) -> String {
    format!("<time datetime=\"{time}\" data-form=\"{}\">{}</time>", form.as_str(), form.write(time, now))
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeForm {
    /// With seconds; with its date when that is not today's.
    Moment,
    /// With seconds and its date.
    Full,
    /// Every digit of it, as RFC 3339.
    Exact,
}

impl TimeForm {
    /// As the script knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            TimeForm::Moment => "moment",
            TimeForm::Full => "full",
            TimeForm::Exact => "exact",
        }
    }

    fn write(self, time: Timestamp, now: Timestamp) -> String {
        match self {
            TimeForm::Moment => format::moment(time, now),
            TimeForm::Full => format!("{}, {}", format::date(time), format::clock(time)),
            TimeForm::Exact => time.to_string(),
        }
    }
}

/// A sentence as HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sentence(String);

impl Sentence {
    /// Our own words.
    pub fn say(text: &str) -> Sentence {
        Sentence(escape(text))
    }

    /// More of our own words.
    pub fn and(mut self, text: &str) -> Sentence {
        self.0 += &escape(text);
        self
    }

    /// A name of others.
    pub fn name(mut self, text: &str) -> Sentence {
        self.0 += &named(text);
        self
    }

    /// A time.
    pub fn time(mut self, time: Timestamp, now: Timestamp) -> Sentence {
        self.0 += &timed(time, TimeForm::Moment, now);
        self
    }

    /// Another sentence after a separator.
    pub fn then(mut self, other: Sentence) -> Sentence {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0 += " \u{b7} ";
        }
        self.0 += &other.0;
        self
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Sentence {
    /// Without its elements, as plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_str();
        while let Some((text, element)) = rest.split_once('<') {
            f.write_str(&unescaped(text))?;
            rest = element.split_once('>').map_or("", |(_, rest)| rest);
        }
        f.write_str(&unescaped(rest))
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_isolated_and_what_turns_the_text_is_seen() {
        let sentence = Sentence::say("last anomaly of ").name("<a>\u{202e}b").and(" & more");
        assert_eq!(
            serde_json::to_value(&sentence).unwrap(),
            "last anomaly of <bdi>&lt;a&gt;\\u{202e}b</bdi> &amp; more"
        );
        assert_eq!(sentence.to_string(), "last anomaly of <a>\\u{202e}b & more");
        assert_eq!(isolated("\u{5d0}\u{202e}"), "\u{2068}\u{5d0}\\u{202e}\u{2069}");
    }
}
