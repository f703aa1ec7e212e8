//! Queries for the reports of the detectors and the sink. Reports by time of arrival have no event time.

use postgres::{Error, GenericClient};
use time::OffsetDateTime;

use super::{PRESENT, get};
use crate::archive::{
    ActivityRow, ConditionRow, CoverageRow, Cursor, DeadLetter, Excerpt, Known, MOST_DEVICES, NoAnswer, ReportQueries,
    StatusRow,
};
use crate::event::Timestamp;
use crate::health::{Activity, ConditionSeverity, Tally};
use crate::store::reader::PostgresArchive;

impl ReportQueries for PostgresArchive {
    fn status(&self) -> Result<Vec<StatusRow>, NoAnswer> {
        self.ask(status)
    }

    fn conditions(&self) -> Result<Vec<ConditionRow>, NoAnswer> {
        self.ask(conditions)
    }

    fn coverage(&self, from: Timestamp, to: Timestamp, grain: i64) -> Result<Vec<CoverageRow>, NoAnswer> {
        self.ask(|client| {
    let sql = "select date_bin(make_interval(secs => $3), minute, $1), sum(judged)::bigint, sum(learning)::bigint, \
               sum(rejected)::bigint, sum(excluded)::bigint from coverage where minute >= $1 and minute < $2 group by 1 order by 1";
    let rows = client.query(sql, &[&from.to_time(), &to.to_time(), &(grain.max(1) as f64 / 1000.0)])?;
    let whole = |row, column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    let line = |row| {
        let minute = Timestamp::from(get::<OffsetDateTime>(row, 0)?);
        let [judged, learning, rejected, excluded] =
            [whole(row, 1)?, whole(row, 2)?, whole(row, 3)?, whole(row, 4)?];
        Ok(CoverageRow { minute, judged, learning, rejected, excluded })
    };
    rows.iter().map(line).collect()
        })
    }

