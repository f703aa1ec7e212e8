//! URL paths of the pages of a device and of an anomaly.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::anomaly::RecordId;

/// Characters to encode in a path segment: all but letters, digits, `-`, `_` and `~`. `.` is encoded although RFC 3986
/// calls it unreserved, because the segment `..` would mean another path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// Encodes one segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Returns the URL path of a device's page.
pub fn device_url(name: &str) -> String {
    format!("/devices/{}", segment(name))
}

/// Identity of an anomaly in URLs: the place of its record in Kafka, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalyId {
    /// `source.topic`
    pub topic: String,
    /// `source.partition`
    pub partition: i32,
    /// `source.offset`
    pub offset: i64,
}

impl AnomalyId {
    /// Parses the segments of a path; returns `None` if they are not valid.
    pub fn read(topic: &str, partition: &str, offset: &str) -> Option<AnomalyId> {
        let is_topic = !topic.is_empty() && !topic.contains('\0');
        let place =
            AnomalyId { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? };
        (is_topic && place.partition >= 0 && place.offset >= 0).then_some(place)
    }

    /// Returns the identity of an anomaly by its source.
    pub fn of(source: &RecordId) -> AnomalyId {
        AnomalyId { topic: source.topic.clone(), partition: source.partition, offset: source.offset }
    }

    /// Returns the URL path of the anomaly's page.
    pub fn url(&self) -> String {
        format!("/anomalies/{}/{}/{}", segment(&self.topic), self.partition, self.offset)
    }
}
