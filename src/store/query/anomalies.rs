//! Queries for the rows of anomalies.

use postgres::types::ToSql;
use postgres::{Error, GenericClient};

use super::conditions::WhereClause;
use super::{PRESENT, reviews};
use crate::archive::{
    AnomalyAddress, AnomalyPage, AnomalyQueries, Filter, NoAnswer, Outside, PUNCTUAL, PageKey, Ranking, Review,
    StoredAnomaly,
};
use crate::event::Timestamp;
use crate::store::reader::PostgresArchive;
use crate::store::row;

/// Order of pages; the first column leads the indexes, the others only break ties.
const ORDER: &str = "event_time desc, source_topic desc, source_generation desc, source_partition desc, \
     source_offset desc, source_index desc, kind desc";
/// Maximum number of candidate rows of other times.
const MAX_CANDIDATES: i64 = 20_000;
/// Condition of rows whose own times are far from their detection, as in the index `anomalies_untimely`.
const UNTIMELY: &str =
    "(detected_at - event_time > interval '1 minute' or detected_at - event_time < interval '-1 minute')";

/// Order of anomalies with times outside of a range: the newest detection first.
const DETECTION_ORDER: &str = "detected_at desc, source_topic, source_generation desc, source_partition, \
     source_offset desc, source_index, kind";

impl AnomalyQueries for PostgresArchive {
    fn newest(&self, filter: &Filter, before: Option<&PageKey>, limit: u32) -> Result<AnomalyPage, NoAnswer> {
        self.ask(|client| newest(client, filter, before, limit))
    }

    fn newer(&self, filter: &Filter, after: &PageKey, limit: u32) -> Result<AnomalyPage, NoAnswer> {
        self.ask(|client| newer(client, filter, after, limit))
    }

    fn ranked(&self, filter: &Filter, order: Ranking, limit: u32) -> Result<Vec<StoredAnomaly>, NoAnswer> {
        self.ask(|client| ranked(client, filter, order, limit))
    }

    fn find(&self, address: &AnomalyAddress) -> Result<Option<StoredAnomaly>, NoAnswer> {
        self.ask(|client| find(client, address))
    }

    fn outside(&self, filter: &Filter, since: Timestamp, limit: u32) -> Result<Outside, NoAnswer> {
        self.ask(|client| outside(client, filter, since, limit))
    }

    fn fresh(&self, filter: &Filter, since: Timestamp) -> Result<u64, NoAnswer> {
        self.ask(|client| fresh(client, filter, since))
    }
}

fn ranked(
    client: &mut impl GenericClient,
    filter: &Filter,
    order: Ranking,
    limit: u32,
) -> Result<Vec<StoredAnomaly>, Error> {
    let mut conditions = WhereClause::of(filter);
    let most = conditions.value(i64::from(limit));
    let first = match order {
        Ranking::Score => "score desc nulls last",
        Ranking::Device => "device_id",
        Ranking::Metric => "metric_name",
    };
    let (columns, text) = (row::stored_columns(), &conditions.text);
    let sql = format!("select {columns} from anomalies{text} order by {first}, {ORDER} limit ${most}");
    records(client, &sql, &conditions.values())
}

/// Returns the statement that reads the anomaly at an address, of the newest generation if the address names none.
fn sql_of_find() -> String {
    let columns = row::stored_columns();
    format!(
        "select {columns} from anomalies
         where source_topic = $1 and source_partition = $2 and source_offset = $3
             and ($4::integer is null or source_generation = $4)
             and ($5::integer is null or source_index = $5)
             and ($6::text is null or kind = $6) and event_time >= $7
         order by source_generation desc, source_index, kind limit 1"
    )
}

fn find(client: &mut impl GenericClient, address: &AnomalyAddress) -> Result<Option<StoredAnomaly>, Error> {
    let AnomalyAddress { topic, generation, partition, offset, value } = address;
    let (index, kind) = value.clone().unzip();
    let sql = sql_of_find();
    let mut found = None;
    for since in row::sinces() {
        let values: [&(dyn ToSql + Sync); 7] = [topic, partition, offset, generation, &index, &kind, &since];
        found = records(client, &sql, &values)?.pop();
        // Old rows may be of a newer generation than recent ones.
        if found.as_ref().is_some_and(|found| generation.is_some() || found.is_newest_generation) {
            break;
        }
    }
    Ok(found)
}

