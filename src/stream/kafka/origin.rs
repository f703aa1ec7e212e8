//! How many partitions the topic had when the group began, noted beside each committed offset. By it a partition that was
//! added later, whose events are all ours to judge, is told from one that another member is about to begin.

use std::collections::BTreeMap;

use rdkafka::{Offset, TopicPartitionList};

use crate::stream::log::Standing;

const NOTE: &str = "anomaly-partitions=";

/// Writes the note beside all offsets of a list.
pub fn note(list: &TopicPartitionList, origin: i32) {
    list.elements().iter_mut().for_each(|element| element.set_metadata(format!("{NOTE}{origin}")));
}

/// The note, and where the group stands in each partition, by the committed offsets of all partitions of the topic.
pub fn standing(committed: &TopicPartitionList) -> (i32, impl Fn(i32) -> Standing + use<>) {
    let elements = committed.elements();
    let known = elements
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        })
        .collect::<BTreeMap<_, _>>();
    let noted = elements.iter().filter_map(|element| element.metadata().strip_prefix(NOTE)?.parse::<i32>().ok()).min();
    let origin = match noted {
        Some(origin) => origin,
        None if known.is_empty() => i32::try_from(elements.len()).unwrap_or(i32::MAX),
        // Another tool has set the offsets: what has none is taken for added, so that nothing is skipped.
        None => 0,
    };
    let has_begun = !known.is_empty();
    let standing = move |partition| match known.get(&partition) {
        Some(&offset) => Standing::At(offset),
        None if has_begun && partition >= origin => Standing::Added,
        None => Standing::New,
    };
    (origin, standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets by partition; `None` is none.
    fn list(offsets: &[Option<i64>], origin: Option<i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            let offset = offset.map_or(Offset::Invalid, Offset::Offset);
            list.add_partition_offset("t", partition, offset).unwrap();
            if let (Some(origin), Offset::Offset(_)) = (origin, offset) {
                list.find_partition("t", partition).unwrap().set_metadata(format!("{NOTE}{origin}"));
            }
        }
        list
    }

    #[test]
    fn a_partition_is_added_only_if_the_group_began_without_it() {
        let (origin, at) = standing(&list(&[None, None], None));
        assert_eq!((origin, at(0)), (2, Standing::New));
        // Another member has begun its half of two.
        let (origin, at) = standing(&list(&[Some(7), None], Some(2)));
        assert_eq!((origin, at(0), at(1)), (2, Standing::At(7), Standing::New));
        // Two became four, and another member has begun the third, with the note that it read.
        let (origin, at) = standing(&list(&[Some(7), Some(8), Some(0), None], Some(2)));
        assert_eq!((origin, at(3)), (2, Standing::Added));
        // Set by another tool.
        let (origin, at) = standing(&list(&[Some(7), None], None));
        assert_eq!((origin, at(1)), (0, Standing::Added));
    }
}
