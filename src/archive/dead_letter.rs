//! What the detectors report besides anomalies: samples of rejected records, devices that they hold; and anomalies of other
//! times than those that were asked for.

use crate::event::Timestamp;

/// A rejected record. All of them are in the dead-letter topic.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Consumer group of the detector.
    pub group: String,
    /// Of the raw events.
    pub topic: String,
    /// Of that topic.
    pub partition: i32,
    /// In that partition.
    pub offset: i64,
    /// See [`crate::event::RejectClass`].
    pub class: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// Its key, cut; `None` when it has none.
    pub key: Option<Excerpt>,
    /// Its value, cut; `None` when it has none.
    pub value: Option<Excerpt>,
    /// When it was rejected, by the detector's clock.
    pub at: Timestamp,
}

/// The first bytes of a key or a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt {
    /// At most [`crate::health::EXCERPT`] of them.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub size: i64,
}

/// Anomalies that were detected in a span of which their own times are not a part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outside {
    /// Newest detection first; at most as many as were asked for.
    pub records: Vec<super::StoredAnomaly>,
    /// There are more, or so many of other times that not all were looked at.
    pub is_more: bool,
}

/// What is known of a device without anomalies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A detector held it, lately at this time; noted once a day.
    Seen(Timestamp),
    /// Detectors have said which devices they hold, and it is not among them.
    Unknown,
    /// They have not said, or not of all.
    Untold,
}
