//! Writes the reports of a detector every few seconds, also when nothing is abnormal: `detector_status`,
//! `detector_conditions`, `coverage`, `activity` and `rejected_samples`.

use std::collections::BTreeMap;
use std::sync::Arc;

use postgres::{Client, Transaction};
use time::OffsetDateTime;

use super::{DatabaseError, open};
use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;
use crate::health::{Activity, Component, Cut, PartitionStatus, RejectedSample, RejectedSamples, Tally};

/// Maximum number of rejected records of each class in the table.
const SAMPLES: i64 = 20;

/// Writes heartbeats over one connection, which is opened when needed.
pub struct Heartbeat {
    settings: PostgresSettings,
    group: String,
    topic: String,
    instance: String,
    settings_hash: String,
    /// Settings that the hash stands for.
    detection: serde_json::Value,
    client: Option<Client>,
}

impl Heartbeat {
    /// Creates the writer without connecting.
    pub fn new(
        settings: &PostgresSettings,
        group: &str,
        topic: &str,
        instance: &str,
        (settings_hash, detection): (&str, serde_json::Value),
    ) -> Self {
        Heartbeat {
            settings: settings.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            instance: instance.to_owned(),
            settings_hash: settings_hash.to_owned(),
            detection,
            client: None,
        }
    }

    /// Writes the reports of these components. If they cannot be written, the counts are added again to the components.
    ///
    /// # Errors
    /// Returns the reason as a sentence.
    pub fn write(&mut self, parts: &[Arc<Component>]) -> Result<(), String> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let mut client = open(&self.settings).map_err(|e| e.to_string())?;
                let sql =
                    "insert into detector_settings (settings_hash, settings) values ($1, $2) on conflict do nothing";
                let known = client.execute(sql, &[&self.settings_hash, &self.detection]);
                known.map_err(|e| DatabaseError::from(e).sentence())?;
                client
            }
        };
        for part in parts {
            self.write_part(&mut client, part).map_err(|e| e.sentence())?;
        }
        self.client = Some(client);
        Ok(())
    }

    fn write_part(&self, client: &mut Client, part: &Component) -> Result<(), DatabaseError> {
        let (coverage, activity, rejected) = (part.take_coverage(), part.take_activity(), part.take_rejected());
        let devices = part.take_devices();
        let written = client.transaction().and_then(|mut transaction| {
            self.write_status(&mut transaction, part)?;
            self.write_conditions(&mut transaction, part)?;
            self.write_coverage(&mut transaction, &coverage)?;
            self.write_activity(&mut transaction, &activity)?;
            self.write_rejected(&mut transaction, &rejected)?;
            write_devices(&mut transaction, &devices)?;
            transaction.commit()
        });
        if written.is_err() {
            part.cover(coverage);
            part.note_activity(activity);
            part.give_back_rejected(rejected);
            part.forget_devices();
        }
        Ok(written?)
    }

    fn worker(&self, part: &Component) -> String {
        format!("{}/{}", self.instance, part.name)
    }

    /// Replaces the conditions that this component reported before.
    fn write_conditions(&self, transaction: &mut Transaction<'_>, part: &Component) -> Result<(), postgres::Error> {
        let held = part.conditions();
        let codes = held.iter().map(|held| held.code.as_str()).collect::<Vec<_>>();
        let worker = self.worker(part);
        transaction.execute(
            "delete from detector_conditions
             where detector_group = $1 and topic = $2 and worker = $3 and code <> all ($4)",
            &[&self.group, &self.topic, &worker, &codes],
        )?;
        if held.is_empty() {
            return Ok(());
        }
        transaction.execute(
            "insert into detector_conditions (detector_group, topic, worker, code, severity, message, since, updated_at)
             select $1, $2, $3, c.*, now() from unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) as c
             on conflict (detector_group, topic, worker, code) do update set severity = excluded.severity,
                message = excluded.message, updated_at = now()",
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

    fn write_status(&self, transaction: &mut Transaction<'_>, part: &Component) -> Result<(), postgres::Error> {
        let worker = self.worker(part);
        let state = part.state();
        let partitions = part.partitions();
        if partitions.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&PartitionStatus) -> Option<i64>| partitions.values().map(of).collect::<Vec<_>>();
        let total = |of: fn(&Tally) -> u64| {
            let total = |status: &PartitionStatus| i64::try_from(status.confirmed(of(&status.totals))?).ok();
            partitions.values().map(total).collect::<Vec<_>>()
        };
        transaction.execute(
            "insert into detector_status (detector_group, topic, worker, state, settings_hash, partition, committed,
                end_offset, lag, series, event_time, high_watermark, judged, learning, rejected, arrived_at, ignored,
                excluded, reported_at, updated_at)
             select $1, $2, $3, $4, $5, p.*, $19, now()
             from unnest($6::int[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[],
                $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::timestamptz[], $17::bigint[],
                $18::bigint[]) as p
             on conflict (detector_group, topic, partition) do update set worker = excluded.worker,
                state = excluded.state, committed = coalesce(excluded.committed, detector_status.committed), end_offset = excluded.end_offset,
                lag = excluded.lag, high_watermark = excluded.high_watermark, judged = coalesce(excluded.judged, detector_status.judged),
                learning = coalesce(excluded.learning, detector_status.learning),
                rejected = coalesce(excluded.rejected, detector_status.rejected),
                ignored = coalesce(excluded.ignored, detector_status.ignored),
                excluded = coalesce(excluded.excluded, detector_status.excluded),
                arrived_at = coalesce(excluded.arrived_at, detector_status.arrived_at), event_time = coalesce(excluded.event_time, detector_status.event_time),
                series = excluded.series, reported_at = excluded.reported_at, settings_hash = excluded.settings_hash, updated_at = now()",
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

    fn write_coverage(
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
    fn write_rejected(
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
            "insert into rejected_samples (detector_group, topic, partition, record_offset, class, message, key, key_size,
                value, value_size, rejected_at)
             select $1, $2, s.* from unnest($3::int[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::bigint[],
                $9::bytea[], $10::bigint[], $11::timestamptz[]) as s on conflict do nothing",
            &[
                &self.group,
                &self.topic,
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

    fn write_activity(
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

/// Partitions of one topic whose heartbeats were removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Forgotten {
    /// Consumer group of the detector.
    pub group: String,
    /// Topic of the raw events.
    pub topic: String,
    /// Number of removed partitions.
    pub partitions: i64,
    /// Seconds since the newest heartbeat was written.
    pub age: f64,
}

/// Removes the heartbeats and conditions that are older than an hour. A running detector writes them again.
///
/// # Errors
/// Returns the error of the database.
pub fn forget(client: &mut Client) -> Result<Vec<Forgotten>, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.execute("delete from detector_conditions where updated_at < now() - interval '1 hour'", &[])?;
    let rows = transaction.query(
        "with gone as (
             delete from detector_status where updated_at < now() - interval '1 hour'
             returning detector_group, topic, updated_at)
         select detector_group, topic, count(*), extract(epoch from now() - max(updated_at))::float8
         from gone group by 1, 2 order by 1, 2",
        &[],
    )?;
    transaction.commit()?;
    let line = |row: &postgres::Row| Forgotten {
        group: row.get(0),
        topic: row.get(1),
        partitions: row.get(2),
        age: row.get(3),
    };
    Ok(rows.iter().map(line).collect())
}

/// Adds devices, or updates the time at which they were last seen. A full table takes no new ones.
fn write_devices(transaction: &mut Transaction<'_>, devices: &[String]) -> Result<(), postgres::Error> {
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
