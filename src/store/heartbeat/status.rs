//! Writes the state of a detector's workers and partitions: `detector_status` and `detector_conditions`.

use postgres::Transaction;

use super::Heartbeat;
use crate::event::Timestamp;
use crate::health::{Component, PartitionStatus, Tally};

/// Deletes the conditions of a worker that it does not have any more.
const DELETE_CONDITIONS: &str = "
    delete from detector_conditions
    where detector_group = $1 and topic = $2 and worker = $3 and code <> all ($4)";
/// Inserts or updates the conditions of a worker.
const UPSERT_CONDITIONS: &str = "
    insert into detector_conditions (detector_group, topic, worker, code, severity, message, since, updated_at)
    select $1, $2, $3, c.*, now() from unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) as c
    on conflict (detector_group, topic, worker, code) do update set severity = excluded.severity,
       message = excluded.message, updated_at = now()";
/// Inserts or updates the state of the partitions of a worker. An unknown number keeps its last value.
const UPSERT_STATUS: &str = "
    insert into detector_status (detector_group, topic, worker, state, settings_hash, partition, committed,
        end_offset, lag, series, event_time, high_watermark, judged, learning, rejected, arrived_at, ignored,
        excluded, reported_at, updated_at)
    select $1, $2, $3, $4, $5, p.*, $19, now()
    from unnest($6::int[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[],
        $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::timestamptz[], $17::bigint[],
        $18::bigint[]) as p
    on conflict (detector_group, topic, partition) do update set
        worker = excluded.worker,
        state = excluded.state,
        settings_hash = excluded.settings_hash,
        committed = coalesce(excluded.committed, detector_status.committed),
        end_offset = excluded.end_offset,
        lag = excluded.lag,
        series = excluded.series,
        event_time = coalesce(excluded.event_time, detector_status.event_time),
        high_watermark = excluded.high_watermark,
        judged = coalesce(excluded.judged, detector_status.judged),
        learning = coalesce(excluded.learning, detector_status.learning),
        rejected = coalesce(excluded.rejected, detector_status.rejected),
        arrived_at = coalesce(excluded.arrived_at, detector_status.arrived_at),
        ignored = coalesce(excluded.ignored, detector_status.ignored),
        excluded = coalesce(excluded.excluded, detector_status.excluded),
        reported_at = excluded.reported_at,
        updated_at = now()";

impl Heartbeat {
    /// Replaces the conditions that this component reported before.
    pub(super) fn write_conditions(
        &self,
        transaction: &mut Transaction<'_>,
        component: &Component,
    ) -> Result<(), postgres::Error> {
        let held = component.conditions();
        let codes = held.iter().map(|held| held.code.as_str()).collect::<Vec<_>>();
        let worker = self.worker(component);
        transaction.execute(DELETE_CONDITIONS, &[&self.group, &self.topic, &worker, &codes])?;
        if held.is_empty() {
            return Ok(());
        }
        transaction.execute(
            UPSERT_CONDITIONS,
            &[
                &self.group,
                &self.topic,
                &worker,
                &codes,
                &held.iter().map(|held| held.severity.as_str()).collect::<Vec<_>>(),
                &held.iter().map(|held| held.message.replace('\0', "\u{fffd}")).collect::<Vec<_>>(),
                &held.iter().map(|held| held.since.to_time()).collect::<Vec<_>>(),
            ],
        )?;
        Ok(())
    }

    /// Writes the state of the partitions of a component.
    pub(super) fn write_status(
        &self,
        transaction: &mut Transaction<'_>,
        component: &Component,
    ) -> Result<(), postgres::Error> {
        let worker = self.worker(component);
        let state = component.state();
        let partitions = component.partitions();
        if partitions.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&PartitionStatus) -> Option<i64>| partitions.values().map(of).collect::<Vec<_>>();
        let total = |of: fn(&Tally) -> u64| {
            let total = |status: &PartitionStatus| i64::try_from(status.confirmed(of(&status.totals))?).ok();
            partitions.values().map(total).collect::<Vec<_>>()
        };
        transaction.execute(
            UPSERT_STATUS,
            &[
                &self.group,
                &self.topic,
                &worker,
                &state.describe(),
                &self.settings_hash,
                &partitions.keys().collect::<Vec<_>>(),
                &each(|status| status.confirmed(status.committed)),
                &each(|status| status.end),
                &each(PartitionStatus::lag),
                &each(|status| i64::try_from(status.series).ok()),
                &partitions.values().map(|status| status.event_time.map(Timestamp::to_time)).collect::<Vec<_>>(),
                &each(|status| status.high),
                &total(|tally| tally.judged),
                &total(|tally| tally.learning),
                &total(|tally| tally.rejected),
                &partitions.values().map(|status| status.arrived.map(Timestamp::to_time)).collect::<Vec<_>>(),
                &total(|tally| tally.ignored),
                &total(|tally| tally.excluded),
                &Timestamp::now().to_time(),
            ],
        )?;
        Ok(())
    }
}
