//! Reads the ledger again every few seconds, because it may have been restored from a backup, replaced or moved.
//! Refused records in it raise a condition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Sink;
use crate::health::{ConditionCode, ConditionSeverity};
use crate::ledger::{LedgerError, LedgerPosition, OpenRejects};
use crate::stream::client::{Fault, GroupConsumer, GroupOwners, Positions, Remedy};

/// Interval between two reads of the ledger.
const LEDGER_INTERVAL: Duration = Duration::from_secs(5);

impl<R: GroupConsumer> Sink<'_, R> {
    /// Reads the ledger again. The ledger decides what is stored, not the sink's own positions.
    pub(super) fn check_ledger(&mut self) -> Result<(), Fault> {
        let partitions = self.positions.keys().copied().collect::<Vec<_>>();
        let owners = self.elsewhere.owners();
        if partitions.is_empty() {
            // The sink that has partitions reports the refused rows.
            self.component.clear(ConditionCode::RowsRefused);
            if self.given.is_some() || owners == GroupOwners::default() {
                return Ok(());
            }
        }
        self.next_check = self.reader.now() + LEDGER_INTERVAL;
        let all = partitions.iter().chain(owners.owners.keys()).copied().collect::<BTreeSet<_>>();
        let all = all.into_iter().collect::<Vec<_>>();
        let held = self.ledger.positions(&all).and_then(|held| Ok((held, self.ledger.rejects()?)));
        let (held, rejects) = match held {
            Ok(held) => held,
            // A sink without partitions stores nothing that the database could refuse.
            Err(why) if partitions.is_empty() && why != LedgerError::Moved => return Ok(()),
            Err(why) => return self.note_failure(why),
        };
        self.report_elsewhere(&owners, &held);
        if partitions.is_empty() {
            return Ok(());
        }
        self.is_away = false;
        self.report_rejects(&rejects);
        let held = |partition: &i32| held.get(partition).map(|held| held.next);
        if self.positions.iter().any(|(partition, next)| held(partition).is_some_and(|held| held > *next)) {
            return Err(moved());
        }
        let behind = |(partition, next): &(&i32, &i64)| held(partition) != Some(**next);
        let lost =
            self.positions.iter().filter(behind).map(|(partition, next)| (*partition, *next)).collect::<Positions>();
        if lost.is_empty() {
            return self.pass_controls();
        }
        let records = lost.iter().map(|(partition, next)| next - held(partition).unwrap_or(0)).sum::<i64>();
        self.component.raise(
            ConditionCode::LedgerMoved,
            ConditionSeverity::Degraded,
            format!(
                "the database is behind what this sink had stored, as after a restore from a copy: about {records} records of \
                 {} are stored again",
                self.settings.topics.anomalies
            ),
        );
        self.forget();
        self.lost = lost;
        self.given = Some(partitions);
        self.take_over()
    }

    /// Raises a condition while other members of the group keep anomalies from this database.
    fn report_elsewhere(&mut self, owners: &GroupOwners, held: &BTreeMap<i32, LedgerPosition>) {
        let settings = self.settings;
        let place = (settings.topics.anomalies.as_str(), settings.detector.session_timeout);
        let message = self.elsewhere.watch(self.reader.now(), owners, &self.positions, held, place);
        let message =
            message.map(|text| (ConditionSeverity::Degraded, format!("group {}: {text}", settings.sink.group)));
        self.component.set_condition(ConditionCode::ForeignSink, message);
    }

    /// Advances the ledger past control records and records of aborted transactions. So the ledger is at the end when
    /// everything is stored.
    fn pass_controls(&mut self) -> Result<(), Fault> {
        let reached = self.reader.reached();
        let beyond = |(partition, next): (&i32, &i64)| {
            let end = reached.get(partition).copied().filter(|end| end > next)?;
            Some((*partition, (*next, end)))
        };
        let moves = self.positions.iter().filter_map(beyond).collect::<BTreeMap<_, _>>();
        if moves.is_empty() {
            return Ok(());
        }
        match self.ledger.write(&[], &moves) {
            Ok(_) => {
                self.positions.extend(moves.into_iter().map(|(partition, (_, end))| (partition, end)));
                Ok(())
            }
            Err(why) => self.note_failure(why),
        }
    }

    /// Raises a condition while the database contains refused records.
    fn report_rejects(&self, rejects: &OpenRejects) {
        if rejects.count == 0 {
            return self.component.clear(ConditionCode::RowsRefused);
        }
        let many = if rejects.count == OpenRejects::MAX_COUNT { " or more" } else { "" };
        self.component.raise(
            ConditionCode::RowsRefused,
            ConditionSeverity::Degraded,
            format!(
                "{}{many} records of {} are missing in the table, which refused them; they are in sink_rejects (the last: {}). \
                 Delete them there when the cause is mended",
                rejects.count, self.settings.topics.anomalies, rejects.last
            ),
        );
    }
}

/// Reports that the ledger's offset differs from the one that this sink wrote.
pub(super) fn moved() -> Fault {
    Fault::new(
        Remedy::Rebuild,
        "the offsets in the database have moved, by another sink, by a write whose answer was lost, or by a restore",
    )
}
