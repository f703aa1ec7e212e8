//! Sentences that contain text from outside, such as names. Text with another writing direction or with control
//! characters must not change the sentence around it. So each such text is isolated and shown as [`crate::foreign`]
//! shows it.

use std::fmt;

use serde::Serialize;

use super::format;
use crate::event::Timestamp;
use crate::page::chart::escape;

/// Formats outside text as plain text, for places without elements: attributes, titles, drawings.
pub(crate) fn isolated(text: &str) -> String {
    format!("\u{2068}{}\u{2069}", shown(text))
}

/// Formats a name from outside as HTML.
pub(crate) fn named(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(&shown(text)))
}

/// Makes the control and direction characters of outside text visible.
pub(crate) fn shown(text: &str) -> String {
    crate::foreign::text(text).to_string()
}

/// Formats a time as HTML. It contains the UTC time and what the script needs to convert it to the browser's zone.
pub(crate) fn timed(time: Timestamp, form: TimeForm, now: Timestamp) -> String {
    format!("<time datetime=\"{time}\" data-form=\"{}\">{}</time>", form.as_str(), form.write(time, now))
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// With seconds, and with the date if it is not today's.
    Moment,
    /// With seconds and with the date.
    Full,
    /// With all digits, as RFC 3339.
    Exact,
}

impl TimeForm {
    /// Returns the name that the script uses.
    pub(crate) fn as_str(self) -> &'static str {
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

/// A sentence in the form of HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sentence(String);

impl Sentence {
    /// Makes a sentence of this program's own words.
    pub(crate) fn say(text: &str) -> Sentence {
        Sentence(escape(text))
    }

    /// Appends words of this program.
    pub(crate) fn and(mut self, text: &str) -> Sentence {
        self.0 += &escape(text);
        self
    }

    /// Appends a name from outside, isolated and escaped.
    pub(crate) fn name(mut self, text: &str) -> Sentence {
        self.0 += &named(text);
        self
    }

    /// Appends a time, as HTML.
    pub(crate) fn time(mut self, time: Timestamp, now: Timestamp) -> Sentence {
        self.0 += &timed(time, TimeForm::Moment, now);
        self
    }

    /// Appends another sentence after a separator.
    pub(crate) fn then(mut self, other: Sentence) -> Sentence {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0 += " \u{b7} ";
        }
        self.0 += &other.0;
        self
    }

    /// Returns whether the sentence is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Sentence {
    /// Writes the sentence as plain text, without its elements.
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
    fn names_are_isolated_and_direction_characters_are_visible() {
        let sentence = Sentence::say("last anomaly of ").name("<a>\u{202e}b").and(" & more");
        assert_eq!(
            serde_json::to_value(&sentence).unwrap(),
            "last anomaly of <bdi>&lt;a&gt;\\u{202e}b</bdi> &amp; more"
        );
        assert_eq!(sentence.to_string(), "last anomaly of <a>\\u{202e}b & more");
        assert_eq!(isolated("\u{5d0}\u{202e}"), "\u{2068}\u{5d0}\\u{202e}\u{2069}");
    }
}
