//! Calls that the steps of the script share. Each is repeated until the client has its answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::BOTH;
use super::recorder::RecordingClient;
use crate::stream::client::{
    AssignmentChange, Fault, GroupAdministration, GroupAssignment, GroupMembership, HistoryReader, HistoryTopic,
    OffsetRanges, OutgoingRecord, OutputTopic, Positions, RecordFetch, Remedy, TransactionalProducer,
};
use crate::stream::progress::{LastRecord, OutcomeCounts, Progress, ProgressByPartition};

/// Longest wait for an answer of a client.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Offsets of the consumed records, by partition.
pub(super) type CameByPartition = BTreeMap<i32, Vec<i64>>;

/// Steps of the script with their answers.
pub(super) struct Answers(pub Vec<String>);

impl Answers {
    pub(super) fn note(&mut self, what: &str, answer: impl std::fmt::Debug) {
        self.0.push(format!("{what}: {answer:?}"));
    }
}

/// Repeats a call while it returns `Retry`.
pub(super) fn insist<T>(mut call: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match call() {
            Err(fault) if fault.remedy == Remedy::Retry && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Polls until the condition is true for the consumed records.
pub(super) fn poll(
    client: &mut RecordingClient,
    mut until: impl FnMut(&CameByPartition, &mut RecordingClient) -> bool,
) -> Result<CameByPartition, Fault> {
    let (mut came, deadline) = (CameByPartition::new(), Instant::now() + ANSWER_TIMEOUT);
    while !until(&came, client) {
        assert!(Instant::now() < deadline, "only {came:?} came");
        client.poll(Duration::from_millis(100), 100, &mut |partition, consumed| {
            came.entry(partition).or_default().extend(consumed.records().iter().map(|record| record.offset));
        })?;
    }
    Ok(came)
}

/// Polls until this number of records was consumed.
pub(super) fn poll_records(client: &mut RecordingClient, count: usize) -> Result<CameByPartition, Fault> {
    poll(client, |came, _| came.values().map(Vec::len).sum::<usize>() >= count)
}

/// Polls all clients until the last of them has an assignment change.
pub(super) fn change(clients: &mut [&mut RecordingClient]) -> AssignmentChange {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        for client in clients.iter_mut() {
            client.poll(Duration::from_millis(20), 0, &mut |_, _| panic!("nothing was asked for")).unwrap();
        }
        let last = clients.last_mut().unwrap();
        if last.has_change() {
            return last.next_change().unwrap();
        }
        assert!(Instant::now() < deadline, "no change came");
    }
}

/// Waits until the whole assignment of the group is known.
pub(super) fn whole_assignment(client: &mut RecordingClient) -> GroupAssignment {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        if let Ok(found) = client.assignment().expect("each client observes the group").found {
            return found;
        }
        assert!(Instant::now() < deadline, "the assignment is not known");
        client.poll(Duration::from_millis(20), 0, &mut |_, _| panic!("nothing was asked for")).unwrap();
    }
}

/// Subscribes the client, and accepts its assignment at these offsets.
pub(super) fn join(client: &mut RecordingClient, at: &Positions) {
    insist(|| client.init_transactions()).unwrap();
    client.subscribe().unwrap();
    let assigned = change(&mut [&mut *client]);
    assert_eq!(assigned, AssignmentChange::Assigned(at.keys().copied().collect()));
    client.assign(at).unwrap();
}

pub(super) fn record(output: OutputTopic, key: &str) -> OutgoingRecord {
    OutgoingRecord { output, key: Some(key.into()), value: Some(b"v".to_vec()), timestamp: None, headers: Vec::new() }
}

pub(super) fn progress(offsets: &[(i32, i64)]) -> ProgressByPartition {
    let progress = |offset: i64| {
        let counts = OutcomeCounts { normal: offset as u64, ..OutcomeCounts::default() };
        let last = (offset > 0).then(|| LastRecord::new(offset - 1, Some(offset), None, Some(b"event")));
        Progress { offset, counts, last, generation: 1 }
    };
    offsets.iter().map(|(partition, offset)| (*partition, progress(*offset))).collect()
}

/// Reads ranges to their ends; returns offset and key of every committed record.
pub(super) fn read(
    client: &mut RecordingClient,
    of: HistoryTopic,
    ranges: &OffsetRanges,
) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut left = ranges.clone();
    left.retain(|_, range| !range.is_empty());
    let mut found = BTreeMap::<i32, Vec<(i64, String)>>::new();
    if !left.is_empty() {
        insist(|| client.open_history(of, &left)).unwrap();
    }
    while !left.is_empty() {
        let moved = insist(|| {
            client.read_history(&mut |partition, consumed| {
                let key = |key: Option<&[u8]>| String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
                let records = consumed.records().iter().map(|record| (record.offset, key(record.key)));
                found.entry(partition).or_default().extend(records);
            })
        });
        let moved = moved.unwrap();
        left.retain(|partition, range| moved.get(partition).is_none_or(|next| *next < range.end));
    }
    assert_eq!(client.history_failures().len(), 0);
    assert_eq!(client.skip_history(0), Ok(None));
    client.close_history();
    found
}

/// Reads all committed records of the state topic.
pub(super) fn state(client: &mut RecordingClient) -> BTreeMap<i32, Vec<(i64, String)>> {
    let ranges = insist(|| client.bounds_of(HistoryTopic::State, &BOTH)).unwrap();
    read(client, HistoryTopic::State, &ranges)
}
