//! Stores the number of partitions that the topic had when the group was created with each committed offset. This
//! number distinguishes two kinds of partitions without an offset. One was added later, and all its events must be
//! judged. Another member is about to start the other one. The offset itself and the outcome counts are stored with it,
//! so that an offset of another program is recognised, also if that program has copied the metadata.
//!
//! The number is 0 if another program had committed offsets before the first detector.

use std::collections::BTreeMap;
use std::str::FromStr;

use rdkafka::{Offset, TopicPartitionList};

use crate::anomaly::FIRST_GENERATION;
use crate::stream::client::CommittedOffset;
use crate::stream::progress::{LastRecord, OutcomeCounts, Progress, ProgressByPartition};

const NOTE: &str = "anomaly-partitions=";
/// Word with the offset to which the counts belong. Older programs did not write it.
const AT: &str = "at=";
/// Word with the generation of the topic. It is left out for the first one.
const GENERATION: &str = "generation=";

/// Writes this number and the counts into all offsets of a list.
pub(crate) fn note(list: &TopicPartitionList, origin: i32, positions: &ProgressByPartition) {
    for element in &mut list.elements() {
        let Progress { counts, last, generation, .. } =
            positions.get(&element.partition()).copied().unwrap_or_default();
        let at = element.offset().to_raw().unwrap_or_default();
        let last = last.map(|last| format!(" {last}")).unwrap_or_default();
        let generation =
            if generation == FIRST_GENERATION { String::new() } else { format!(" {GENERATION}{generation}") };
        element.set_metadata(format!("{NOTE}{origin} {AT}{at}{generation} {counts}{last}"));
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
                let written = OutcomeCounts::parse(element.metadata()).map(|counts| {
                    let metadata = element.metadata();
                    let (at, generation) = (number(metadata, AT), number(metadata, GENERATION));
                    Progress {
                        offset: at.unwrap_or(offset),
                        counts,
                        last: LastRecord::parse(metadata),
                        generation: generation.unwrap_or(FIRST_GENERATION),
                    }
                });
                Some((element.partition(), (offset, written)))
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
    // All partitions of a topic have been accepted with it.
    let generations = known.values().filter_map(|(_, written)| Some((*written)?.generation));
    let generation = generations.max().unwrap_or(FIRST_GENERATION);
    let standing = move |partition| match known.get(&partition) {
        Some(&(offset, Some(progress))) if progress.offset == offset => CommittedOffset::At(progress),
        Some(&(offset, None)) if origin == 0 => CommittedOffset::Earlier(offset),
        Some(&(offset, was)) => CommittedOffset::Foreign { offset, was },
        None if has_begun && partition >= origin => CommittedOffset::Added { generation },
        None => CommittedOffset::New,
    };
    (origin, standing)
}

/// Returns the number behind a word of a metadata text.
fn number<T: FromStr>(metadata: &str, word: &str) -> Option<T> {
    metadata.split(' ').find_map(|part| part.strip_prefix(word)?.parse().ok())
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
        CommittedOffset::At(Progress { offset, ..Progress::default() })
    }

    #[test]
    fn counts_are_stored_with_the_offset() {
        let positions = ProgressByPartition::from([(
            0,
            Progress {
                offset: 7,
                counts: OutcomeCounts { normal: 6, dropped: 1, ..OutcomeCounts::default() },
                last: Some(LastRecord::new(6, Some(1_764_000_000_123), Some(b"key"), None)),
                generation: 2,
            },
        )]);
        let list = list(&[Some(7), None], None);
        note(&list, 1, &positions);
        let (_, of) = standing(&list);
        assert_eq!(of(0), CommittedOffset::At(positions[&0]));
        assert_eq!(of(1), CommittedOffset::Added { generation: 2 }, "a partition of the same topic");
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
        assert_eq!((origin, of(3)), (2, CommittedOffset::Added { generation: 0 }));
        // Another program had set the offsets before the first detector.
        let (origin, of) = standing(&list(&[Some(7), None], None));
        assert_eq!((origin, of(0), of(1)), (0, CommittedOffset::Earlier(7), CommittedOffset::Added { generation: 0 }));
        let list = list(&[Some(7), Some(8)], None);
        list.find_partition("t", 1).unwrap().set_metadata(format!("{NOTE}0 {}", OutcomeCounts::default()));
        let (origin, of) = standing(&list);
        assert_eq!((origin, of(0), of(1)), (0, CommittedOffset::Earlier(7), at(8)), "one member has begun");
    }

    #[test]
    fn an_offset_without_metadata_or_with_those_of_another_offset_is_foreign() {
        let list = list(&[Some(7), Some(9), Some(5)], Some(3));
        list.find_partition("t", 1).unwrap().set_metadata("");
        let counts = OutcomeCounts { normal: 6, ..OutcomeCounts::default() };
        let positions = ProgressByPartition::from([(0, Progress { offset: 7, counts, ..Progress::default() })]);
        note(&list, 3, &positions);
        list.find_partition("t", 1).unwrap().set_metadata("");
        let copied = list.find_partition("t", 0).unwrap().metadata().to_owned();
        list.find_partition("t", 2).unwrap().set_metadata(copied);
        let (_, of) = standing(&list);
        assert_eq!(of(0), CommittedOffset::At(positions[&0]));
        assert_eq!(of(1), CommittedOffset::Foreign { offset: 9, was: None });
        assert_eq!(of(2), CommittedOffset::Foreign { offset: 5, was: Some(positions[&0]) });
    }
}
