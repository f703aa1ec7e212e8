//! What people say of anomalies: rows of their own, of which the newest holds. The record of detection is never touched.

use std::collections::{BTreeMap, HashMap};

use postgres::{Error, GenericClient};
use time::OffsetDateTime;

use super::row;
use crate::anomaly::RecordId;
use crate::archive::{NewReview, Quality, Review, ReviewRecord};
use crate::event::Timestamp;

/// All marks of one record, newest first.
///
/// # Errors
/// The database's; so for all that follow.
pub fn of(
    client: &mut impl GenericClient,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Vec<ReviewRecord>, Error> {
    let sql = "select mark, note, made_by, made_at from marks \
               where source_topic = $1 and source_partition = $2 and source_offset = $3 order by id desc limit 100";
    let rows = client.query(sql, &[&topic, &partition, &offset])?;
    let mark = |row: &postgres::Row| {
        Ok(ReviewRecord {
            review: review(row.try_get(0)?),
            note: row.try_get(1)?,
            by: row.try_get(2)?,
            at: Timestamp::from(row.try_get::<_, OffsetDateTime>(3)?),
        })
    };
    rows.iter().map(mark).collect()
}

/// The newest mark of each of some records, by topic, partition and offset.
///
/// # Errors
/// See [`of`].
pub fn latest<'a>(
    client: &mut impl GenericClient,
    sources: impl Iterator<Item = &'a RecordId>,
) -> Result<HashMap<(String, i32, i64), Review>, Error> {
    let (mut topics, mut partitions, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        topics.push(source.topic.as_str());
        partitions.push(source.partition);
        offsets.push(source.offset);
    }
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "select distinct on (source_topic, source_partition, source_offset) \
               source_topic, source_partition, source_offset, mark from marks \
               where (source_topic, source_partition, source_offset) in \
                   (select * from unnest($1::text[], $2::integer[], $3::bigint[])) \
               order by source_topic, source_partition, source_offset, id desc";
    let rows = client.query(sql, &[&topics, &partitions, &offsets])?;
    let mark = |row: &postgres::Row| Ok(((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), review(row.try_get(3)?)));
    rows.iter().map(mark).collect()
}

/// Time of an anomaly's event; `None` when there is no such anomaly.
///
/// # Errors
/// See [`of`].
pub fn event_time(client: &mut impl GenericClient, mark: &NewReview) -> Result<Option<OffsetDateTime>, Error> {
    let sql = "select event_time from anomalies \
               where source_topic = $1 and source_partition = $2 and source_offset = $3 and event_time >= $4 limit 1";
    for since in row::sinces() {
        if let Some(row) = client.query_opt(sql, &[&mark.topic, &mark.partition, &mark.offset, &since])? {
            return row.try_get(0).map(Some);
        }
    }
    Ok(None)
}

/// Adds a mark.
///
/// # Errors
/// See [`of`].
pub fn add(client: &mut impl GenericClient, mark: &NewReview, time: OffsetDateTime) -> Result<(), Error> {
    let sql = "insert into marks (source_topic, source_partition, source_offset, event_time, mark, note, made_by) \
               values ($1, $2, $3, $4, $5, $6, $7)";
    let NewReview { topic, partition, offset, review, note, by } = mark;
    client.execute(sql, &[topic, partition, offset, &time, &review.as_str(), note, by]).map(drop)
}

/// The newest mark of each anomaly of a range of event time.
const LATEST: &str = "(select distinct on (source_topic, source_partition, source_offset) mark, event_time from marks \
     where event_time >= $1 and event_time < $2 \
     order by source_topic, source_partition, source_offset, id desc) as latest";

/// How many anomalies of a range have each review.
///
/// # Errors
/// See [`of`].
pub fn reviews(client: &mut impl GenericClient, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, Error> {
    let sql = format!("select mark, count(*) from {LATEST} where mark <> 'none' group by 1 order by 1");
    let rows = client.query(&sql, &[&from.to_time(), &to.to_time()])?;
    rows.iter().map(|row| Ok((review(row.try_get(0)?), whole(row, 1)?))).collect()
}

/// Marks and labels, day by day; days without anomalies are absent.
///
/// # Errors
/// See [`of`].
pub fn quality(client: &mut impl GenericClient, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, Error> {
    let range: [&(dyn postgres::types::ToSql + Sync); 2] = [&from.to_time(), &to.to_time()];
    let totals = "select date_trunc('day', minute, 'UTC'), sum(anomalies)::bigint, sum(labelled)::bigint from anomaly_minutes \
                  where minute >= $1 and minute < $2 group by 1";
    let mut days = BTreeMap::new();
    for row in client.query(totals, &range)? {
        let day = Timestamp::from(row.try_get::<_, OffsetDateTime>(0)?);
        let (all, labelled) = (whole(&row, 1)?, whole(&row, 2)?);
        days.insert(day, Quality { day, right: 0, wrong: 0, expected: 0, labelled, all });
    }
    let marked = format!("select date_trunc('day', event_time, 'UTC'), mark, count(*) from {LATEST} group by 1, 2");
    for row in client.query(&marked, &range)? {
        let Some(day) = days.get_mut(&Timestamp::from(row.try_get::<_, OffsetDateTime>(0)?)) else { continue };
        match review(row.try_get(1)?) {
            Review::True => day.right = whole(&row, 2)?,
            Review::False => day.wrong = whole(&row, 2)?,
            Review::Expected => day.expected = whole(&row, 2)?,
            Review::None | Review::Ack => {}
        }
    }
    Ok(days.into_values().collect())
}

fn review(text: &str) -> Review {
    Review::parse(text).unwrap_or(Review::None)
}

fn whole(row: &postgres::Row, column: usize) -> Result<u64, Error> {
    Ok(row.try_get::<_, i64>(column)?.max(0) as u64)
}
