//! Counts anomalies by time and by name: from rows over short ranges, from the sink's totals over long ones.

use postgres::{Client, Error};

use super::conditions::WhereClause;
use super::get;
use crate::archive::{BinCount, Bins, Count, CountQueries, Filter, LaneCount, NameCount, NoAnswer};
use crate::event::Timestamp;
use crate::store::reader::PostgresArchive;

/// Columns with the number of anomalies of each severity in a group.
const COUNTS: &str = "count(*) filter (where severity = 'critical'), count(*) filter (where severity <> 'critical')";

/// Width of a range in milliseconds above which names are counted from totals.
const LONG_RANGE: i64 = 6 * 3_600_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Columns as in [`COUNTS`], from totals. Sums of bigint are decimal numbers, at three times the cost; float8 is exact
/// up to 2^53.
const SUMS: &str = "coalesce(sum(anomalies::float8) filter (where severity = 'critical'), 0)::bigint, \
     coalesce(sum(anomalies::float8) filter (where severity <> 'critical'), 0)::bigint";

impl CountQueries for PostgresArchive {
    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, NoAnswer> {
        self.ask(|client| {
            let is_of_all = filter.devices.is_empty();
            let (table, time, counts) = if is_in_totals(filter, bins, HOUR, self.totals_since()) {
                (if is_of_all { "anomaly_metrics" } else { "anomaly_hours" }, "hour", SUMS)
            } else if is_of_all && filter.metrics.is_empty() && is_in_totals(filter, bins, MINUTE, self.totals_since())
            {
                ("anomaly_minutes", "minute", SUMS)
            } else {
                ("anomalies", "event_time", COUNTS)
            };
            let mut conditions = WhereClause::over(table, filter, bins, time);
            let bin = bin(&mut conditions, bins, time);
            let sql = format!("select {bin} as bin, {counts} from {table}{} group by 1 order by 1", conditions.text);
            let rows = client.query(&sql, &conditions.values())?;
            rows.iter().map(|row| Ok(BinCount { bin: index(row.try_get(0)?), count: count(row, 1)? })).collect()
        })
    }

    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer> {
        self.ask(|client| by_name(client, "device_id", filter, limit, self.totals_since()))
    }

    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer> {
        self.ask(|client| by_name(client, "metric_name", filter, limit, self.totals_since()))
    }

    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, NoAnswer> {
        self.ask(|client| {
            if devices.is_empty() {
                return Ok(Vec::new());
            }
            let (table, time, counts) = if is_in_totals(filter, bins, HOUR, self.totals_since()) {
                ("anomaly_hours", "hour", SUMS)
            } else {
                ("anomalies", "event_time", COUNTS)
            };
            let mut conditions =
                WhereClause::over(table, &Filter { devices: devices.to_vec(), ..filter.clone() }, bins, time);
            let bin = bin(&mut conditions, bins, time);
            let sql = format!("select device_id, {bin} as bin, {counts} from {table}{} group by 1, 2", conditions.text);
            let rows = client.query(&sql, &conditions.values())?;
            let lane = |row| Ok(LaneCount { device: get(row, 0)?, bin: index(get(row, 1)?), count: count(row, 2)? });
            rows.iter().map(lane).collect()
        })
    }
}

/// Returns whether totals of this width (in milliseconds) can answer the query.
fn is_in_totals(filter: &Filter, bins: &Bins, width: i64, since: Option<Timestamp>) -> bool {
    let is_even = |time: i64| time.rem_euclid(width) == 0;
    filter.is_plain() && is_even(bins.width) && is_even(bins.from.millis()) && are_kept(bins.to(), since)
}

/// Returns whether totals of the range are still stored.
fn are_kept(to: Option<Timestamp>, since: Option<Timestamp>) -> bool {
    to.is_none_or(|to| since.is_none_or(|since| to > since))
}

/// Returns the expression for the number of an event's bin. It uses whole milliseconds, so that no rounding moves an
/// event to another bin. (`extract` computes decimal numbers.)
fn bin(conditions: &mut WhereClause, bins: &Bins, time: &str) -> String {
    let (from, width) = (conditions.value(bins.from.to_time()), conditions.value(bins.width.max(1) as f64));
    format!("floor(date_part('epoch', {time} - ${from}::timestamptz) * 1000 / ${width}::float8)::bigint")
}

