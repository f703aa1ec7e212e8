//! Addresses of the pages of a device and of an anomaly.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::anomaly::RecordId;

/// Letters, digits and what RFC 3986 calls unreserved stay; `.` does not, since a segment `..` means another path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// One segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The page of a device.
pub fn device_url(name: &str) -> String {
    format!("/devices/{}", segment(name))
}

/// Where the record is, which is for ever.
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
    /// From the parts of a path.
    pub fn read(topic: &str, partition: &str, offset: &str) -> Option<AnomalyId> {
        let is_topic = !topic.is_empty() && !topic.contains('\0');
        let place =
            AnomalyId { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? };
        (is_topic && place.partition >= 0 && place.offset >= 0).then_some(place)
    }

    /// Of an anomaly.
    pub fn of(source: &RecordId) -> AnomalyId {
        AnomalyId { topic: source.topic.clone(), partition: source.partition, offset: source.offset }
    }

    /// Its page.
    pub fn url(&self) -> String {
        format!("/anomalies/{}/{}/{}", segment(&self.topic), self.partition, self.offset)
    }
}
