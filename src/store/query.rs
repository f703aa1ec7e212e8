//! What is read from the tables: plain statements that an index answers, each with its limits. Counts are made over a
//! range of time, never over the whole table. Who asks, and what happens when nobody answers, is not known here.

use postgres::types::ToSql;
use postgres::{Error, GenericClient};
use time::OffsetDateTime;

use super::row;
use crate::archive::{BinCount, Bins, Count, CoverageRow, Filter, Key, LaneCount, NameCount, Page, Record, StatusRow};
use crate::event::Instant;

/// Conditions of one statement with their values, numbered as they are added.
#[derive(Default)]
struct Where {
    text: String,
    values: Vec<Box<dyn ToSql + Sync>>,
}

impl Where {
    /// Adds a condition; each `?` in it stands for the next of the values.
    fn and(&mut self, condition: &str, values: Vec<Box<dyn ToSql + Sync>>) {
        self.text += if self.text.is_empty() { " where " } else { " and " };
        let mut number = self.values.len();
        for part in condition.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) => {
                    number += 1;
                    self.text += &format!("{before}${number}");
                }
                None => self.text += part,
            }
        }
        self.values.extend(values);
    }

    fn equals(&mut self, column: &str, value: Option<String>) {
        if let Some(value) = value {
            self.and(&format!("{column} = ?"), vec![Box::new(value)]);
        }
    }

    fn range(&mut self, column: &str, from: Option<Instant>, to: Option<Instant>) {
        for (sign, time) in [(">=", from), ("<", to)] {
            if let Some(time) = time {
                self.and(&format!("{column} {sign} ?"), vec![Box::new(time.to_time())]);
            }
        }
    }

    fn of(filter: &Filter) -> Where {
        let mut conditions = Where::default();
        conditions.equals("device_id", filter.device.clone());
        conditions.equals("metric_name", filter.metric.clone());
        conditions.equals("severity", filter.severity.map(|s| s.as_str().to_owned()));
        conditions.range("event_time", filter.from, filter.to);
        conditions
    }

    /// Adds a value that the statement itself names; returns its number.
    fn value(&mut self, value: impl ToSql + Sync + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len()
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

/// Columns of the order of pages; the first leads the indexes, the others only break ties.
const ORDER: &str = "event_time desc, source_topic desc, source_partition desc, source_offset desc, source_index desc, \
     kind desc";
/// How many of each severity are in a group.
const COUNTS: &str = "count(*) filter (where severity = 'critical'), count(*) filter (where severity <> 'critical')";

/// See [`crate::archive::Archive::newest`].
///
/// # Errors
/// The database's; so for all that follow.
pub fn newest(
    client: &mut impl GenericClient,
    filter: &Filter,
    before: Option<&Key>,
    limit: u32,
) -> Result<Page, Error> {
    let mut conditions = Where::of(filter);
    if let Some(key) = before {
        // The first condition is implied by the second, but only the first can use the index.
        conditions.and("event_time <= ?", vec![Box::new(key.time.to_time())]);
        conditions.and(
            "(event_time, source_topic, source_partition, source_offset, source_index, kind) < (?, ?, ?, ?, ?, ?)",
            vec![
                Box::new(key.time.to_time()),
                Box::new(key.topic.clone()),
                Box::new(key.partition),
                Box::new(key.offset),
                Box::new(key.index),
                Box::new(key.kind.clone()),
            ],
        );
    }
    let one_more = conditions.value(i64::from(limit) + 1);
    let (columns, text) = (row::COLUMNS, &conditions.text);
    let sql = format!("select {columns} from anomalies{text} order by {ORDER} limit ${one_more}");
    let mut records = records(client, &sql, &conditions.values())?;
    let is_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().filter(|_| is_more).and_then(|last| Key::of(&last.anomaly));
    Ok(Page { records, next })
}

/// See [`crate::archive::Archive::at`].
///
/// # Errors
/// See [`newest`].
pub fn at(client: &mut impl GenericClient, topic: &str, partition: i32, offset: i64) -> Result<Vec<Record>, Error> {
    let sql = format!(
        "select {} from anomalies where source_topic = $1 and source_partition = $2 and source_offset = $3 \
         order by source_index, kind limit 100",
        row::COLUMNS
    );
    records(client, &sql, &[&topic, &partition, &offset])
}

fn records(client: &mut impl GenericClient, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Record>, Error> {
    let rows = client.query(sql, values)?;
    rows.iter().map(|row| row::anomaly(row).map(|(anomaly, detected_at)| Record { anomaly, detected_at })).collect()
}

/// See [`crate::archive::Archive::by_time`].
///
/// # Errors
/// See [`newest`].
pub fn by_time(client: &mut impl GenericClient, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, Error> {
    let mut conditions = Where::of(&Filter { from: Some(bins.from), to: bins.to(), ..filter.clone() });
    let bin = bin(&mut conditions, bins);
    let sql = format!("select {bin} as bin, {COUNTS} from anomalies{} group by 1 order by 1", conditions.text);
    let rows = client.query(&sql, &conditions.values())?;
    rows.iter().map(|row| Ok(BinCount { bin: index(row.try_get(0)?), count: count(row, 1)? })).collect()
}

/// See [`crate::archive::Archive::lanes`].
///
/// # Errors
/// See [`newest`].
pub fn lanes(
    client: &mut impl GenericClient,
    filter: &Filter,
    bins: &Bins,
    devices: &[String],
) -> Result<Vec<LaneCount>, Error> {
    let range = Filter { from: Some(bins.from), to: bins.to(), device: None, ..filter.clone() };
    let mut conditions = Where::of(&range);
    conditions.and("device_id = any(?)", vec![Box::new(devices.to_vec())]);
    let bin = bin(&mut conditions, bins);
    let sql = format!("select device_id, {bin} as bin, {COUNTS} from anomalies{} group by 1, 2", conditions.text);
    let rows = client.query(&sql, &conditions.values())?;
    let lane = |row| Ok(LaneCount { device: get(row, 0)?, bin: index(get(row, 1)?), count: count(row, 2)? });
    rows.iter().map(lane).collect()
}

/// The number of the stretch that an event is in. Whole milliseconds, so that no rounding moves an event over an edge.
fn bin(conditions: &mut Where, bins: &Bins) -> String {
    let (from, width) = (conditions.value(bins.from.to_time()), conditions.value(bins.width.max(1) as f64));
    format!("floor(extract(epoch from event_time - ${from}::timestamptz)::float8 * 1000 / ${width}::float8)::bigint")
}

/// See [`crate::archive::Archive::by_device`].
///
/// # Errors
/// See [`newest`].
pub fn by_device(client: &mut impl GenericClient, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, Error> {
    by_name(client, "device_id", filter, limit)
}

/// See [`crate::archive::Archive::by_metric`].
///
/// # Errors
/// See [`newest`].
pub fn by_metric(client: &mut impl GenericClient, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, Error> {
    by_name(client, "metric_name", filter, limit)
}

fn by_name(
    client: &mut impl GenericClient,
    column: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<NameCount>, Error> {
    let mut conditions = Where::of(filter);
    let most = conditions.value(i64::from(limit));
    let text = &conditions.text;
    let sql =
        format!("select {column}, {COUNTS} from anomalies{text} group by 1 order by count(*) desc, 1 limit ${most}");
    let rows = client.query(&sql, &conditions.values())?;
    rows.iter().map(|row| Ok(NameCount { name: row.try_get(0)?, count: count(row, 1)? })).collect()
}

/// See [`crate::archive::Archive::coverage`].
///
/// # Errors
/// See [`newest`].
pub fn coverage(client: &mut impl GenericClient, from: Instant, to: Instant) -> Result<Vec<CoverageRow>, Error> {
    let sql = "select minute, sum(judged)::bigint, sum(learning)::bigint, sum(rejected)::bigint from coverage \
               where minute >= $1 and minute < $2 group by minute order by minute";
    let rows = client.query(sql, &[&from.to_time(), &to.to_time()])?;
    let whole = |row, column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    let line = |row| {
        let minute = Instant::from(get::<OffsetDateTime>(row, 0)?);
        Ok(CoverageRow { minute, judged: whole(row, 1)?, learning: whole(row, 2)?, rejected: whole(row, 3)? })
    };
    rows.iter().map(line).collect()
}

/// See [`crate::archive::Archive::status`].
///
/// # Errors
/// See [`newest`].
pub fn status(client: &mut impl GenericClient) -> Result<Vec<StatusRow>, Error> {
    let sql = "select detector_group, topic, partition, worker, state, committed, lag, event_time, series, \
               settings_hash, updated_at, extract(epoch from clock_timestamp() - updated_at)::float8 \
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
            event_time: get::<Option<OffsetDateTime>>(row, 7)?.map(Instant::from),
            series: get(row, 8)?,
            settings_hash: get(row, 9)?,
            updated_at: Instant::from(get::<OffsetDateTime>(row, 10)?),
            age: get(row, 11)?,
        })
    };
    client.query(sql, &[])?.iter().map(line).collect()
}

fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a postgres::Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
}

fn index(bin: i64) -> usize {
    usize::try_from(bin).unwrap_or(0)
}

/// Two columns that [`COUNTS`] made.
fn count(row: &postgres::Row, first: usize) -> Result<Count, Error> {
    let whole = |column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    Ok(Count { critical: whole(first)?, warning: whole(first + 1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::Severity;

    #[test]
    fn conditions_are_numbered_in_the_order_of_their_values() {
        let filter = Filter {
            device: Some("a'; drop table anomalies; --".into()),
            severity: Some(Severity::Critical),
            from: Instant::from_millis(0),
            ..Filter::default()
        };
        let mut conditions = Where::of(&filter);
        assert_eq!(conditions.text, " where device_id = $1 and severity = $2 and event_time >= $3");
        assert_eq!(conditions.value(7_i64), 4);
        assert_eq!(conditions.values().len(), 4);
    }

    #[test]
    fn no_filter_is_no_condition() {
        assert_eq!(Where::of(&Filter::default()).text, "");
    }
}
