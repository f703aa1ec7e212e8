//! What the detector writes of itself every few seconds, also when nothing is abnormal: `detector_status` and `coverage`.

use std::sync::Arc;

use postgres::Client;
use time::OffsetDateTime;

use super::{Failure, open};
use crate::config::resolved::Postgres;
use crate::health::{Health, Part};

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

    fn write_part(&self, client: &mut Client, part: &Arc<Part>) -> Result<(), Failure> {
        let worker = format!("{}/{}", self.instance, part.name);
        let state = part.state().describe().to_owned();
        let coverage = part.take_coverage();
        let written = client.transaction().and_then(|mut transaction| {
            for (partition, status) in part.partitions() {
                transaction.execute(
                    "insert into detector_status (detector_group, topic, partition, worker, state, committed, end_offset,
                        lag, event_time, series, settings_hash, updated_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now())
                     on conflict (detector_group, topic, partition) do update set worker = excluded.worker,
                        state = excluded.state, committed = excluded.committed, end_offset = excluded.end_offset,
                        lag = excluded.lag, event_time = coalesce(excluded.event_time, detector_status.event_time),
                        series = excluded.series, settings_hash = excluded.settings_hash, updated_at = now()",
                    &[
                        &self.group,
                        &self.topic,
                        &partition,
                        &worker,
                        &state,
                        &status.committed,
                        &status.end,
                        &status.lag(),
                        &status.event_time.map(crate::event::Instant::to_time),
                        &i64::try_from(status.series).unwrap_or(i64::MAX),
                        &self.settings_hash,
                    ],
                )?;
            }
            for ((minute, partition), tally) in &coverage {
                let minute = OffsetDateTime::from_unix_timestamp(minute * 60).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                transaction.execute(
                    "insert into coverage (minute, topic, partition, judged, learning, rejected)
                     values ($1, $2, $3, $4, $5, $6)
                     on conflict (minute, topic, partition) do update set judged = coverage.judged + excluded.judged,
                        learning = coverage.learning + excluded.learning, rejected = coverage.rejected + excluded.rejected",
                    &[
                        &minute,
                        &self.topic,
                        partition,
                        &(tally.judged as i64),
                        &(tally.learning as i64),
                        &(tally.rejected as i64),
                    ],
                )?;
            }
            transaction.commit()
        });
        if written.is_err() {
            part.cover(coverage);
        }
        Ok(written?)
    }
}
