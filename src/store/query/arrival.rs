//! What is known by the time of its arrival rather than by its own time: what came, what was detected, what was refused.

use postgres::{Error, GenericClient};
use time::OffsetDateTime;

use super::conditions::WhereClause;
use super::{get, records};
use crate::archive::{ActivityRow, DeadLetter, Excerpt, Filter, Known, MOST_DEVICES, Outside, PUNCTUAL};
use crate::event::Timestamp;
use crate::health::{Activity, Tally};
use crate::store::row;

/// Rows of other times that are looked at, at the most.
const LOOKED_AT: i64 = 20_000;
/// Rows whose own times are far from their detection: as the index `anomalies_untimely` has it.
const UNTIMELY: &str =
    "(detected_at - event_time > interval '1 minute' or detected_at - event_time < interval '-1 minute')";

/// See [`crate::archive::Archive::activity`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn activity(client: &mut impl GenericClient, from: Timestamp, grain: i64) -> Result<Vec<ActivityRow>, Error> {
    let sql = "select date_bin(make_interval(secs => $2), minute, $1), sum(judged)::bigint, sum(learning)::bigint, sum(rejected)::bigint, sum(late)::bigint, \
               sum(late_seconds)::bigint, sum(early)::bigint, sum(early_seconds)::bigint, sum(ignored)::bigint \
               from activity where minute >= $1 group by 1 order by 1";
    let whole = |row, column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    let line = |row| {
        let tally = Tally {
            judged: whole(row, 1)?,
            learning: whole(row, 2)?,
            rejected: whole(row, 3)?,
            ignored: whole(row, 8)?,
        };
        let activity = Activity {
            tally,
            late: whole(row, 4)?,
            late_seconds: get(row, 5)?,
            early: whole(row, 6)?,
            early_seconds: get(row, 7)?,
        };
        Ok(ActivityRow { minute: Timestamp::from(get::<OffsetDateTime>(row, 0)?), activity })
    };
    client.query(sql, &[&from.to_time(), &(grain.max(1) as f64 / 1000.0)])?.iter().map(line).collect()
}

/// See [`crate::archive::Archive::outside`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn outside(
    client: &mut impl GenericClient,
    filter: &Filter,
    since: Timestamp,
    limit: u32,
) -> Result<Outside, Error> {
    let mut conditions = WhereClause::of(&Filter { from: None, to: None, ..filter.clone() });
    conditions.and(UNTIMELY, Vec::new());
    conditions.and("detected_at >= ?", vec![Box::new(since.to_time())]);
    let (Some(from), Some(to)) = (filter.from, filter.to) else { return Ok(Outside::default()) };
    // Where all clocks are off, most of these are in the range all the same: only the newest are looked at.
    let newest = format!("select * from anomalies{} order by detected_at desc limit {LOOKED_AT}", conditions.text);
    let (from, to) = (conditions.value(from.to_time()), conditions.value(to.to_time()));
    let one_more = conditions.value(i64::from(limit) + 1);
    let columns = row::COLUMNS;
    let order = "detected_at desc, source_topic, source_partition, source_offset desc, source_index, kind";
    let sql = format!(
        "select {columns} from ({newest}) as newest where event_time < ${from} or event_time >= ${to} \
         order by {order} limit ${one_more}"
    );
    let mut records = records(client, &sql, &conditions.values())?;
    let mut is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    if !is_more {
        let sql = format!(
            "select count(*) from (select from anomalies where {UNTIMELY} and detected_at >= $1 limit {LOOKED_AT}) as newest"
        );
        is_more = client.query_one(&sql, &[&since.to_time()])?.try_get::<_, i64>(0)? == LOOKED_AT;
    }
    Ok(Outside { records, is_more })
}

/// See [`crate::archive::Archive::fresh`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn fresh(client: &mut impl GenericClient, filter: &Filter, since: Timestamp) -> Result<u64, Error> {
    // Two indexes: the times of most rows are near their detection, the others are in an index of their own.
    let near = |millis| Timestamp::from_millis(since.millis() + millis).unwrap_or(since);
    let open = Filter { from: None, to: None, ..filter.clone() };
    let mut count = 0_i64;
    for (is_near, condition) in [(true, format!("not {UNTIMELY}")), (false, UNTIMELY.to_owned())] {
        let range = Filter { from: is_near.then(|| near(-PUNCTUAL)), ..open.clone() };
        let mut conditions = WhereClause::of(&range);
        conditions.and(&condition, Vec::new());
        conditions.and("detected_at >= ?", vec![Box::new(since.to_time())]);
        let sql = format!("select count(*) from anomalies{}", conditions.text);
        count += client.query_one(&sql, &conditions.values())?.try_get::<_, i64>(0)?;
    }
    Ok(count.max(0) as u64)
}

/// See [`crate::archive::Archive::refused`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn refused(client: &mut impl GenericClient, since: Timestamp) -> Result<u64, Error> {
    let sql = "select count(*) from sink_rejects where rejected_at >= $1";
    Ok(client.query_one(sql, &[&since.to_time()])?.try_get::<_, i64>(0)?.max(0) as u64)
}

/// See [`crate::archive::Archive::dead_letters`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn dead_letters(client: &mut impl GenericClient, limit: u32) -> Result<Vec<DeadLetter>, Error> {
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
}

/// See [`crate::archive::Archive::knows`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn knows(client: &mut impl GenericClient, device: &str) -> Result<Known, Error> {
    let sql = "select (select seen_at from seen_devices where device_id = $1), exists (select from seen_devices), \
               (select reltuples::float8 from pg_class where oid = 'seen_devices'::regclass)";
    let row = client.query_one(sql, &[&device])?;
    Ok(match (get::<Option<OffsetDateTime>>(&row, 0)?, get::<bool>(&row, 1)?) {
        (Some(seen), _) => Known::Seen(Timestamp::from(seen)),
        (None, true) if get::<f64>(&row, 2)? < MOST_DEVICES => Known::Unknown,
        _ => Known::Untold,
    })
}

/// See [`crate::archive::Archive::clock`].
///
/// # Errors
/// See [`newest`](super::newest).
pub fn clock(client: &mut impl GenericClient) -> Result<Timestamp, Error> {
    Ok(Timestamp::from(get::<OffsetDateTime>(&client.query_one("select clock_timestamp()", &[])?, 0)?))
}