fn by_name(
    client: &mut Client,
    column: &str,
    filter: &Filter,
    limit: u32,
    since: Option<Timestamp>,
) -> Result<Vec<NameCount>, Error> {
    let mut conditions = WhereClause::default();
    let (source, counts) = match (filter.from, filter.to) {
        (Some(from), Some(to)) if filter.is_plain() && filter.width() > LONG_RANGE && are_kept(filter.to, since) => {
            conditions.series(filter);
            let is_of_all = column == "metric_name" && filter.devices.is_empty();
            let totals = if is_of_all { by_hours } else { by_days };
            (totals(&mut conditions, from, to), SUMS)
        }
        _ => {
            conditions = WhereClause::of(filter);
            ("anomalies".to_owned(), COUNTS)
        }
    };
    let most = conditions.value(i64::from(limit));
    let text = &conditions.text;
    let by = if counts == SUMS { "sum(anomalies::float8)" } else { "count(*)" };
    let sql = format!(
        "select nullif({column}, ''), {counts} from {source}{text} group by 1 order by {by} desc, 1 limit ${most}"
    );
    let rows = client.query(&sql, &conditions.values())?;
    rows.iter().map(|row| Ok(NameCount { name: row.try_get(0)?, count: count(row, 1)? })).collect()
}

fn floor(time: Timestamp, width: i64) -> Timestamp {
    Timestamp::from_millis(time.millis().div_euclid(width) * width).unwrap_or(time)
}

fn ceil(time: Timestamp, width: i64) -> Timestamp {
    floor(Timestamp::from_millis(time.millis() + width - 1).unwrap_or(time), width)
}

/// Selects the counts of a range over all devices: totals of its whole hours, rows before and after them.
fn by_hours(conditions: &mut WhereClause, from: Timestamp, to: Timestamp) -> String {
    let (first, last) = (ceil(from, HOUR), floor(to, HOUR));
    let [from, first, last, to] = [from, first, last, to].map(|time| conditions.value(time.to_time()));
    let columns = "metric_name, severity, anomalies";
    let rows = "metric_name, severity, 1 as anomalies";
    format!(
        "(select {columns} from anomaly_metrics where hour >= ${first} and hour < ${last}
          union all select {rows} from anomalies where event_time >= ${from} and event_time < ${first}
          union all select {rows} from anomalies where event_time >= ${last} and event_time < ${to}) as totals"
    )
}

/// Selects the counts of a range: totals of its whole days, totals of the whole hours around them, and rows at its
/// ends.
fn by_days(conditions: &mut WhereClause, from: Timestamp, to: Timestamp) -> String {
    let (start, end) = (ceil(from, HOUR), floor(to, HOUR));
    let first = ceil(start, 24 * HOUR).min(end);
    let last = floor(end, 24 * HOUR).max(first);
    let [from, start, first, last, end, to] =
        [from, start, first, last, end, to].map(|time| conditions.value(time.to_time()));
    let columns = "device_id, metric_name, severity, anomalies";
    let rows = "device_id, metric_name, severity, 1 as anomalies";
    format!(
        "(select {rows} from anomalies where event_time >= ${from} and event_time < ${start}
          union all select {columns} from anomaly_hours where hour >= ${start} and hour < ${first}
          union all select {columns} from anomaly_days where day >= ${first} and day < ${last}
          union all select {columns} from anomaly_hours where hour >= ${last} and hour < ${end}
          union all select {rows} from anomalies where event_time >= ${end} and event_time < ${to}) as totals"
    )
}

fn index(bin: i64) -> usize {
    usize::try_from(bin).unwrap_or(0)
}

/// Reads the two columns of [`COUNTS`].
fn count(row: &postgres::Row, first: usize) -> Result<Count, Error> {
    let whole = |column| get::<i64>(row, column).map(|n| n.max(0) as u64);
    Ok(Count { critical: whole(first)?, warning: whole(first + 1)? })
}
