//! Taking partitions over: find where each stands, read the windows back from the input, then let records come.

use std::time::Duration;

use super::Worker;
use crate::config::resolved::Start;
use crate::event;
use crate::health::State;
use crate::stream::log::{Fault, Log, Positions, Remedy, Standing};

impl<L: Log> Worker<'_, L> {
    pub(super) fn join(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.part.set(State::Starting(format!("taking over {} partitions", partitions.len())));
        let known = self.insist("reading the committed offsets", |log| log.committed(partitions))?;
        let mut at = Positions::new();
        let mut firsts = Positions::new();
        for &partition in partitions {
            let (first, end) = self.insist("reading the ends of the topic", |log| log.bounds(partition))?;
            let standing = known.get(&partition).copied().unwrap_or(Standing::New);
            at.insert(partition, self.begin_at(partition, standing, first, end)?);
            firsts.insert(partition, first);
        }
        self.log.assign(&at)?;
        if known.values().any(|standing| !matches!(standing, Standing::At(_))) {
            // Before the first fetch, so that a crash now does not choose again.
            self.log.begin()?;
            self.insist("committing where to begin", |log| log.commit(&at))?;
        }
        for (&partition, &first) in &firsts {
            self.restore(partition, first, at[&partition])?;
        }
        self.committed = at.clone();
        self.positions = at;
        self.log.resume()?;
        self.is_member = true;
        self.part.set(State::Running);
        Ok(())
    }

    /// The offset to begin at: the committed one if the topic still has it.
    fn begin_at(&self, partition: i32, standing: Standing, first: i64, end: i64) -> Result<i64, Fault> {
        let topic = &self.plan.topic;
        match standing {
            Standing::New if self.plan.start == Start::Latest => Ok(end),
            Standing::New => Ok(first),
            Standing::Added => {
                tracing::info!(topic, partition, "the topic has a new partition: beginning at its first event");
                Ok(first)
            }
            Standing::At(offset) if offset > end => Err(Fault::new(
                Remedy::Stop,
                format_args!(
                    "{topic} [{partition}] ends at {end}, before the committed offset {offset}: the topic was recreated or \
                     truncated. Reset the group's offsets (kafka-consumer-groups --reset-offsets --to-earliest), then start again"
                ),
            )),
            Standing::At(offset) if offset < first => {
                tracing::error!(
                    topic,
                    partition,
                    lost = first - offset,
                    "events were deleted by the topic's retention before they were judged; going on at the first that is left"
                );
                Ok(first)
            }
            Standing::At(offset) => Ok(offset),
        }
    }

    /// Reads back as much of the input before `to` as the settings allow, and lets its values join their windows.
    fn restore(&mut self, partition: i32, first: i64, to: i64) -> Result<(), Fault> {
        let from = first.max(to.saturating_sub(self.plan.history));
        if from >= to {
            return Ok(());
        }
        let topic = self.plan.topic.clone();
        let began = self.log.now();
        self.insist("opening the history", |log| log.open_history(partition, from, to))?;
        let mut at = from;
        while at < to {
            if self.stop.is_requested() {
                return Err(Fault::new(Remedy::Rebuild, "stopped while restoring"));
            }
            let (detector, fields) = (&mut self.detector, &self.plan.fields);
            let next = self.log.read_history(&mut |partition, records| {
                for record in records.iter().filter(|record| record.offset < to) {
                    // What was rejected then joined no window.
                    if let Ok(event) = event::decode(record.value, fields) {
                        detector.replay(partition, &event);
                    }
                }
            });
            match next {
                Ok(next) => at = next,
                Err(fault) if fault.remedy == Remedy::Retry => self.part.set(State::Degraded(fault.message)),
                Err(fault) => return Err(fault),
            }
            self.detector.commit();
            let tenths = (at - from) * 10 / (to - from);
            self.part.set(State::Starting(format!("restoring {topic} [{partition}]: {tenths}0 %")));
            self.part.beat();
            self.stay_in_the_group()?;
        }
        tracing::info!(
            topic,
            partition,
            from,
            to,
            series = self.detector.series_of(partition),
            milliseconds = (self.log.now() - began).as_millis() as u64,
            "windows restored from the input"
        );
        Ok(())
    }

    /// Polls the group's consumer, whose partitions are paused.
    fn stay_in_the_group(&mut self) -> Result<(), Fault> {
        let mut leaked = false;
        self.log.poll(Duration::ZERO, 1, &mut |_, _| leaked = true)?;
        if leaked {
            return Err(Fault::new(Remedy::Rebuild, "a paused partition gave a record"));
        }
        if self.log.has_change() {
            // The others wait for our answer.
            return Err(Fault::new(Remedy::Rebuild, "the group changed while windows were restored"));
        }
        Ok(())
    }
}