    fn settings(&self, hash: &str) -> Result<Option<Vec<(String, String)>>, NoAnswer> {
        self.ask(|client| {
            let sql = "select settings from detector_settings where settings_hash = $1";
            let Some(row) = client.query_opt(sql, &[&hash])? else { return Ok(None) };
            let settings: serde_json::Value = row.try_get(0)?;
            let pair = |(name, value): (&String, &serde_json::Value)| {
                (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            Ok(settings.as_object().map(|settings| settings.iter().map(pair).collect()))
        })
    }

    fn search(&self, text: &str, limit: u32) -> Result<Vec<String>, NoAnswer> {
        self.ask(|client| {
            let mut pattern = "%".to_owned();
            for c in text.chars() {
                if ['%', '_', '\\'].contains(&c) {
                    pattern.push('\\');
                }
                pattern.push(c);
            }
            pattern.push('%');
            let sql = "select device_id from devices where device_id ilike $1 order by device_id limit $2";
            let rows = client.query(sql, &[&pattern, &i64::from(limit)])?;
            rows.iter().map(|row| get(row, 0)).collect()
        })
    }

    fn activity(&self, from: Timestamp, grain: i64) -> Result<Vec<ActivityRow>, NoAnswer> {
        self.ask(|client| {
            let sql = format!(
                "select date_bin(make_interval(secs => $2), minute, $1), sum(judged)::bigint, sum(learning)::bigint, \
         sum(rejected)::bigint, sum(late)::bigint, sum(late_seconds)::bigint, sum(early)::bigint, \
         sum(early_seconds)::bigint, sum(ignored)::bigint, sum(excluded)::bigint \
         from activity where minute >= $1 and minute < {PRESENT} group by 1 order by 1"
            );
            let whole = |row, column| get::<i64>(row, column).map(|n| n.max(0) as u64);
            let line = |row| {
                let tally = Tally {
                    judged: whole(row, 1)?,
                    learning: whole(row, 2)?,
                    rejected: whole(row, 3)?,
                    ignored: whole(row, 8)?,
                    excluded: whole(row, 9)?,
                };
                let activity = Activity {
                    tally,
                    late: whole(row, 4)?,
                    late_seconds: get(row, 5)?,
                    early: whole(row, 6)?,
                    early_seconds: get(row, 7)?,
                    ..Activity::default()
                };
                Ok(ActivityRow { minute: Timestamp::from(get::<OffsetDateTime>(row, 0)?), activity })
            };
            client.query(&sql, &[&from.to_time(), &(grain.max(1) as f64 / 1000.0)])?.iter().map(line).collect()
        })
    }

    fn refused(&self, since: Timestamp) -> Result<u64, NoAnswer> {
        self.ask(|client| {
            let sql = "select count(*) from sink_rejects where rejected_at >= $1";
            Ok(client.query_one(sql, &[&since.to_time()])?.try_get::<_, i64>(0)?.max(0) as u64)
        })
    }

    fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, NoAnswer> {
        self.ask(|client| {
    let sql = "select detector_group, topic, partition, record_offset, class, message, key, key_size, value, value_size, \
               rejected_at from rejected_samples \
               order by rejected_at desc, detector_group, topic, partition, record_offset desc limit $1";
    let line = |row: &postgres::Row| {
        let excerpt = |bytes, size| {
            let bytes = get::<Option<Vec<u8>>>(row, bytes)?;
            bytes.map(|bytes| Ok(Excerpt { bytes, size: get(row, size)? })).transpose()
        };
        Ok(DeadLetter {
            group: get(row, 0)?,
            topic: get(row, 1)?,
            partition: get(row, 2)?,
            offset: get(row, 3)?,
            class: get(row, 4)?,
            message: get(row, 5)?,
            key: excerpt(6, 7)?,
            value: excerpt(8, 9)?,
            at: Timestamp::from(get::<OffsetDateTime>(row, 10)?),
        })
    };
    client.query(sql, &[&i64::from(limit)])?.iter().map(line).collect()
        })
    }

    fn knows(&self, device: &str) -> Result<Known, NoAnswer> {
        self.ask(|client| {
    let sql = "select (select seen_at from seen_devices where device_id = $1), exists (select from seen_devices), \
               (select reltuples::float8 from pg_class where oid = 'seen_devices'::regclass)";
    let row = client.query_one(sql, &[&device])?;
    Ok(match (get::<Option<OffsetDateTime>>(&row, 0)?, get::<bool>(&row, 1)?) {
        (Some(seen), _) => Known::Seen(Timestamp::from(seen)),
        (None, true) if get::<f64>(&row, 2)? < MOST_DEVICES => Known::Unknown,
        _ => Known::Incomplete,
    })
        })
    }

    fn clock(&self) -> Result<Timestamp, NoAnswer> {
        self.ask(|client| {
            Ok(Timestamp::from(get::<OffsetDateTime>(&client.query_one("select clock_timestamp()", &[])?, 0)?))
        })
    }
}

/// Reads the last heartbeat of every partition.
///
/// # Errors
/// Returns the error of the database.
pub fn status(client: &mut impl GenericClient) -> Result<Vec<StatusRow>, Error> {
    let sql = "select detector_group, topic, partition, worker, state, committed, lag, event_time, series, \
               settings_hash, updated_at, extract(epoch from clock_timestamp() - updated_at)::float8, \
               high_watermark, judged, learning, rejected, arrived_at, \
               extract(epoch from reported_at - updated_at)::float8, excluded, ignored \
               from detector_status order by detector_group, topic, partition";
    let line = |row| {
        Ok(StatusRow {
            group: get(row, 0)?,
            topic: get(row, 1)?,
            partition: get(row, 2)?,
            worker: get(row, 3)?,
            state: get(row, 4)?,
            committed: get(row, 5)?,
            lag: get(row, 6)?,
            event_time: get::<Option<OffsetDateTime>>(row, 7)?.map(Timestamp::from),
            series: get(row, 8)?,
            settings_hash: get(row, 9)?,
            updated_at: Timestamp::from(get::<OffsetDateTime>(row, 10)?),
            age: get(row, 11)?,
            high_watermark: get(row, 12)?,
            judged: get(row, 13)?,
            learning: get(row, 14)?,
            rejected: get(row, 15)?,
            arrived_at: get::<Option<OffsetDateTime>>(row, 16)?.map(Timestamp::from),
            ahead: get(row, 17)?,
            excluded: get(row, 18)?,
            ignored: get(row, 19)?,
        })
    };
    client.query(sql, &[])?.iter().map(line).collect()
}

/// Reads the conditions of the detectors, degrading ones first.
///
/// # Errors
/// Returns the error of the database.
pub fn conditions(client: &mut impl GenericClient) -> Result<Vec<ConditionRow>, Error> {
    let sql = "select detector_group, topic, worker, code, severity, message, since, \
               extract(epoch from clock_timestamp() - updated_at)::float8 \
               from detector_conditions order by severity, detector_group, topic, worker, code";
    let line = |row| {
        Ok(ConditionRow {
            group: get(row, 0)?,
            topic: get(row, 1)?,
            worker: get(row, 2)?,
            code: get(row, 3)?,
            severity: ConditionSeverity::parse(&get::<String>(row, 4)?).unwrap_or(ConditionSeverity::Degraded),
            message: get(row, 5)?,
            since: Timestamp::from(get::<OffsetDateTime>(row, 6)?),
            age: get(row, 7)?,
        })
    };
    client.query(sql, &[])?.iter().map(line).collect()
}

/// Reads the next offset of each partition of the sink.
///
/// # Errors
/// Returns the error of the database.
pub fn position(client: &mut impl GenericClient) -> Result<Cursor, Error> {
    let rows = client.query("select id, next_offset from sink_offsets", &[])?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<_, Error>>().map(Cursor)
}
