//! URL paths of the pages of a device and of an anomaly.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::anomaly::{AnomalyId, RecordId};

/// Characters to encode in a path segment: all but letters, digits, `-`, `_` and `~`. `.` is encoded although RFC 3986
/// calls it unreserved, because the segment `..` would mean another path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// Encodes one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Returns the URL path of a device's page.
pub(crate) fn device_url(name: &str) -> String {
    format!("/devices/{}", segment(name))
}

/// Parses the identity of an anomaly from the segments of a path; returns `None` if they are not valid.
pub(crate) fn anomaly_id([topic, partition, offset, index, kind]: [&str; 5]) -> Option<AnomalyId> {
    let is_text = |text: &str| !text.is_empty() && !text.contains('\0');
    let (partition, offset, index) = (partition.parse().ok()?, offset.parse().ok()?, index.parse().ok()?);
    let source = RecordId { topic: topic.to_owned(), partition, offset, index };
    let is_place = source.partition >= 0 && source.offset >= 0 && source.index >= 0;
    (is_place && is_text(topic) && is_text(kind)).then(|| AnomalyId { source, kind: kind.to_owned() })
}

/// Returns the URL path of the anomaly's page, which never changes.
pub(crate) fn anomaly_url(AnomalyId { source, kind }: &AnomalyId) -> String {
    let RecordId { topic, partition, offset, index } = source;
    format!("/anomalies/{}/{partition}/{offset}/{index}/{}", segment(topic), segment(kind))
}
