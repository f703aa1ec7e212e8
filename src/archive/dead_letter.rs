//! Reports of the detectors other than anomalies: samples of rejected records, and devices. It also has anomalies
//! outside of a query's range of time.

use crate::event::Timestamp;

/// A sampled rejected record. The dead-letter topic has all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Consumer group of the detector.
    pub group: String,
    /// Topic of the raw events.
    pub topic: String,
    /// Partition of the rejected record.
    pub partition: i32,
    /// Offset of the rejected record.
    pub offset: i64,
    /// Class of the rejection, see [`crate::event::RejectClass`].
    pub class: String,
    /// Description of the problem, and of what was expected.
    pub message: String,
    /// Start of the record's key; `None` if it has no key.
    pub key: Option<Excerpt>,
    /// Start of the record's value; `None` if it has no value.
    pub value: Option<Excerpt>,
    /// Time of the rejection, by the detector's clock.
    pub at: Timestamp,
}

/// The first bytes of a key or a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt {
    /// The bytes, at most [`crate::health::EXCERPT`].
    pub bytes: Vec<u8>,
    /// Size of the complete key or value, in bytes.
    pub size: i64,
}

/// Anomalies that were detected in a range of time in which their own times are not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outside {
    /// Anomalies, newest detection first; at most the requested number.
    pub records: Vec<super::StoredAnomaly>,
    /// Whether there are more, or too many candidates to check all of them.
    pub is_more: bool,
}

/// Reports of the detectors about a device without anomalies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A detector has received events of the device, lately at this time. It is noted once a day.
    Seen(Timestamp),
    /// The detectors have reported all their devices, and this is not one of them.
    Unknown,
    /// The detectors have not reported their devices, or not all of them.
    Incomplete,
}
