//! Stores and reads reviews of anomalies, in a table of their own. The newest review of an anomaly counts; rows never
//! change.

use std::collections::{BTreeMap, HashMap};

use postgres::types::ToSql;
use postgres::{Client, Error, GenericClient};
use time::OffsetDateTime;

use crate::anomaly::{Anomaly, AnomalyId};
use crate::archive::{NewReview, NoAnswer, Quality, Review, ReviewQueries, ReviewRecord};
use crate::event::Timestamp;
use crate::store::reader::PostgresArchive;
use crate::store::row::{self, IDENTITY, identity_values};

/// Returns the query for the newest review of each anomaly in a range of event time.
fn newest_reviews() -> String {
    format!(
        "(select distinct on ({IDENTITY}) review, event_time from reviews where event_time >= $1 and event_time < $2
         order by {IDENTITY}, id desc) as latest"
    )
}

impl ReviewQueries for PostgresArchive {
    fn add_review(&self, review: &NewReview) -> Result<bool, NoAnswer> {
        let Some(time) = self.ask(|client| event_time(client, &review.anomaly))? else { return Ok(false) };
        self.ask_reviewer(|client| add(client, review, time))?;
        Ok(true)
    }

    fn try_review(&self) -> Result<(), NoAnswer> {
        if self.has_review_role() { self.ask_reviewer(try_add) } else { Ok(()) }
    }

    fn reviews_of(&self, id: &AnomalyId) -> Result<Vec<ReviewRecord>, NoAnswer> {
        self.ask(|client| reviews_of(client, id))
    }

    fn reviews(&self, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, NoAnswer> {
        self.ask(|client| counts(client, from, to))
    }

    fn quality(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, NoAnswer> {
        self.ask(|client| quality(client, from, to))
    }
}

/// Reads the reviews of an anomaly, the newest first.
fn reviews_of(client: &mut Client, id: &AnomalyId) -> Result<Vec<ReviewRecord>, Error> {
    let sql = format!(
        "select review, note, made_by, made_at from reviews
         where ({IDENTITY}) = ($1, $2, $3, $4, $5, $6) order by id desc limit 100"
    );
    let rows = client.query(&sql, &identity_values(id))?;
    let record = |row: &postgres::Row| {
        Ok(ReviewRecord {
            review: review(row.try_get(0)?),
            note: row.try_get(1)?,
            by: row.try_get(2)?,
            at: Timestamp::from(row.try_get::<_, OffsetDateTime>(3)?),
        })
    };
    rows.iter().map(record).collect()
}

/// Counts the anomalies in a range of event time by their newest review.
fn counts(client: &mut Client, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, Error> {
    let newest = newest_reviews();
    let sql = format!("select review, count(*) from {newest} where review <> 'none' group by 1 order by 1");
    let rows = client.query(&sql, &[&from.to_time(), &to.to_time()])?;
    rows.iter().map(|row| Ok((review(row.try_get(0)?), whole(row, 1)?))).collect()
}

/// Counts all anomalies, and those with a label, per day of a range.
const DAILY_TOTALS: &str = "
    select date_trunc('day', minute, 'UTC'), sum(anomalies)::bigint, sum(labelled)::bigint
    from anomaly_minutes where minute >= $1 and minute < $2 group by 1";

/// Counts the anomalies per day of a range, in total and by their newest review.
fn quality(client: &mut Client, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, Error> {
    let range: [&(dyn ToSql + Sync); 2] = [&from.to_time(), &to.to_time()];
    let mut days = BTreeMap::new();
    for row in client.query(DAILY_TOTALS, &range)? {
        let day = Timestamp::from(row.try_get::<_, OffsetDateTime>(0)?);
        let (all, labelled) = (whole(&row, 1)?, whole(&row, 2)?);
        days.insert(day, Quality { day, right: 0, wrong: 0, expected: 0, labelled, all });
    }
    let newest = newest_reviews();
    let sql = format!("select date_trunc('day', event_time, 'UTC'), review, count(*) from {newest} group by 1, 2");
    for row in client.query(&sql, &range)? {
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

/// Reads the newest review of each of some anomalies.
///
/// # Errors
/// Returns the error of the database.
pub(crate) fn latest<'a>(
    client: &mut impl GenericClient,
    anomalies: impl Iterator<Item = &'a Anomaly>,
) -> Result<HashMap<AnomalyId, Review>, Error> {
    let (mut topics, mut generations) = (Vec::new(), Vec::new());
    let (mut partitions, mut offsets) = (Vec::new(), Vec::new());
    let (mut indices, mut kinds) = (Vec::new(), Vec::new());
    for Anomaly { source, kind, .. } in anomalies {
        topics.push(source.topic.as_str());
        generations.push(source.generation);
        partitions.push(source.partition);
        offsets.push(source.offset);
        indices.push(source.index);
        kinds.push(kind.as_str());
    }
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "select distinct on ({IDENTITY}) {IDENTITY}, review from reviews
         where ({IDENTITY}) in (select * from
            unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[], $5::integer[], $6::text[]))
         order by {IDENTITY}, id desc"
    );
    let rows = client.query(&sql, &[&topics, &generations, &partitions, &offsets, &indices, &kinds])?;
    let latest = |row: &postgres::Row| Ok((row::identity(row)?, review(row.try_get("review")?)));
    rows.iter().map(latest).collect()
}

/// Reads the time of an anomaly's event; `None` if there is no such anomaly.
fn event_time(client: &mut Client, id: &AnomalyId) -> Result<Option<OffsetDateTime>, Error> {
    let sql = format!(
        "select event_time from anomalies where ({IDENTITY}) = ($1, $2, $3, $4, $5, $6) and event_time >= $7 limit 1"
    );
    for since in row::sinces() {
        let values = identity_values(id).into_iter().chain([&since as &(dyn ToSql + Sync)]).collect::<Vec<_>>();
        if let Some(row) = client.query_opt(&sql, &values)? {
            return row.try_get(0).map(Some);
        }
    }
    Ok(None)
}

/// Checks that the role of this connection could add a review, without adding one. To plan the statement takes the same
/// permissions as to run it.
///
/// # Errors
/// Returns the error of the database.
pub fn try_add(client: &mut Client) -> Result<(), Error> {
    client.batch_execute(&format!(
        "explain insert into reviews ({IDENTITY}, event_time, review, note, made_by) \
         values (null, null, null, null, null, null, null, null, null, null)"
    ))
}

/// Adds a review to the table.
fn add(client: &mut Client, new: &NewReview, time: OffsetDateTime) -> Result<(), Error> {
    let sql = format!(
        "insert into reviews ({IDENTITY}, event_time, review, note, made_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    );
    let NewReview { anomaly, review, note, by } = new;
    let review = review.as_str();
    let rest: [&(dyn ToSql + Sync); 4] = [&time, &review, note, by];
    let values = identity_values(anomaly).into_iter().chain(rest).collect::<Vec<_>>();
    client.execute(&sql, &values).map(drop)
}

fn review(text: &str) -> Review {
    Review::parse(text).unwrap_or(Review::None)
}

fn whole(row: &postgres::Row, column: usize) -> Result<u64, Error> {
    Ok(row.try_get::<_, i64>(column)?.max(0) as u64)
}