fn outside(client: &mut impl GenericClient, filter: &Filter, since: Timestamp, limit: u32) -> Result<Outside, Error> {
    let mut conditions = WhereClause::of(&Filter { from: None, to: None, ..filter.clone() });
    conditions.and(UNTIMELY, Vec::new());
    conditions.and(&format!("detected_at >= ? and detected_at < {PRESENT}"), vec![Box::new(since.to_time())]);
    let (Some(from), Some(to)) = (filter.from, filter.to) else { return Ok(Outside::default()) };
    // If all clocks are wrong, most candidates are inside of the range, so only the newest are checked.
    let newest = format!("select * from anomalies{} order by detected_at desc limit {MAX_CANDIDATES}", conditions.text);
    let (from, to) = (conditions.value(from.to_time()), conditions.value(to.to_time()));
    let one_more = conditions.value(i64::from(limit) + 1);
    let columns = row::stored_columns();
    let sql = format!(
        "select {columns} from ({newest}) as newest where event_time < ${from} or event_time >= ${to}
         order by {DETECTION_ORDER} limit ${one_more}"
    );
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize || has_more_candidates(client, since)?;
    records.truncate(limit as usize);
    Ok(Outside { records, is_more })
}

/// Returns whether there are more candidates than [`outside`] checks.
fn has_more_candidates(client: &mut impl GenericClient, since: Timestamp) -> Result<bool, Error> {
    let sql = format!(
        "select count(*) from (select from anomalies where {UNTIMELY} and detected_at >= $1
         and detected_at < {PRESENT} limit {MAX_CANDIDATES}) as newest"
    );
    Ok(client.query_one(&sql, &[&since.to_time()])?.try_get::<_, i64>(0)? == MAX_CANDIDATES)
}

fn fresh(client: &mut impl GenericClient, filter: &Filter, since: Timestamp) -> Result<u64, Error> {
    // Two indexes are used: one for rows whose times are near their detection, one for all others.
    let near = |millis| Timestamp::from_millis(since.millis() + millis).unwrap_or(since);
    let open = Filter { from: None, to: None, ..filter.clone() };
    let mut count = 0_i64;
    for (is_near, condition) in [(true, format!("not {UNTIMELY}")), (false, UNTIMELY.to_owned())] {
        let range = Filter { from: is_near.then(|| near(-PUNCTUAL)), ..open.clone() };
        let mut conditions = WhereClause::of(&range);
        conditions.and(&condition, Vec::new());
        let recent = format!("detected_at >= ? and detected_at < {PRESENT}");
        conditions.and(&recent, vec![Box::new(since.to_time())]);
        let sql = format!("select count(*) from anomalies{}", conditions.text);
        count += client.query_one(&sql, &conditions.values())?.try_get::<_, i64>(0)?;
    }
    Ok(count.max(0) as u64)
}

/// Ranges in days that are searched one after another until there are enough rows. With a limit on the event's time the
/// server skips all partitions before it.
const RANGES: [i64; 2] = [7, 70];

fn days_from(time: Timestamp, days: i64) -> Option<Timestamp> {
    Timestamp::from_millis(time.millis() + days * 86_400_000)
}

/// Reads anomalies as [`AnomalyQueries::newest`] does, also inside a transaction.
///
/// # Errors
/// Returns the error of the database.
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
    let (columns, text) = (row::stored_columns(), &conditions.text);
    let sql = format!("select {columns} from anomalies{text} order by {ORDER} limit ${one_more}");
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().filter(|_| is_more).and_then(|last| PageKey::of(&last.anomaly));
    Ok(AnomalyPage { records, next })
}

fn newer(client: &mut impl GenericClient, filter: &Filter, after: &PageKey, limit: u32) -> Result<AnomalyPage, Error> {
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
    let (columns, text, order) = (row::stored_columns(), &conditions.text, ORDER.replace(" desc", ""));
    let sql = format!("select {columns} from anomalies{text} order by {order} limit ${one_more}");
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    records.reverse();
    let next = records.first().filter(|_| is_more).and_then(|first| PageKey::of(&first.anomaly));
    Ok(AnomalyPage { records, next })
}

fn records(
    client: &mut impl GenericClient,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<StoredAnomaly>, Error> {
    let rows = client.query(sql, values)?;
    let mut records = rows.iter().map(row::stored).collect::<Result<Vec<_>, _>>()?;
    let mut reviews = reviews::latest(client, records.iter().map(|record| &record.anomaly))?;
    for record in &mut records {
        record.review = reviews.remove(&record.anomaly.id()).unwrap_or(Review::None);
    }
    Ok(records)
}
