//! The banner above a page: one sentence with what holds besides, and its checks.

use serde::Serialize;

use super::text::Sentence;

/// How the banner looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// As it should be.
    #[default]
    Well,
    /// Values come, most of them have no verdict yet.
    Learning,
    /// Too little is judged or stored.
    Degraded,
    /// Inverted: what is below may not be believed.
    Stopped,
}

impl Tone {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Tone::Well => "ok",
            Tone::Learning => "learning",
            Tone::Degraded => "degraded",
            Tone::Stopped => "stopped",
        }
    }
}

/// One check: a tick, a cross, a clock or a dash, its name, what it found.
#[derive(Debug, Clone, Serialize)]
pub struct StatusCheck {
    /// `tick`, `cross`, `clock` or `dash`.
    pub glyph: &'static str,
    /// What is checked.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// More of it.
    pub note: String,
}

/// A condition below the sentence.
#[derive(Debug, Clone, Serialize)]
pub struct BannerLine {
    /// `degraded` or `notice`.
    pub severity: &'static str,
    /// The condition's message.
    pub text: String,
}

/// The sentence above all else.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Banner {
    /// How it looks.
    pub tone: Tone,
    /// First words.
    pub lead: Sentence,
    /// The words that count.
    pub strong: Sentence,
    /// Last words.
    pub tail: Sentence,
    /// What it means.
    pub detail: Sentence,
    /// What to look at.
    pub command: Option<&'static str>,
    /// A page that says more: address and text.
    pub more: Option<[String; 2]>,
    /// Anomalies by severity, when there are any.
    pub counts: Option<[String; 2]>,
    /// What else holds.
    pub conditions: Vec<BannerLine>,
    /// May be none.
    pub checks: Vec<StatusCheck>,
}

impl Banner {
    /// The whole sentence as plain text.
    pub fn sentence(&self) -> String {
        format!("{} {} {}", self.lead, self.strong, self.tail).trim_end().to_owned()
    }

    /// A sentence without checks.
    pub fn of(tone: Tone, lead: &str, strong: Sentence, tail: &str) -> Banner {
        Banner { tone, lead: Sentence::say(lead), strong, tail: Sentence::say(tail), ..Banner::default() }
    }
}
