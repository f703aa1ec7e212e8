//! The simulated database. Rows and offsets change together or not at all. It has outages, answers that are lost after
//! the commit, and a backup that replaces newer data.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::stage::{Scheduler, SchedulerState};
use super::strike::{ASK, Struck};
use super::world::Defect;
use crate::anomaly::AnomalyId;
use crate::ledger::{Ledger, LedgerError, LedgerPosition, OpenRejects, SinkRecord, WrittenBatch};
use crate::stream::client::{Fault, Remedy};

/// Positions and rows of a backup.
type Copy = (BTreeMap<i32, i64>, BTreeMap<AnomalyId, Vec<u8>>);

#[derive(Default)]
pub(super) struct SimulatedDatabase {
    pub positions: BTreeMap<i32, i64>,
    /// Ids of the topic that the positions belong to.
    pub topic_ids: BTreeMap<i32, String>,
    /// Rows with the unchanged values of the records.
    pub rows: BTreeMap<AnomalyId, Vec<u8>>,
    /// Errors that no correct sink causes, as messages.
    pub wrongs: Vec<String>,
    /// Time until which the database is unreachable.
    pub away_until: Duration,
    pub refused: u64,
    /// Number of batches that took too long.
    pub cancelled: u64,
    pub moved: u64,
    /// Backup of positions and rows.
    copy: Option<Copy>,
    /// Number of times that the backup replaced the data.
    pub restored: u64,
}

impl SimulatedDatabase {
    fn write(
        &mut self,
        entries: &[SinkRecord],
        moves: &BTreeMap<i32, (i64, i64)>,
        lost: Option<usize>,
    ) -> Result<WrittenBatch, LedgerError> {
        if moves.iter().any(|(partition, (old, _))| self.positions.get(partition) != Some(old)) {
            self.moved += 1;
            return Err(LedgerError::Moved);
        }
        let mut written = WrittenBatch::default();
        for (at, entry) in entries.iter().enumerate().filter(|(at, _)| Some(*at) != lost) {
            let place = format!("[{}] {}", entry.partition, entry.offset);
            match &entry.anomaly {
                Ok(anomaly) => match self.rows.insert(anomaly.id(), entry.value.clone()) {
                    None => written.inserted += 1,
                    Some(_) => self.wrongs.push(format!("a second row for the record {place}, {at} of its batch")),
                },
                Err(why) => self.wrongs.push(format!("the record {place} is no anomaly: {why}")),
            }
        }
        for (partition, (old, new)) in moves {
            if new < old {
                self.wrongs.push(format!("[{partition}] went back from {old} to {new}"));
            }
            self.positions.insert(*partition, *new);
        }
        Ok(written)
    }
}

/// Share of faults for a sink, which makes few calls compared with a worker.
const SINK_FAULT_FACTOR: f64 = 5.0;

/// Connection of one sink to the database.
pub(super) struct SimulatedConnection {
    pub stage: Arc<Scheduler>,
    pub me: usize,
    pub defect: Option<Defect>,
}

impl Struck for SimulatedConnection {
    fn place(&self) -> (&Arc<Scheduler>, usize) {
        (&self.stage, self.me)
    }
}

impl SimulatedConnection {
    /// Runs a call. After a fault its outcome is unknown to the sink.
    fn ask<T>(
        &mut self,
        effect: impl FnOnce(&mut Self, &mut SchedulerState) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let answer = self.act_with(SINK_FAULT_FACTOR, ASK, |this, inner| {
            if inner.now < inner.cluster.database.away_until {
                inner.cluster.database.refused += 1;
                return Err(Fault::new(Remedy::Retry, "the database is unreachable"));
            }
            Ok(effect(this, inner))
        });
        answer.unwrap_or_else(|fault| Err(LedgerError::Failed(fault.message)))
    }
}

impl Ledger for SimulatedConnection {
    fn rejects(&mut self) -> Result<OpenRejects, LedgerError> {
        self.ask(|_, _| Ok(OpenRejects::default()))
    }

    fn positions(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, LedgerPosition>, LedgerError> {
        self.ask(|_, inner| {
            let database = &inner.cluster.database;
            let held = database.positions.iter().filter(|(partition, _)| partitions.contains(partition));
            let topic_id = |partition: &i32| database.topic_ids.get(partition).cloned();
            Ok(held.map(|(at, next)| (*at, LedgerPosition { next: *next, topic_id: topic_id(at) })).collect())
        })
    }

    fn begin(&mut self, partition: i32, at: &LedgerPosition) -> Result<(), LedgerError> {
        self.ask(|_, inner| {
            let database = &mut inner.cluster.database;
            if let Entry::Vacant(entry) = database.positions.entry(partition) {
                entry.insert(at.next);
                database.topic_ids.extend(at.topic_id.clone().map(|id| (partition, id)));
            }
            Ok(())
        })
    }

    fn note_topic_id(&mut self, partitions: &[i32], topic_id: &str) -> Result<(), LedgerError> {
        self.ask(|_, inner| {
            for partition in partitions {
                inner.cluster.database.topic_ids.entry(*partition).or_insert_with(|| topic_id.to_owned());
            }
            Ok(())
        })
    }

    fn accept(
        &mut self,
        topic_id: Option<&str>,
        bounds: &BTreeMap<i32, Range<i64>>,
    ) -> Result<BTreeMap<i32, i64>, LedgerError> {
        self.ask(|_, inner| {
            let (database, mut changed) = (&mut inner.cluster.database, BTreeMap::new());
            for (&partition, range) in bounds {
                let Some(&next) = database.positions.get(&partition) else { continue };
                let known = LedgerPosition { next, topic_id: database.topic_ids.get(&partition).cloned() };
                if !known.is_in(topic_id, range.end) {
                    database.positions.insert(partition, range.start);
                    database.topic_ids.extend(topic_id.map(|id| (partition, id.to_owned())));
                    changed.insert(partition, next);
                }
            }
            Ok(changed)
        })
    }

    fn write(
        &mut self,
        entries: &[SinkRecord],
        moves: &BTreeMap<i32, (i64, i64)>,
    ) -> Result<WrittenBatch, LedgerError> {
        self.ask(|this, inner| {
            if entries.len() > 1 && inner.faults > 0.0 && inner.random.random_bool(0.5) {
                inner.cluster.database.cancelled += 1;
                return Err(LedgerError::Slow("a statement was cancelled".into()));
            }
            let is_struck = this.defect.is_some() && inner.random.random_bool(0.3);
            let lost = (is_struck && this.defect == Some(Defect::LostRow)).then_some(0);
            let before = inner.cluster.database.positions.clone();
            let written = inner.cluster.database.write(entries, moves, lost);
            if is_struck && this.defect == Some(Defect::LostOffset) {
                inner.cluster.database.positions = before;
            }
            let is_backup_time = inner.faults > 0.0 && inner.random.random_bool(0.4);
            let database = &mut inner.cluster.database;
            if is_backup_time {
                match database.copy.take() {
                    None => database.copy = Some((database.positions.clone(), database.rows.clone())),
                    Some((positions, rows)) => {
                        (database.positions, database.rows) = (positions, rows);
                        database.restored += 1;
                    }
                }
            }
            written
        })
    }
}
