//! Stores the number of partitions that the topic had when the group was created with each committed offset. This
//! number distinguishes two kinds of partitions without an offset. One was added later, and all its events must be
//! judged. Another member is about to start the other one. The outcome counts are stored with it.

use std::collections::BTreeMap;

use rdkafka::{Offset, TopicPartitionList};

use crate::stream::client::CommittedOffset;
use crate::stream::progress::{OutcomeCounts, Progress, ProgressByPartition};

const NOTE: &str = "anomaly-partitions=";

/// Writes this number and the counts into all offsets of a list.
pub(crate) fn note(list: &TopicPartitionList, origin: i32, positions: &ProgressByPartition) {
    for element in &mut list.elements() {
        let counts = positions.get(&element.partition()).map(|progress| progress.counts).unwrap_or_default();
        element.set_metadata(format!("{NOTE}{origin} {counts}"));
    }
}

/// Returns the number, and a function for the committed state of each partition. `committed` has the offsets of all
/// partitions.
pub(crate) fn standing(committed: &TopicPartitionList) -> (i32, impl Fn(i32) -> CommittedOffset + use<>) {
    let elements = committed.elements();
    let known = elements
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                let counts = OutcomeCounts::parse(element.metadata());
                Some((element.partition(), (offset, counts)))
            }
            _ => None,
        })
        .collect::<BTreeMap<_, _>>();
    let origin_of = |metadata: &str| metadata.split(' ').next()?.strip_prefix(NOTE)?.parse::<i32>().ok();
    let noted = elements.iter().filter_map(|element| origin_of(element.metadata())).min();
    let origin = match noted {
        Some(origin) => origin,
        None if known.is_empty() => i32::try_from(elements.len()).unwrap_or(i32::MAX),
        // Another tool has set the offsets. A partition without an offset counts as added, so that no event is skipped.
        None => 0,
    };
    let has_begun = !known.is_empty();
    let standing = move |partition| match known.get(&partition) {
        Some(&(offset, Some(counts))) => CommittedOffset::At(Progress { offset, counts }),
        Some(&(offset, None)) => CommittedOffset::Foreign(offset),
        None if has_begun && partition >= origin => CommittedOffset::Added,
        None => CommittedOffset::New,
    };
    (origin, standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns offsets by partition; `None` stands for no offset.
    fn list(offsets: &[Option<i64>], origin: Option<i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            let offset = offset.map_or(Offset::Invalid, Offset::Offset);
            list.add_partition_offset("t", partition, offset).unwrap();
            if let (Some(origin), Offset::Offset(_)) = (origin, offset) {
                list.find_partition("t", partition)
                    .unwrap()
                    .set_metadata(format!("{NOTE}{origin} {}", OutcomeCounts::default()));
            }
        }
        list
    }

    fn at(offset: i64) -> CommittedOffset {
        CommittedOffset::At(Progress { offset, counts: OutcomeCounts::default() })
    }

    #[test]
    fn counts_are_stored_with_the_offset() {
        let positions = ProgressByPartition::from([(
            0,
            Progress { offset: 7, counts: OutcomeCounts { normal: 6, dropped: 1, ..OutcomeCounts::default() } },
        )]);
        let list = list(&[Some(7)], None);
        note(&list, 1, &positions);
        assert_eq!(standing(&list).1(0), CommittedOffset::At(positions[&0]));
    }

    #[test]
    fn a_partition_is_added_only_if_the_group_began_without_it() {
        let (origin, of) = standing(&list(&[None, None], None));
        assert_eq!((origin, of(0)), (2, CommittedOffset::New));
        // Another member has started its half of the two partitions.
        let (origin, of) = standing(&list(&[Some(7), None], Some(2)));
        assert_eq!((origin, of(0), of(1)), (2, at(7), CommittedOffset::New));
        // The topic grew from two to four partitions. Another member has started the third one, with the number that it
        // read.
        let (origin, of) = standing(&list(&[Some(7), Some(8), Some(0), None], Some(2)));
        assert_eq!((origin, of(3)), (2, CommittedOffset::Added));
        // Another program has set the offsets.
        let (origin, of) = standing(&list(&[Some(7), None], None));
        assert_eq!((origin, of(0), of(1)), (0, CommittedOffset::Foreign(7), CommittedOffset::Added));
    }
}
