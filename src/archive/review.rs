//! Reviews of anomalies by people, and the precision of the detection according to them.

use serde::Serialize;

use crate::anomaly::AnomalyId;
use crate::event::Timestamp;

/// A review of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Review {
    /// No review, or a cleared one.
    None,
    /// Acknowledged.
    Ack,
    /// A true alarm.
    True,
    /// A false alarm.
    False,
    /// Abnormal, but expected.
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

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Review> {
        Review::ALL.into_iter().find(|review| review.as_str() == text)
    }
}

/// A stored review.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewRecord {
    /// The review.
    pub review: Review,
    /// Note; may be empty.
    pub note: String,
    /// Name of the user.
    pub by: String,
    /// Time of the review.
    pub at: Timestamp,
}

/// A new review.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReview {
    /// The anomaly that it is about.
    pub anomaly: AnomalyId,
    /// The review.
    pub review: Review,
    /// Note of at most [`MAX_NOTE`] characters.
    pub note: String,
    /// Name of the user.
    pub by: String,
}

/// Maximum number of characters of a note.
pub const MAX_NOTE: usize = 2000;

/// Precision of the detection on one day, according to reviews and to the producer's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Start of the day.
    pub day: Timestamp,
    /// Reviewed as true alarms.
    pub right: u64,
    /// Reviewed as false alarms.
    pub wrong: u64,
    /// Reviewed as expected.
    pub expected: u64,
    /// Anomalies whose event has a label of the producer.
    pub labelled: u64,
    /// All anomalies.
    pub all: u64,
}
