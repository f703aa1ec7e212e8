//! Builds the dead letter of a rejected record: its key, value and headers, and headers of our own that describe the
//! rejection.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::anomaly::RecordId;
use crate::detect::hex;
use crate::event::Rejection;
use crate::stream::client::{ConsumedRecord, OutgoingRecord, OutputTopic, OversizedBatch};

/// Returns the size in bytes of the largest part that a dead letter can omit: key, value, or all headers together.
pub(super) fn largest_part(record: &ConsumedRecord<'_>) -> usize {
    let parts = [record.key, record.value].map(|part| part.map_or(0, <[u8]>::len));
    parts.into_iter().fold(own_bytes(&record.headers.all()), usize::max)
}

fn own_bytes(headers: &[(Cow<'_, str>, Option<&[u8]>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum()
}

/// Builds the dead letter, with our headers before those of the record. A key or value of more than `limit` bytes is
/// truncated; larger headers are omitted. Our headers report this, and how many values were judged although others are
/// invalid.
pub(super) fn dead_letter(
    source: &RecordId,
    record: &ConsumedRecord<'_>,
    rejection: &Rejection,
    judged: usize,
    limit: usize,
) -> OutgoingRecord {
    let mut ours: Vec<(&'static str, Vec<u8>)> = vec![
        ("anomaly.error.topic", source.topic.clone().into_bytes()),
        ("anomaly.error.partition", source.partition.to_string().into_bytes()),
        ("anomaly.error.offset", source.offset.to_string().into_bytes()),
        ("anomaly.error.stage", b"decode".to_vec()),
        ("anomaly.error.class", rejection.class.as_str().into()),
        ("anomaly.error.message", rejection.message.clone().into_bytes()),
    ];
    if judged > 0 {
        ours.push(("anomaly.error.judged", judged.to_string().into_bytes()));
    }
    if let Some(millis) = record.timestamp {
        ours.push(("anomaly.error.timestamp", millis.to_string().into_bytes()));
    }
    let mut cut = |part: Option<&[u8]>, truncated, sha256| match part {
        Some(whole) if whole.len() > limit => {
            ours.push((truncated, whole.len().to_string().into_bytes()));
            ours.push((sha256, hex(&Sha256::digest(whole)).into_bytes()));
            Some(whole[..limit].to_vec())
        }
        other => other.map(<[u8]>::to_vec),
    };
    let value = cut(record.value, "anomaly.error.truncated", "anomaly.error.sha256");
    let key = cut(record.key, "anomaly.error.key_truncated", "anomaly.error.key_sha256");
    let mut own = record.headers.all();
    let bytes = own_bytes(&own);
    if bytes > limit {
        ours.push(("anomaly.error.headers_truncated", bytes.to_string().into_bytes()));
        own.clear();
    }
    // The last headers are the record's own, whatever their names are.
    ours.push(("anomaly.error.headers", own.len().to_string().into_bytes()));
    let ours = ours.into_iter().map(|(name, value)| (Cow::Borrowed(name), Some(value)));
    let own = own.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.map(<[u8]>::to_vec)));
    OutgoingRecord { output: OutputTopic::DeadLetters, key, value, timestamp: None, headers: ours.chain(own).collect() }
}

/// Builds the dead letter of an oversized batch. It has no key and no value, so it cannot be sent again.
pub(super) fn batch_letter(
    topic: &str,
    partition: i32,
    batch: &OversizedBatch,
    rejection: &Rejection,
) -> OutgoingRecord {
    let ours = [
        ("anomaly.error.topic", topic.to_owned()),
        ("anomaly.error.partition", partition.to_string()),
        ("anomaly.error.offset", batch.offsets.start.to_string()),
        ("anomaly.error.last_offset", (batch.offsets.end - 1).to_string()),
        ("anomaly.error.records", batch.records.to_string()),
        ("anomaly.error.stage", "fetch".to_owned()),
        ("anomaly.error.class", rejection.class.as_str().to_owned()),
        ("anomaly.error.message", format!("{}; it cannot be sent again", rejection.message)),
        ("anomaly.error.headers", "0".to_owned()),
    ];
    let headers = ours.into_iter().map(|(name, value)| (Cow::Borrowed(name), Some(value.into_bytes()))).collect();
    OutgoingRecord { output: OutputTopic::DeadLetters, key: None, value: None, timestamp: None, headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Headers, RejectClass};

    struct OwnHeaders;

    impl Headers for OwnHeaders {
        fn label(&self) -> Option<&str> {
            None
        }

        fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
            vec![
                ("trace".into(), Some(&b"abcdef"[..])),
                ("trace".into(), None),
                ("anomaly.error.truncated".into(), None),
            ]
        }
    }

    fn letter(headers: &dyn Headers, limit: usize) -> OutgoingRecord {
        let record = ConsumedRecord { offset: 7, timestamp: None, key: Some(b"k"), value: Some(b"abcdef"), headers };
        let source = RecordId { topic: "t".into(), generation: 0, partition: 1, offset: 7, index: 0 };
        let rejection = Rejection { class: RejectClass::Json, message: "m".into() };
        dead_letter(&source, &record, &rejection, 0, limit)
    }

    fn header(letter: &OutgoingRecord, name: &str) -> Option<String> {
        let (_, value) = letter.headers.iter().find(|(n, _)| n == name)?;
        value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn a_dead_letter_over_the_limit_is_truncated_and_its_headers_report_it() {
        let whole = letter(&(), 6);
        assert_eq!((whole.value.as_deref(), header(&whole, "anomaly.error.truncated")), (Some(&b"abcdef"[..]), None));
        let cut = letter(&(), 3);
        assert_eq!(cut.value.as_deref(), Some(&b"abc"[..]));
        assert_eq!(header(&cut, "anomaly.error.truncated").as_deref(), Some("6"));
        assert_eq!(header(&cut, "anomaly.error.sha256").unwrap().len(), 64);
    }

    #[test]
    fn the_records_own_headers_follow_ours_in_their_order_null_or_not_or_are_left_out_together() {
        let whole = letter(&OwnHeaders, 1_000);
        assert_eq!(header(&whole, "anomaly.error.headers").as_deref(), Some("3"));
        let own = whole.headers[whole.headers.len() - 3..].iter();
        let own = own.map(|(name, value)| (name.as_ref(), value.as_deref())).collect::<Vec<_>>();
        assert_eq!(own, [("trace", Some(&b"abcdef"[..])), ("trace", None), ("anomaly.error.truncated", None)]);
        let bare = letter(&OwnHeaders, 10);
        assert_eq!(header(&bare, "anomaly.error.headers").as_deref(), Some("0"));
        assert_eq!(header(&bare, "anomaly.error.headers_truncated").as_deref(), Some("39"));
    }
}
