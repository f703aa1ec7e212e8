//! What the detector writes of itself every few seconds, also when nothing is abnormal: `detector_status` and `coverage`.

use std::collections::BTreeMap;

use postgres::{Client, Transaction};
use time::OffsetDateTime;

use super::{Failure, open};
use crate::config::resolved::Postgres;
use crate::event::Instant;
use crate::health::{Health, Part, PartitionStatus, Tally};

/// One connection, made when it is needed.
pub struct Heartbeat {
    settings: Postgres,
    group: String,
    topic: String,
    instance: String,
    settings_hash: String,
    /// What the hash stands for.
    detection: serde_json::Value,
    client: Option<Client>,
}

impl Heartbeat {
    /// Connects to nothing yet.
    pub fn new(
        settings: &Postgres,
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

    /// Writes what the workers say now. What was counted is given back when it could not be written.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn write(&mut self, health: &Health) -> Result<(), String> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let mut client = open(&self.settings)?;
                let sql =
                    "insert into detector_settings (settings_hash, settings) values ($1, $2) on conflict do nothing";
                let known = client.execute(sql, &[&self.settings_hash, &self.detection]);
                known.map_err(|e| Failure::from(e).sentence())?;
                client
            }
        };
        for part in health.parts() {
            self.write_part(&mut client, &part).map_err(|e| e.sentence())?;
        }
        self.client = Some(client);
        Ok(())
    }

    fn write_part(&self, client: &mut Client, part: &Part) -> Result<(), Failure> {
        let coverage = part.take_coverage();
        let written = client.transaction().and_then(|mut transaction| {
            self.write_status(&mut transaction, part)?;
            self.write_coverage(&mut transaction, &coverage)?;
            transaction.commit()
        });
        if written.is_err() {
            part.cover(coverage);
        }
        Ok(written?)
    }

    fn write_status(&self, transaction: &mut Transaction<'_>, part: &Part) -> Result<(), postgres::Error> {
        let worker = format!("{}/{}", self.instance, part.name);
        let state = part.state();
        let partitions = part.partitions();
        if partitions.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&PartitionStatus) -> Option<i64>| partitions.values().map(of).collect::<Vec<_>>();
        transaction.execute(
            "insert into detector_status (detector_group, topic, worker, state, settings_hash, partition, committed,
                end_offset, lag, series, event_time, updated_at)
             select $1, $2, $3, $4, $5, p.*, now()
             from unnest($6::int[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[]) as p
             on conflict (detector_group, topic, partition) do update set worker = excluded.worker,
                state = excluded.state, committed = excluded.committed, end_offset = excluded.end_offset,
                lag = excluded.lag, event_time = coalesce(excluded.event_time, detector_status.event_time),
                series = excluded.series, settings_hash = excluded.settings_hash, updated_at = now()",
            &[
                &self.group,
                &self.topic,
                &worker,
                &state.describe(),
                &self.settings_hash,
                &partitions.keys().collect::<Vec<_>>(),
                &each(|status| Some(status.committed)),
                &each(|status| status.end),
                &each(PartitionStatus::lag),
                &each(|status| i64::try_from(status.series).ok()),
                &partitions.values().map(|status| status.event_time.map(Instant::to_time)).collect::<Vec<_>>(),
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
        let minute = |at: &i64| OffsetDateTime::from_unix_timestamp(at * 60).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let each = |of: fn(&Tally) -> u64| coverage.values().map(|tally| of(tally) as i64).collect::<Vec<_>>();
        transaction.execute(
            "insert into coverage (topic, minute, partition, judged, learning, rejected)
             select $1, c.* from unnest($2::timestamptz[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[]) as c
             on conflict (minute, topic, partition) do update set judged = coverage.judged + excluded.judged,
                learning = coverage.learning + excluded.learning, rejected = coverage.rejected + excluded.rejected",
            &[
                &self.topic,
                &coverage.keys().map(|(at, _)| minute(at)).collect::<Vec<_>>(),
                &coverage.keys().map(|(_, partition)| partition).collect::<Vec<_>>(),
                &each(|tally| tally.judged),
                &each(|tally| tally.learning),
                &each(|tally| tally.rejected),
            ],
        )?;
        Ok(())
    }
}
