//! What is read from the tables: plain statements that an index answers, each with its limits. Counts are made over a
//! range of time, never over the whole table. Who asks, and what happens when nobody answers, is not known here.

mod arrival;
mod conditions;
mod counts;

use postgres::types::ToSql;
use postgres::{Error, GenericClient};
use time::OffsetDateTime;

pub use arrival::{activity, clock, dead_letters, fresh, knows, outside, refused};
pub use counts::{Since, by_device, by_metric, by_time, lanes};

use conditions::WhereClause;

use super::{reviews, row};
use crate::anomaly::Anomaly;
use crate::archive::{
    AnomalyPage, ConditionRow, CoverageRow, Cursor, Filter, PageKey, Ranking, Review, StatusRow, StoredAnomaly,
};
use crate::event::Timestamp;
use crate::health::ConditionSeverity;

/// Columns of the order of pages; the first leads the indexes, the others only break ties.
const ORDER: &str = "event_time desc, source_topic desc, source_partition desc, source_offset desc, source_index desc, \
     kind desc";
/// See [`crate::archive::Archive::newest`].
///
/// # Errors
/// The database's; so for all that follow.
pub fn newest(
    client: &mut impl GenericClient,
    filter: &Filter,
    before: Option<&PageKey>,
    limit: u32,
) -> Result<AnomalyPage, Error> {
    let anchor = before.map_or_else(Timestamp::now, |key| key.time);
    for days in RANGES.into_iter().filter(|_| filter.from.is_none()) {
        let near = Filter { from: days_from(anchor, -days), ..filter.clone() };
        let page = newest_of(client, &near, before, limit)?;
        if page.next.is_some() {
            return Ok(page);
        }
    }
    newest_of(client, filter, before, limit)
}

/// Ranges that are looked at one after another until they have enough, in days: a bound on the event's time spares the server
/// all the partitions beyond it.
const RANGES: [i64; 2] = [7, 70];

fn days_from(time: Timestamp, days: i64) -> Option<Timestamp> {
    Timestamp::from_millis(time.millis() + days * 86_400_000)
}

fn newest_of(
    client: &mut impl GenericClient,
    filter: &Filter,
    before: Option<&PageKey>,
    limit: u32,
) -> Result<AnomalyPage, Error> {
    let mut conditions = WhereClause::of(filter);
    if let Some(key) = before {
        conditions.beyond("<", key);
    }
    let one_more = conditions.value(i64::from(limit) + 1);
    let (columns, text) = (row::COLUMNS, &conditions.text);
    let sql = format!("select {columns} from anomalies{text} order by {ORDER} limit ${one_more}");
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().filter(|_| is_more).and_then(|last| PageKey::of(&last.anomaly));
    Ok(AnomalyPage { records, next })
}

/// See [`crate::archive::Archive::newer`].
///
/// # Errors
/// See [`newest`].
pub fn newer(
    client: &mut impl GenericClient,
    filter: &Filter,
    after: &PageKey,
    limit: u32,
) -> Result<AnomalyPage, Error> {
    for days in RANGES.into_iter().filter(|_| filter.to.is_none()) {
        let near = Filter { to: days_from(after.time, days), ..filter.clone() };
        let page = newer_of(client, &near, after, limit)?;
        if page.next.is_some() {
            return Ok(page);
        }
    }
    newer_of(client, filter, after, limit)
}

fn newer_of(
    client: &mut impl GenericClient,
    filter: &Filter,
    after: &PageKey,
    limit: u32,
) -> Result<AnomalyPage, Error> {
    let mut conditions = WhereClause::of(filter);
    conditions.beyond(">", after);
    let one_more = conditions.value(i64::from(limit) + 1);
    let (columns, text, order) = (row::COLUMNS, &conditions.text, ORDER.replace(" desc", ""));
    let sql = format!("select {columns} from anomalies{text} order by {order} limit ${one_more}");
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    records.reverse();
    let next = records.first().filter(|_| is_more).and_then(|first| PageKey::of(&first.anomaly));
    Ok(AnomalyPage { records, next })
}

/// See [`crate::archive::Archive::ranked`].
///
/// # Errors
/// See [`newest`].
pub fn ranked(
    client: &mut impl GenericClient,
    filter: &Filter,
    order: Ranking,
    limit: u32,
) -> Result<Vec<StoredAnomaly>, Error> {
    let mut conditions = WhereClause::of(filter);
    let most = conditions.value(i64::from(limit));
    let first = match order {
        // A deviation of 0 is farther than any number.
        Ranking::Score => "z_score is null desc, score desc",
        Ranking::Device => "device_id",
        Ranking::Metric => "metric_name",
    };
    let (columns, text) = (row::COLUMNS, &conditions.text);
    let sql = format!("select {columns} from anomalies{text} order by {first}, {ORDER} limit ${most}");
    records(client, &sql, &conditions.values())
}

