//! Commits the leader epoch of the last record with each offset (KIP-320), as the clients of Kafka do. A client that takes
//! over can ask the broker whether the log was cut below the offset since. rdkafka does not wrap these functions.

use std::collections::BTreeMap;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;

/// Epoch that librdkafka uses for an unknown one.
const UNKNOWN: i32 = -1;

/// Leader epochs by partition.
#[derive(Debug, Default)]
pub(super) struct LeaderEpochs(BTreeMap<i32, OffsetEpoch>);

/// Epoch of the record before an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetEpoch {
    offset: i64,
    epoch: i32,
}

impl LeaderEpochs {
    /// Notes the epoch of the record before this offset.
    pub(crate) fn note(&mut self, partition: i32, offset: i64, epoch: i32) {
        if epoch == UNKNOWN {
            self.0.remove(&partition);
        } else {
            self.0.insert(partition, OffsetEpoch { offset, epoch });
        }
    }

    /// Notes the epochs of committed offsets.
    pub(crate) fn read(&mut self, committed: &TopicPartitionList) {
        each(committed, |element| {
            // SAFETY: `each` passes an element of a list that is alive.
            let epoch = unsafe { sys::rd_kafka_topic_partition_get_leader_epoch(element) };
            self.note(element.partition, element.offset, epoch);
        });
    }

    /// Sets the epochs in a list of offsets to commit. An offset behind a marker of a transaction gets none, because the
    /// marker may have a later epoch than the last record.
    pub(crate) fn write(&self, list: &TopicPartitionList) {
        each(list, |element| {
            let known = self.0.get(&element.partition).filter(|known| known.offset == element.offset);
            // SAFETY: `each` passes an element of a list that is alive.
            unsafe {
                sys::rd_kafka_topic_partition_set_leader_epoch(element, known.map_or(UNKNOWN, |known| known.epoch));
            };
        });
    }
}

fn each(list: &TopicPartitionList, mut visit: impl FnMut(&mut sys::rd_kafka_topic_partition_t)) {
    // SAFETY: the list is alive, owns `cnt` elements, and no other reference to them exists.
    let elements = unsafe {
        let list = &*list.ptr();
        match usize::try_from(list.cnt) {
            Ok(count) if count > 0 => std::slice::from_raw_parts_mut(list.elems, count),
            _ => &mut [],
        }
    };
    elements.iter_mut().for_each(&mut visit);
}

#[cfg(test)]
mod tests {
    use rdkafka::Offset;

    use super::*;

    fn epochs(list: &TopicPartitionList) -> Vec<i32> {
        let mut all = Vec::new();
        // SAFETY: the elements are alive.
        each(list, |element| all.push(unsafe { sys::rd_kafka_topic_partition_get_leader_epoch(element) }));
        all
    }

    #[test]
    fn an_offset_gets_the_epoch_of_the_record_directly_before_it() {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in [(0, 7), (1, 8), (2, 9)] {
            list.add_partition_offset("t", partition, Offset::Offset(offset)).unwrap();
        }
        let mut known = LeaderEpochs::default();
        known.note(0, 7, 3);
        known.note(1, 7, 3);
        known.write(&list);
        assert_eq!(epochs(&list), [3, UNKNOWN, UNKNOWN], "offset 8 of partition 1 is behind a marker");
        let mut restarted = LeaderEpochs::default();
        restarted.read(&list);
        let again = list.clone();
        restarted.write(&again);
        assert_eq!(epochs(&again), [3, UNKNOWN, UNKNOWN]);
        restarted.note(0, 7, UNKNOWN);
        restarted.write(&again);
        assert_eq!(epochs(&again), [UNKNOWN; 3]);
        each(&TopicPartitionList::new(), |_| panic!("an empty list has no element"));
    }
}
