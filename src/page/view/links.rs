//! URLs of the pages of a device and of an anomaly.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::anomaly::{AnomalyId, RecordId};
use crate::archive::{AnomalyAddress, StoredAnomaly};

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

/// Parses the address of a record's first anomaly from the segments of a path; returns `None` if they are not valid.
pub(crate) fn record_address([topic, partition, offset]: [&str; 3], generation: Option<i32>) -> Option<AnomalyAddress> {
    let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
    let address = AnomalyAddress { topic: topic.to_owned(), generation, partition, offset, value: None };
    (address.partition >= 0 && address.offset >= 0 && is_text(topic)).then_some(address)
}

/// Parses the address of an anomaly from the segments of a path; returns `None` if they are not valid.
pub(crate) fn anomaly_address(path: [&str; 5], generation: Option<i32>) -> Option<AnomalyAddress> {
    let [topic, partition, offset, index, kind] = path;
    let index = index.parse().ok().filter(|index| *index >= 0)?;
    let record = record_address([topic, partition, offset], generation)?;
    is_text(kind).then(|| AnomalyAddress { value: Some((index, kind.to_owned())), ..record })
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// Returns the URL path of an address, without its generation.
pub(crate) fn anomaly_path(AnomalyAddress { topic, partition, offset, value, .. }: &AnomalyAddress) -> String {
    let record = format!("/anomalies/{}/{partition}/{offset}", segment(topic));
    match value {
        Some((index, kind)) => format!("{record}/{index}/{}", segment(kind)),
        None => record,
    }
}

/// Returns the URL of an address: its path, and its generation if it has one.
pub(crate) fn address_url(address: &AnomalyAddress) -> String {
    anomaly_path(address) + &generation_query(address.generation)
}

/// Returns the URL of the page of an anomaly. It names the generation only if that is not the newest.
pub(crate) fn anomaly_url(record: &StoredAnomaly) -> String {
    let address = AnomalyAddress::of(&record.anomaly.id());
    let generation = address.generation.filter(|_| !record.is_newest_generation);
    address_url(&AnomalyAddress { generation, ..address })
}

/// Returns the URL to which reviews of an anomaly are sent. It contains the whole identity.
pub(crate) fn reviews_url(id: &AnomalyId) -> String {
    let address = AnomalyAddress::of(id);
    format!("{}/reviews{}", anomaly_path(&address), generation_query(address.generation))
}

/// Returns a text that identifies an anomaly on a page. It contains the whole identity.
pub(crate) fn anomaly_key(AnomalyId { source, kind }: &AnomalyId) -> String {
    let RecordId { topic, generation, partition, offset, index } = source;
    format!("{}/{generation}/{partition}/{offset}/{index}/{}", segment(topic), segment(kind))
}

fn generation_query(generation: Option<i32>) -> String {
    generation.map(|generation| format!("?generation={generation}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::tests::sample;

    /// Returns anomalies that differ from the first one in one part of their identity each.
    fn neighbours() -> Vec<AnomalyId> {
        let first = sample(18.0).id();
        let with = |change: fn(&mut AnomalyId)| {
            let mut other = first.clone();
            change(&mut other);
            other
        };
        let other = |id: &mut AnomalyId| id.source.topic += "_2";
        vec![
            first.clone(),
            with(other),
            with(|id| id.source.generation += 1),
            with(|id| id.source.partition += 1),
            with(|id| id.source.offset += 1),
            with(|id| id.source.index += 1),
            with(|id| id.kind += "_2"),
        ]
    }

    #[test]
    fn each_part_of_an_identity_makes_another_key_and_another_address() {
        let all = neighbours();
        for url in [anomaly_key, reviews_url, |id: &AnomalyId| address_url(&AnomalyAddress::of(id))] {
            let urls = all.iter().map(url).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(urls.len(), all.len(), "{urls:?}");
        }
    }

    #[test]
    fn an_address_reads_back_from_its_url() {
        for id in neighbours() {
            let address = AnomalyAddress::of(&id);
            let path = anomaly_path(&address);
            let [_, _, topic, partition, offset, index, kind] = path.split('/').collect::<Vec<_>>()[..] else {
                panic!("{path}")
            };
            let read = |generation| anomaly_address([topic, partition, offset, index, kind], generation).unwrap();
            assert_eq!(read(address.generation), address);
            assert!(read(None).is_at(&address) && read(None) != address);
        }
    }

    #[test]
    fn a_link_names_the_generation_unless_it_is_the_newest() {
        let detected_at = crate::event::Timestamp::from_millis(0).unwrap();
        let review = crate::archive::Review::None;
        let mut record = StoredAnomaly { anomaly: sample(18.0), detected_at, review, is_newest_generation: true };
        assert_eq!(anomaly_url(&record), "/anomalies/raw_events/3/184467/0/point");
        record.is_newest_generation = false;
        assert_eq!(anomaly_url(&record), "/anomalies/raw_events/3/184467/0/point?generation=0");
    }
}