/// See [`crate::archive::Archive::at`].
///
/// # Errors
/// See [`newest`].
pub fn at(
    client: &mut impl GenericClient,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Vec<StoredAnomaly>, Error> {
    for since in row::sinces() {
        let sql = format!(
            "select {} from anomalies where source_topic = $1 and source_partition = $2 and source_offset = $3 \
             and event_time >= $4 order by source_index, kind limit 100",
            row::COLUMNS
        );
        let records = records(client, &sql, &[&topic, &partition, &offset, &since])?;
        if !records.is_empty() {
            return Ok(records);
        }
    }
    Ok(Vec::new())
}

fn records(
    client: &mut impl GenericClient,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<StoredAnomaly>, Error> {
    let rows = client.query(sql, values)?;
    let anomalies = rows.iter().map(row::anomaly).collect::<Result<Vec<_>, _>>()?;
    let mut reviews = reviews::latest(client, anomalies.iter().map(|(anomaly, _)| anomaly))?;
    let record = |(anomaly, detected_at): (Anomaly, Timestamp)| {
        let review = reviews.remove(&anomaly.id()).unwrap_or(Review::None);
        StoredAnomaly { anomaly, detected_at, review }
    };
    Ok(anomalies.into_iter().map(record).collect())
}

/// See [`crate::archive::Archive::coverage`].
///
/// # Errors
/// See [`newest`].
pub fn coverage(
    client: &mut impl GenericClient,
    from: Timestamp,
    to: Timestamp,
    grain: i64,
) -> Result<Vec<CoverageRow>, Error> {
    let sql = "select date_bin(make_interval(secs => $3), minute, $1), sum(judged)::bigint, sum(learning)::bigint, \
               sum(rejected)::bigint from coverage where minute >= $1 and minute < $2 group by 1 order by 1";
    let rows = client.query(sql, &[&from.to_time(), &to.to_time(), &(grain.max(1) as f64 / 1000.0)])?;
    let whole = |row, column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    let line = |row| {
        let minute = Timestamp::from(get::<OffsetDateTime>(row, 0)?);
        Ok(CoverageRow { minute, judged: whole(row, 1)?, learning: whole(row, 2)?, rejected: whole(row, 3)? })
    };
    rows.iter().map(line).collect()
}

/// See [`crate::archive::Archive::search`].
///
/// # Errors
/// See [`newest`].
pub fn search(client: &mut impl GenericClient, text: &str, limit: u32) -> Result<Vec<String>, Error> {
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
}

/// See [`crate::archive::Archive::position`].
///
/// # Errors
/// See [`newest`].
pub fn position(client: &mut impl GenericClient) -> Result<Cursor, Error> {
    let rows = client.query("select id, next_offset from sink_offsets", &[])?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<_, Error>>().map(Cursor)
}

/// See [`crate::archive::Archive::status`].
///
/// # Errors
/// See [`newest`].
pub fn status(client: &mut impl GenericClient) -> Result<Vec<StatusRow>, Error> {
    let sql = "select detector_group, topic, partition, worker, state, committed, lag, event_time, series, \
               settings_hash, updated_at, extract(epoch from clock_timestamp() - updated_at)::float8, \
               high_watermark, judged, learning, rejected, arrived_at, \
               extract(epoch from reported_at - updated_at)::float8 \
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
        })
    };
    client.query(sql, &[])?.iter().map(line).collect()
}

/// See [`crate::archive::Archive::conditions`].
///
/// # Errors
/// See [`newest`].
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

/// See [`crate::archive::Archive::settings`].
///
/// # Errors
/// See [`newest`].
pub fn settings(client: &mut impl GenericClient, hash: &str) -> Result<Option<Vec<(String, String)>>, Error> {
    let sql = "select settings from detector_settings where settings_hash = $1";
    let Some(row) = client.query_opt(sql, &[&hash])? else { return Ok(None) };
    let settings: serde_json::Value = row.try_get(0)?;
    let pair = |(name, value): (&String, &serde_json::Value)| {
        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    Ok(settings.as_object().map(|settings| settings.iter().map(pair).collect()))
}

fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a postgres::Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
}
