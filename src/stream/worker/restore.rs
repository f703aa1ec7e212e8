//! Taking partitions over: find where each stands, read its windows, replay the input from their floor to the committed
//! offset without output, then let records come.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Worker;
use super::floor::Floor;
use super::staged::BLOCK;
use crate::config::resolved::Start;
use crate::detect::hex;
use crate::event::Decoder;
use crate::fail;
use crate::health::State;
use crate::series::{self, Restore, snapshot};
use crate::stream::log::{Fault, Identity, Log, Past, Positions, Record, Remedy, Standing};
use crate::stream::mark::{Mark, Marks};

/// What was found of a partition.
struct Found {
    restore: Restore,
    floor: Floor,
    /// The floor's record is to be written.
    is_news: bool,
}

impl<L: Log> Worker<'_, L> {
    pub(super) fn join(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.part.set(State::Starting(format!("taking over {} partitions", partitions.len())));
        let known = self.insist("reading the committed offsets", |log| log.committed(partitions))?;
        // Only kept windows can belong to another topic; librdkafka's mock does not answer this.
        let identity = match self.plan.keeps_state {
            true => self.insist("reading the topic's identity", |log| log.identity())?,
            false => Identity { id: None, partitions: 0 },
        };
        let standing = |partition: &i32| known.get(partition).copied().unwrap_or(Standing::New);
        let (mut at, mut firsts) = (Marks::new(), Positions::new());
        for &partition in partitions {
            let (first, end) = self.insist("reading the ends of the topic", |log| log.bounds(partition))?;
            at.insert(partition, self.begin_at(partition, standing(&partition), first, end)?);
            firsts.insert(partition, first);
        }
        self.log.assign(&offsets(&at))?;
        fail::point("assigned");
        let mut found = BTreeMap::new();
        for (&partition, &first) in &firsts {
            found.insert(partition, self.find(partition, standing(&partition), first, &at[&partition], &identity)?);
        }
        let is_new = partitions.iter().any(|partition| !matches!(standing(partition), Standing::At(_)));
        let news = found.iter().filter(|(_, found)| found.is_news).map(|(at, found)| found.floor.record(*at));
        let news = news.collect::<Vec<_>>();
        if is_new || !news.is_empty() {
            // Before the first fetch, so that a crash now does not choose again.
            self.log.begin()?;
            news.into_iter().try_for_each(|record| self.log.send(record))?;
            self.insist("committing where to begin", |log| log.commit(&at))?;
        }
        for (partition, found) in found {
            let first = firsts[&partition];
            self.replay(partition, found, first, &at[&partition])?;
        }
        self.committed = at.clone();
        self.positions = at;
        self.log.resume()?;
        self.is_member = true;
        self.part.set(State::Running);
        Ok(())
    }

    /// The mark to begin at: the committed one if the topic still has it.
    fn begin_at(&self, partition: i32, standing: Standing, first: i64, end: i64) -> Result<Mark, Fault> {
        let topic = &self.plan.topic;
        let anew = |offset| Ok(Mark { offset, ..Mark::default() });
        match standing {
            Standing::New if self.plan.start == Start::Latest => anew(end),
            Standing::New => anew(first),
            Standing::Added => {
                tracing::info!(topic, partition, "the topic has a new partition: beginning at its first event");
                anew(first)
            }
            Standing::At(Mark { offset, .. }) | Standing::Foreign(offset) if offset > end => Err(Fault::new(
                Remedy::Stop,
                format_args!(
                    "{topic} [{partition}] ends at {end}, before the committed offset {offset}: the topic was recreated or \
                     truncated. Reset the group's offsets (kafka-consumer-groups --reset-offsets --to-earliest), then start again"
                ),
            )),
            Standing::At(Mark { offset, counts }) if offset < first => {
                tracing::error!(
                    topic,
                    partition,
                    lost = first - offset,
                    "events were deleted by the topic's retention before they were judged; going on at the first that is left"
                );
                Ok(Mark { offset: first, counts })
            }
            Standing::At(mark) => Ok(mark),
            Standing::Foreign(offset) => anew(offset.max(first)),
        }
    }

    /// Windows and floor of a partition. Without any, the input alone must do: as much of it as the settings allow.
    fn find(
        &mut self,
        partition: i32,
        standing: Standing,
        first: i64,
        at: &Mark,
        identity: &Identity,
    ) -> Result<Found, Fault> {
        let settings = self.detector.settings();
        let (print, window, bounds) = (hex(&self.detector.fingerprint()), settings.window, settings.bounds());
        let (restore, floor) = match self.plan.keeps_state {
            true => self.read_state(partition)?,
            false => (Restore::from_records_alone(bounds), None),
        };
        let (topic, state) = (&self.plan.topic, &self.plan.state_topic);
        let Some(mut floor) = floor else {
            if self.plan.keeps_state && matches!(standing, Standing::At(_) | Standing::Foreign(_)) {
                tracing::warn!(topic, partition, "{state} has no windows of this partition: reading the input back");
            }
            let mut floor = Floor {
                group: self.plan.group.clone(),
                topic: topic.clone(),
                topic_id: identity.id.clone(),
                partitions: identity.partitions,
                offset: first.max(at.offset.saturating_sub(self.plan.history)).min(at.offset),
                clock: None,
                time: None,
                passed: None,
                at: at.offset,
                counts: at.counts.to_string(),
                epochs: Vec::new(),
            };
            floor.settle(floor.offset, print, window, &self.plan.fields);
            if matches!(standing, Standing::Foreign(_)) {
                self.watch.note_foreign_commit(partition, None, at.offset);
            }
            return Ok(Found { restore, floor, is_news: self.plan.keeps_state });
        };
        let committed = match standing {
            Standing::At(Mark { offset, .. }) | Standing::Foreign(offset) => Some(offset),
            Standing::New | Standing::Added => None,
        };
        if matches!(standing, Standing::Foreign(_)) {
            self.watch.note_foreign_commit(partition, Some(floor.at), at.offset);
        }
        if let Err(fault) = floor.fits(self.plan, partition, identity, restore.newest(), committed) {
            // Who had the partition before us may have had its last commit after we asked.
            let now = self.insist("reading the committed offsets", |log| log.committed(&[partition]))?;
            let has_moved = now.get(&partition).copied().unwrap_or(Standing::New) != standing;
            return Err(if has_moved { Fault { remedy: Remedy::Rebuild, ..fault } } else { fault });
        }
        let mut is_news = floor.settle(at.offset, print, window, &self.plan.fields);
        if is_news {
            tracing::info!(
                topic,
                partition,
                offset = at.offset,
                "settings changed: the new ones hold from this offset on"
            );
        }
        if floor.topic_id.is_none() && identity.id.is_some() {
            floor.topic_id.clone_from(&identity.id);
            is_news = true;
        }
        if floor.partitions != identity.partitions {
            tracing::warn!(
                topic,
                partition,
                "the topic had {} partitions and has {}: devices whose partition changed begin to learn anew",
                floor.partitions,
                identity.partitions
            );
            floor.partitions = identity.partitions;
            is_news = true;
        }
        Ok(Found { restore, floor, is_news })
    }

    /// All snapshots of a partition, and its floor.
    fn read_state(&mut self, partition: i32) -> Result<(Restore, Option<Floor>), Fault> {
        let (mut restore, mut floor) = (Restore::default(), None);
        let topic = self.plan.state_topic.clone();
        let (low, high) = self.insist("reading the ends of the windows' topic", |log| log.state_bounds(partition))?;
        if low >= high {
            return Ok((restore, floor));
        }
        self.insist("opening the windows' topic", |log| log.open_history(Past::State, partition, low, high))?;
        let mut at = low;
        while at < high {
            let mut damage = None;
            let next = self.log.read_history(&mut |_, records| {
                for record in records {
                    let key = record.key.unwrap_or_default();
                    let read = match (Floor::read(key, record.value), snapshot::series_of(key)) {
                        (Some(read), _) => read.map(|read| floor = Some(read)),
                        (None, Some(series)) => {
                            let read = record.value.map(|value| snapshot::decode(key, value)).transpose();
                            read.map(|snapshot| restore.load(series, snapshot))
                        }
                        // A kind of record that an earlier program did not know either.
                        (None, None) => Ok(()),
                    };
                    if let Err(why) = read {
                        damage.get_or_insert((record.offset, why));
                    }
                }
            });
            if let Some((offset, why)) = damage {
                return Err(Fault::new(
                    Remedy::Stop,
                    format_args!(
                        "{topic} [{partition}] offset {offset}: {why}. Start the program that wrote it, or delete the topic and \
                         create it again with `anomaly topics`: windows are then read back from the input"
                    ),
                ));
            }
            at = self.advance(next, at)?;
            fail::point("reading windows");
            let share = (at - low) * 100 / (high - low);
            self.progress(format!("reading windows of [{partition}]: {share} %, {} series", restore.len()))?;
        }
        Ok((restore, floor))
    }

    /// Lets the values between the floor and `to` join their windows.
    fn replay(&mut self, partition: i32, found: Found, first: i64, mark: &Mark) -> Result<(), Fault> {
        let to = mark.offset;
        let (mut counted, mut missing) = (0, 0);
        let Found { mut restore, floor, .. } = found;
        let topic = self.plan.topic.clone();
        let began = self.log.now();
        let from = floor.offset.max(first);
        if floor.offset < first {
            tracing::error!(
                topic,
                partition,
                missing = first - floor.offset,
                "events that windows need were deleted by the topic's retention: they have gaps now. Give {topic} a longer \
                 retention, or set detector.snapshot_interval lower"
            );
            missing = (first - floor.offset).unsigned_abs();
        }
        let expected = floor.expected(mark).filter(|(expected_from, _)| *expected_from >= from);
        restore.set_clock(floor.clock());
        let read = restore.len();
        let mut epochs = floor.epochs.iter().peekable();
        let (mut capacity, mut decoder) = (1, Decoder::new(&self.plan.fields));
        if let Some(first) = epochs.next() {
            restore.resize(first.from, first.window);
            (capacity, decoder) = (first.window, first.decoder());
        }
        if from < to {
            self.insist("opening the history", |log| log.open_history(Past::Input, partition, from, to))?;
        }
        let mut at = from;
        let mut bytes = 0;
        while at < to {
            let next = self.log.read_history(&mut |_, records| {
                let mut rest = &records[..records.partition_point(|record| record.offset < to)];
                while let Some(first) = rest.first() {
                    while let Some(epoch) = epochs.next_if(|epoch| epoch.from <= first.offset) {
                        restore.resize(epoch.from, epoch.window);
                        (capacity, decoder) = (epoch.window, epoch.decoder());
                    }
                    let same = epochs.peek().map_or(rest.len(), |next| rest.partition_point(|r| r.offset < next.from));
                    let (block, later) = rest.split_at(same.min(BLOCK));
                    let is_counted = |record: &&Record<'_>| expected.is_some_and(|(from, _)| record.offset >= from);
                    counted += block.iter().filter(is_counted).count() as u64;
                    bytes += block.iter().map(Record::size).sum::<usize>() as u64;
                    replay(&mut restore, &mut decoder, block, capacity);
                    rest = later;
                }
                restore.settle();
            });
            at = self.advance(next, at)?;
            fail::point("replaying");
            let share = (at - from) * 100 / (to - from);
            self.progress(format!("restoring {topic} [{partition}]: {share} %, {} series", restore.len()))?;
        }
        epochs.for_each(|epoch| restore.resize(epoch.from, epoch.window));
        let (table, gone) = restore.finish();
        if let Some((from, expected)) = expected.filter(|(_, expected)| *expected > counted) {
            tracing::error!(
                topic,
                partition,
                from,
                to,
                expected,
                found = counted,
                "records that were judged are no longer in the topic: windows differ from those before the restart. Is {topic} \
                 compacted? Set its cleanup.policy to delete"
            );
            missing = expected - counted;
        }
        if missing > 0 {
            let values = (table.len() * self.detector.settings().window) as u64;
            self.shortfalls.add(partition, missing, mark.counts.sum(), values);
        }
        tracing::info!(
            topic,
            partition,
            windows = read,
            from,
            to,
            series = table.len(),
            milliseconds = self.log.now().saturating_sub(began).as_millis() as u64,
            "windows restored"
        );
        self.detector.adopt(partition, table);
        if self.plan.keeps_state {
            self.keeper.begin(partition, floor, gone, bytes, self.log.now());
        }
        Ok(())
    }

    /// The next offset of a history; `at` again after a fault that passes.
    fn advance(&mut self, next: Result<i64, Fault>, at: i64) -> Result<i64, Fault> {
        match next {
            Err(fault) if fault.remedy == Remedy::Retry => {
                self.part.set(State::Degraded(fault.message));
                Ok(at)
            }
            other => other,
        }
    }

    /// Tells how far it is, and stays in the group.
    fn progress(&mut self, what: String) -> Result<(), Fault> {
        if self.stop.is_requested() {
            return Err(Fault::new(Remedy::Rebuild, "stopped while restoring"));
        }
        self.part.progress(what);
        self.stay_in_the_group()
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

/// Lets events join their windows again. What was rejected then joined none.
fn replay(restore: &mut Restore, decoder: &mut Decoder, records: &[Record<'_>], capacity: usize) {
    let mut key = String::new();
    let events = records.iter().filter_map(|record| Some((record, decoder.decode(&record.input()).ok()??)));
    let events = events.map(|(record, event)| {
        let guess = restore.guess(series::key(&mut key, &event.device_id, event.metric_name.as_deref()));
        (record, event, guess)
    });
    let events = events.collect::<Vec<_>>();
    restore.approach(events.iter().map(|(.., guess)| *guess));
    for (record, event, guess) in events {
        let key = series::key(&mut key, &event.device_id, event.metric_name.as_deref());
        restore.replay(key, guess, record.offset, record.timestamp, event.metric_value, capacity);
    }
}

pub(super) fn offsets(marks: &Marks) -> Positions {
    marks.iter().map(|(partition, mark)| (*partition, mark.offset)).collect()
}
