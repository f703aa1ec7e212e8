//! The banner at the top of a page: a sentence, the current conditions, and the checks.

use serde::Serialize;

use super::text::Sentence;

/// Severity of the banner, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tone {
    /// The detection works without known problems.
    #[default]
    Well,
    /// Events arrive, but most of their series are still learning.
    Learning,
    /// Detection or storage is incomplete.
    Degraded,
    /// Detection has stopped; the data below the banner may be wrong.
    Stopped,
    /// Nothing is known about the detection: no detector has reported yet, or the database gives no answer. It has the
    /// colours of [`Tone::Stopped`], because the data below the banner may be wrong.
    #[serde(rename = "stopped")]
    Unknown,
}

impl Tone {
    /// Returns the name for the event stream.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Tone::Well => "ok",
            Tone::Learning => "learning",
            Tone::Degraded => "degraded",
            Tone::Stopped => "stopped",
            Tone::Unknown => "unknown",
        }
    }
}

/// A check with its icon, name and result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusCheck {
    /// The icon: `tick`, `cross`, `clock` or `dash`.
    pub glyph: &'static str,
    /// Name of what is checked.
    pub name: &'static str,
    /// The result in a few words.
    pub value: String,
    /// Details of the result, or a remedy.
    pub note: String,
}

/// A condition that is listed below the sentence.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BannerLine {
    /// Severity of the condition: `degraded` or `notice`.
    pub severity: &'static str,
    /// Message of the reported condition.
    pub text: String,
}

/// The banner at the top of a page.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Banner {
    /// Severity, which decides the colours.
    pub tone: Tone,
    /// First part of the sentence.
    pub lead: Sentence,
    /// Emphasized part of the sentence.
    pub strong: Sentence,
    /// Last part of the sentence.
    pub tail: Sentence,
    /// Explanation that follows the sentence.
    pub detail: Sentence,
    /// A shell command that shows more.
    pub command: Option<&'static str>,
    /// URL path and text of a link to a page with details.
    pub more: Option<[String; 2]>,
    /// Numbers of critical and warning anomalies, if there are any.
    pub counts: Option<[String; 2]>,
    /// Current conditions of the detector.
    pub conditions: Vec<BannerLine>,
    /// Checks and their results; can be empty.
    pub checks: Vec<StatusCheck>,
}

impl Banner {
    /// Returns the whole sentence as plain text.
    pub(crate) fn sentence(&self) -> String {
        format!("{} {} {}", self.lead, self.strong, self.tail).trim_end().to_owned()
    }

    /// Makes a banner that has only a sentence.
    pub(crate) fn of(tone: Tone, lead: &str, strong: Sentence, tail: &str) -> Banner {
        Banner { tone, lead: Sentence::say(lead), strong, tail: Sentence::say(tail), ..Banner::default() }
    }
}
