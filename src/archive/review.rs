//! What people say of anomalies, and how good the detection was by that.

use serde::Serialize;

use crate::event::Timestamp;

/// What people say of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Review {
    /// Nothing yet, or what was said is taken back.
    None,
    /// Seen by someone.
    Ack,
    /// A true alarm.
    True,
    /// A false alarm.
    False,
    /// Abnormal, and known beforehand.
    Expected,
}

impl Review {
    /// In the order of the form.
    pub const ALL: [Review; 5] = [Review::None, Review::Ack, Review::True, Review::False, Review::Expected];

    /// As in URLs and in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Review::None => "none",
            Review::Ack => "ack",
            Review::True => "true",
            Review::False => "false",
            Review::Expected => "expected",
        }
    }

    /// The reverse.
    pub fn parse(text: &str) -> Option<Review> {
        Review::ALL.into_iter().find(|review| review.as_str() == text)
    }
}

/// A review with its circumstances.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewRecord {
    /// What was said.
    pub review: Review,
    /// More of it; may be empty.
    pub note: String,
    /// Who said it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A mark to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReview {
    /// `source.topic` of the anomaly.
    pub topic: String,
    /// `source.partition`
    pub partition: i32,
    /// `source.offset`
    pub offset: i64,
    /// What is said.
    pub review: Review,
    /// At most [`MAX_NOTE`] characters.
    pub note: String,
    /// Who says it.
    pub by: String,
}

/// Most characters of a note.
pub const MAX_NOTE: usize = 2000;

/// How good the detection was on one day, as far as people or the producer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Start of the day.
    pub day: Timestamp,
    /// Marked as true alarms.
    pub right: u64,
    /// Marked as false alarms.
    pub wrong: u64,
    /// Marked as expected.
    pub expected: u64,
    /// Anomalies whose event the producer had labelled.
    pub labelled: u64,
    /// All anomalies.
    pub all: u64,
}
