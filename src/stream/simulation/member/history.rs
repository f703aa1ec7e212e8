//! Reading of ranges by a worker: snapshots, and the input before its committed offset.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;

use super::super::cluster::{LogEntry, SimulatedTopic};
use super::super::consumer::show;
use super::super::strike::{ASK, Struck, dead};
use super::super::world::Defect;
use super::SimulatedClient;
use crate::stream::client::{
    Consumed, Fault, HistoryReader, HistoryTopic, OffsetRanges, Positions, ReadFailure, ReadFailures, RecordVisitor,
    Remedy,
};

impl HistoryReader for SimulatedClient {
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault> {
        self.act(ASK, |_, inner| {
            if partitions.iter().any(|partition| !inner.cluster.has(topic_of(of), *partition)) {
                return Err(Fault::new(Remedy::Rebuild, "the topic has fewer partitions"));
            }
            let mut bounds = |partition: &i32| {
                let log = inner.cluster.partition(topic_of(of), *partition);
                (*partition, log.start..if of == HistoryTopic::Input { log.stable() } else { log.end() })
            };
            Ok(partitions.iter().map(&mut bounds).collect())
        })
    }

    fn cleanup_policy(&mut self, of: HistoryTopic) -> Result<Option<String>, Fault> {
        self.act(ASK, |_, inner| match of {
            HistoryTopic::State => Ok(inner.cluster.state_policy.clone()),
            HistoryTopic::Input | HistoryTopic::DeadLetters => Ok(Some("delete".to_owned())),
        })
    }

    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault> {
        self.act(ASK, |this, _| {
            this.history = Some((topic_of(of), ranges.clone()));
            Ok(())
        })
    }

    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault> {
        let Some((topic, left)) = self.history.clone() else { return Err(dead()) };
        let read = self.act(ASK, |_, inner| {
            let at = inner.random.random_range(0..left.len().max(1));
            let Some((&partition, range)) = left.iter().nth(at) else { return Ok(None) };
            let share = inner.random.random_range(1..30);
            let damage = inner.cluster.damage(topic, partition).unwrap_or(i64::MAX);
            let log = inner.cluster.partition(topic, partition);
            if topic == SimulatedTopic::Input && range.start < log.start {
                return Err(Fault::new(Remedy::Rebuild, "retention has passed by"));
            }
            let records = log.committed(range.start).take_while(|(at, _)| *at < range.end.min(damage)).take(share);
            let records = records.map(|(at, entry)| (at, entry.clone())).collect::<Vec<_>>();
            if records.is_empty() && (log.stable() < range.end || damage < range.end) {
                inner.now += Duration::from_millis(50);
                inner.cluster.unreadable += u64::from(damage < range.end);
                return Ok(None);
            }
            // Without records, the rest of the range has none.
            let next = records.last().map_or(range.end, |(at, _)| at + 1);
            Ok(Some((partition, records, next)))
        })?;
        let Some((partition, mut records, next)) = read else { return Ok(Positions::new()) };
        if self.consumer.defect == Some(Defect::Amnesia) {
            let is_kept = |at: i64, e: &LogEntry| at % 3 > 0 || e.key.as_deref().is_some_and(|key| key == b"f");
            records.retain(|(at, e)| topic != SimulatedTopic::State || is_kept(*at, e));
        }
        visit(partition, Consumed::Records(&show(&records)));
        if let Some((_, left)) = &mut self.history
            && let Some(range) = left.get_mut(&partition)
        {
            range.start = next;
            left.retain(|_, range| !range.is_empty());
        }
        Ok(Positions::from([(partition, next)]))
    }

    fn history_failures(&self) -> ReadFailures {
        let Some((topic, left)) = &self.history else { return ReadFailures::new() };
        let inner = self.consumer.stage.look();
        let failure = |(partition, range): (&i32, &Range<i64>)| {
            let offset = inner.cluster.damage(*topic, *partition).filter(|damage| range.contains(damage))?;
            Some((*partition, ReadFailure { offset, cause: "a batch is damaged".to_owned() }))
        };
        left.iter().filter_map(failure).collect()
    }

    fn skip_history(&mut self, _partition: i32) -> Result<Option<Range<i64>>, Fault> {
        Ok(None)
    }

    fn close_history(&mut self) {
        self.history = None;
    }
}

fn topic_of(past: HistoryTopic) -> SimulatedTopic {
    match past {
        HistoryTopic::Input => SimulatedTopic::Input,
        HistoryTopic::State => SimulatedTopic::State,
        HistoryTopic::DeadLetters => SimulatedTopic::DeadLetters,
    }
}
