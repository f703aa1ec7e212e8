//! Writes what a detector has counted and seen since the last heartbeat: `coverage`, `activity`, `rejected_samples` and
//! `seen_devices`.

use std::collections::BTreeMap;

use postgres::Transaction;
use time::OffsetDateTime;

use super::Heartbeat;
use crate::health::{Activity, Cut, RejectedSample, RejectedSamples, Tally};

/// Maximum number of rejected records of each class in the table.
const SAMPLES: i64 = 20;

impl Heartbeat {
    pub(super) fn write_coverage(
        &self,
        transaction: &mut Transaction<'_>,
        coverage: &BTreeMap<(i64, i32), Tally>,
    ) -> Result<(), postgres::Error> {
        if coverage.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&Tally) -> u64| coverage.values().map(|tally| of(tally) as i64).collect::<Vec<_>>();
        transaction.execute(
            "insert into coverage as a (topic, minute, partition, judged, learning, rejected, ignored, excluded)
             select $1, c.* from unnest($2::timestamptz[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::bigint[], $8::bigint[]) as c
             on conflict (minute, topic, partition) do update set judged = a.judged + excluded.judged,
                learning = a.learning + excluded.learning, rejected = a.rejected + excluded.rejected,
                ignored = a.ignored + excluded.ignored, excluded = a.excluded + excluded.excluded",
            &[
                &self.topic,
                &coverage.keys().map(|(at, _)| minute(at)).collect::<Vec<_>>(),
                &coverage.keys().map(|(_, partition)| partition).collect::<Vec<_>>(),
                &each(|tally| tally.judged),
                &each(|tally| tally.learning),
                &each(|tally| tally.rejected),
                &each(|tally| tally.ignored),
                &each(|tally| tally.excluded),
            ],
        )?;
        Ok(())
    }

    /// Adds samples of rejected records; the table keeps the newest of each class.
    pub(super) fn write_rejected(
        &self,
        transaction: &mut Transaction<'_>,
        rejected: &RejectedSamples,
    ) -> Result<(), postgres::Error> {
        if rejected.is_empty() {
            return Ok(());
        }
        let samples = rejected.iter().collect::<Vec<_>>();
        let bytes = |of: fn(&RejectedSample) -> &Option<Cut>| {
            samples.iter().map(|sample| of(sample).as_ref().map(|cut| &cut.bytes[..])).collect::<Vec<_>>()
        };
        let sizes = |of: fn(&RejectedSample) -> &Option<Cut>| {
            samples.iter().map(|sample| of(sample).as_ref().map(|cut| cut.size as i64)).collect::<Vec<_>>()
        };
        transaction.execute(
            "insert into rejected_samples (detector_group, topic, generation, partition, record_offset, class, message, key,
                key_size, value, value_size, rejected_at)
             select $1, $2, s.* from unnest($3::int[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::bytea[],
                $9::bigint[], $10::bytea[], $11::bigint[], $12::timestamptz[]) as s on conflict do nothing",
            &[
                &self.group,
                &self.topic,
                &samples.iter().map(|sample| sample.generation).collect::<Vec<_>>(),
                &samples.iter().map(|sample| sample.partition).collect::<Vec<_>>(),
                &samples.iter().map(|sample| sample.offset).collect::<Vec<_>>(),
                &samples.iter().map(|sample| sample.class.as_str()).collect::<Vec<_>>(),
                &samples.iter().map(|sample| sample.message.replace('\0', "\u{fffd}")).collect::<Vec<_>>(),
                &bytes(|sample| &sample.key),
                &sizes(|sample| &sample.key),
                &bytes(|sample| &sample.value),
                &sizes(|sample| &sample.value),
                &samples.iter().map(|sample| sample.at.to_time()).collect::<Vec<_>>(),
            ],
        )?;
        transaction.execute(
            "delete from rejected_samples where detector_group = $1 and topic = $2 and ctid = any(array(
                select ctid from (
                    select ctid, row_number() over (partition by class order by rejected_at > now() + interval '5 minutes',
                    rejected_at desc, record_offset desc) as rank
                    from rejected_samples where detector_group = $1 and topic = $2) as ranked
                where rank > $3))",
            &[&self.group, &self.topic, &SAMPLES],
        )?;
        Ok(())
    }

    pub(super) fn write_activity(
        &self,
        transaction: &mut Transaction<'_>,
        activity: &BTreeMap<(i64, i32), Activity>,
    ) -> Result<(), postgres::Error> {
        if activity.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&Activity) -> i64| activity.values().map(of).collect::<Vec<_>>();
        transaction.execute(
            "insert into activity as a (topic, minute, partition, judged, learning, rejected, late, late_seconds, early,
                early_seconds, ignored, excluded)
             select $1, c.* from unnest($2::timestamptz[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[]) as c
             on conflict (minute, topic, partition) do update set judged = a.judged + excluded.judged,
                learning = a.learning + excluded.learning, rejected = a.rejected + excluded.rejected,
                late = a.late + excluded.late, late_seconds = a.late_seconds + excluded.late_seconds,
                early = a.early + excluded.early, early_seconds = a.early_seconds + excluded.early_seconds,
                ignored = a.ignored + excluded.ignored, excluded = a.excluded + excluded.excluded",
            &[
                &self.topic,
                &activity.keys().map(|(at, _)| minute(at)).collect::<Vec<_>>(),
                &activity.keys().map(|(_, partition)| partition).collect::<Vec<_>>(),
                &each(|of| of.tally.judged as i64),
                &each(|of| of.tally.learning as i64),
                &each(|of| of.tally.rejected as i64),
                &each(|of| of.late as i64),
                &each(|of| of.late_seconds),
                &each(|of| of.early as i64),
                &each(|of| of.early_seconds),
                &each(|of| of.tally.ignored as i64),
                &each(|of| of.tally.excluded as i64),
            ],
        )?;
        Ok(())
    }
}

/// Adds devices, or updates the time at which they were last seen. A full table takes no new ones.
pub(super) fn write_devices(transaction: &mut Transaction<'_>, devices: &[String]) -> Result<(), postgres::Error> {
    if devices.is_empty() {
        return Ok(());
    }
    transaction.execute(
        "insert into seen_devices (device_id) select distinct device from unnest($1::text[]) as device
         where (select reltuples from pg_class where oid = 'seen_devices'::regclass) < $2::float8
         order by 1
         on conflict (device_id) do update set seen_at = now() where seen_devices.seen_at < now() - interval '12 hours'",
        &[&devices, &crate::archive::MOST_DEVICES],
    )?;
    transaction.execute(
        "delete from seen_devices where ctid = any(array(
            select ctid from seen_devices where seen_at < now() - interval '35 days' limit 2000 for update skip locked))",
        &[],
    )?;
    Ok(())
}

/// Returns the start of a minute that is counted from the epoch.
fn minute(at: &i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at * 60).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
