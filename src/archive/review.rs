//! Reviews of anomalies by people, and the precision of the detection according to them.

use serde::Serialize;

use crate::anomaly::AnomalyId;
use crate::event::Timestamp;

/// A person's judgement of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Review {
    /// No review, or a cleared one.
    None,
    /// The anomaly is acknowledged.
    Ack,
    /// The anomaly is a true alarm.
    True,
    /// The anomaly is a false alarm.
    False,
    /// The value is abnormal, but expected.
    Expected,
}

impl Review {
    /// All reviews, in the order of the form.
    pub const ALL: [Review; 5] = [Review::None, Review::Ack, Review::True, Review::False, Review::Expected];

    /// Returns the name in URLs and in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Review::None => "none",
            Review::Ack => "ack",
            Review::True => "true",
            Review::False => "false",
            Review::Expected => "expected",
        }
    }

    /// Parses a name that [`as_str`](Self::as_str) returns.
    pub fn parse(text: &str) -> Option<Review> {
        Review::ALL.into_iter().find(|review| review.as_str() == text)
    }
}

/// A review as stored in the database.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewRecord {
    /// Judgement of the anomaly.
    pub review: Review,
    /// Note of the user; it may be empty.
    pub note: String,
    /// Name of the user who reviewed it.
    pub by: String,
    /// Time of the review.
    pub at: Timestamp,
}

/// A review to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReview {
    /// Identity of the reviewed anomaly.
    pub anomaly: AnomalyId,
    /// Judgement of the anomaly.
    pub review: Review,
    /// Note of at most [`MAX_NOTE`] characters.
    pub note: String,
    /// Name of the user who reviews it.
    pub by: String,
}

/// Maximum number of characters of a note.
pub const MAX_NOTE: usize = 2000;

/// Precision of the detection on one day, according to reviews and to the producer's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Start of the day, in UTC.
    pub day: Timestamp,
    /// Number of anomalies reviewed as true alarms.
    pub right: u64,
    /// Number of anomalies reviewed as false alarms.
    pub wrong: u64,
    /// Number of anomalies reviewed as expected.
    pub expected: u64,
    /// Number of anomalies whose event has a label of the producer.
    pub labelled: u64,
    /// Number of all anomalies of the day.
    pub all: u64,
}
