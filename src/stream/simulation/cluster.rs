//! Topics and their records. A partition is a list; the index of a record is its offset. Markers of transactions have
//! offsets too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::database::SimulatedDatabase;
use super::group::SimulatedGroup;
use super::rewrites::Rewrites;
use super::seconds;
use super::transactions::Transactions;

const TOMBSTONES: Duration = seconds(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SimulatedTopic {
    Input,
    Anomalies,
    DeadLetters,
    State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    Open,
    Aborted,
    /// A marker, or a record that compaction has removed.
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) struct LogEntry {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Cow<'static, str>, Option<Vec<u8>>)>,
    /// Time of the record itself; for outputs that of the virtual clock, in milliseconds.
    pub time: i64,
    pub fate: Fate,
    /// Transactional id of the producer; empty for the input.
    pub owner: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SimulatedPartition {
    pub entries: Vec<LogEntry>,
    /// First available offset.
    pub start: i64,
}

impl SimulatedPartition {
    pub(super) fn end(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Returns the first offset of an open transaction, or the end.
    pub(super) fn stable(&self) -> i64 {
        let open = self.entries.iter().position(|entry| entry.fate == Fate::Open);
        open.map_or(self.end(), |at| at as i64)
    }

    pub(super) fn marker(&mut self) {
        let (key, value, headers) = (None, None, Vec::new());
        self.entries.push(LogEntry { key, value, headers, time: 0, fate: Fate::Nothing, owner: String::new() });
    }

    /// Returns the records that a read-committed reader sees from an offset on.
    pub(super) fn committed(&self, from: i64) -> impl Iterator<Item = (i64, &LogEntry)> {
        let stable = self.stable();
        let entries = (0..).zip(&self.entries).skip(from.max(self.start) as usize);
        entries.take_while(move |(offset, _)| *offset < stable).filter(|(_, entry)| entry.fate == Fate::Committed)
    }

    /// Removes records that a later record of the same key replaces. Tombstones remain for a while, as with
    /// `delete.retention.ms`, because a reader must see them.
    pub(super) fn compact(&mut self, now: Duration) {
        let too_old = now.saturating_sub(TOMBSTONES).as_millis() as i64;
        let stable = self.stable() as usize;
        let mut newest = BTreeMap::new();
        for (at, entry) in self.entries[..stable].iter().enumerate() {
            if entry.fate == Fate::Committed {
                newest.insert(entry.key.clone(), at);
            }
        }
        for (at, entry) in self.entries[..stable].iter_mut().enumerate() {
            let is_replaced = newest.get(&entry.key).is_some_and(|newest| *newest != at);
            if entry.fate == Fate::Committed && (is_replaced || (entry.value.is_none() && entry.time < too_old)) {
                entry.fate = Fate::Nothing;
            }
        }
    }
}

pub(super) struct SimulatedCluster {
    pub topics: BTreeMap<(SimulatedTopic, i32), SimulatedPartition>,
    /// Number of partitions of the input.
    pub partitions: i32,
    /// Number of partitions of the anomalies and of the dead letters.
    pub outputs: i32,
    /// Id of every topic that was not recreated; `None` simulates a broker without ids.
    pub topic_id: Option<String>,
    /// Cleanup policy of the state topic; `None` if the cluster does not tell it.
    pub state_policy: Option<String>,
    pub transactions: Transactions,
    /// Group of the workers.
    pub group: SimulatedGroup,
    pub sinks: SimulatedGroup,
    /// Size from which on the state topic refuses a batch of snapshots.
    pub state_limit: usize,
    /// Number of refused batches.
    pub refusals: u64,
    pub database: SimulatedDatabase,
    pub rewrites: Rewrites,
    /// First offset of each partition that cannot be read.
    pub damaged: BTreeMap<(SimulatedTopic, i32), i64>,
    /// Number of times that a client could not read a partition.
    pub unreadable: u64,
}

impl SimulatedCluster {
    pub(super) fn new(partitions: i32) -> Self {
        let all =
            [SimulatedTopic::Input, SimulatedTopic::Anomalies, SimulatedTopic::DeadLetters, SimulatedTopic::State];
        let topics = all
            .iter()
            .flat_map(|topic| (0..partitions).map(|p| ((*topic, p), SimulatedPartition::default())))
            .collect();
        SimulatedCluster {
            topics,
            partitions,
            outputs: partitions,
            topic_id: Some("one".into()),
            state_policy: Some("compact".into()),
            transactions: Transactions::default(),
            group: SimulatedGroup::default(),
            sinks: SimulatedGroup::default(),
            state_limit: usize::MAX,
            refusals: 0,
            database: SimulatedDatabase::default(),
            rewrites: Rewrites::default(),
            damaged: BTreeMap::new(),
            unreadable: 0,
        }
    }

    /// Adds a partition to the input. The members notice it at once, or when the group rebalances for another reason.
    pub(super) fn grow(&mut self, now: Duration, is_noticed: bool) {
        self.topics.insert((SimulatedTopic::Input, self.partitions), SimulatedPartition::default());
        self.partitions += 1;
        if is_noticed && !self.group.members.is_empty() {
            self.group.rebalance(now);
        }
    }

    /// Adds a partition to the anomalies and to the dead letters. The sinks notice it as the members do in
    /// [`grow`](Self::grow).
    pub(super) fn grow_outputs(&mut self, now: Duration, is_noticed: bool) {
        for topic in [SimulatedTopic::Anomalies, SimulatedTopic::DeadLetters] {
            self.topics.insert((topic, self.outputs), SimulatedPartition::default());
        }
        self.outputs += 1;
        if is_noticed && !self.sinks.members.is_empty() {
            self.sinks.rebalance(now);
        }
    }

    /// Gives the state topic as many partitions as the input, as `anomaly topics` does.
    pub(super) fn widen_state(&mut self) {
        for partition in 0..self.partitions {
            self.topics.entry((SimulatedTopic::State, partition)).or_default();
        }
    }

    /// Returns whether a partition of a topic exists.
    pub(super) fn has(&self, topic: SimulatedTopic, partition: i32) -> bool {
        self.topics.contains_key(&(topic, partition))
    }

    /// Returns the number of partitions of a topic that a group reads.
    pub(super) fn count_of(&self, topic: SimulatedTopic) -> i32 {
        match topic {
            SimulatedTopic::Anomalies => self.outputs,
            _ => self.partitions,
        }
    }

    /// Returns the id of a topic that a group reads.
    pub(super) fn id_of(&self, topic: SimulatedTopic) -> Option<String> {
        let recreations = self.rewrites.recreations;
        let is_first = topic != SimulatedTopic::Input || recreations == 0;
        self.topic_id.clone().map(|id| if is_first { id } else { format!("{id} {recreations}") })
    }

    /// Returns the group that reads a topic.
    pub(super) fn group_of(&mut self, topic: SimulatedTopic) -> &mut SimulatedGroup {
        match topic {
            SimulatedTopic::Anomalies => &mut self.sinks,
            _ => &mut self.group,
        }
    }

    pub(super) fn partition(&mut self, topic: SimulatedTopic, partition: i32) -> &mut SimulatedPartition {
        self.topics.get_mut(&(topic, partition)).expect("a partition of the topic")
    }
}
