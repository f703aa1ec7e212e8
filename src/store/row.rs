//! Converts a row of `anomalies` to a record. All readers and writers use the same order of columns.

use std::collections::BTreeMap;

use postgres::Row;
use postgres::types::Json;
use time::{Date, OffsetDateTime};

use crate::anomaly::{Anomaly, Direction, RecordId, Severity};
use crate::event::Timestamp;

/// All columns of an anomaly, in the order that [`anomaly`] reads.
pub const COLUMNS: &str = "source_topic, source_partition, source_offset, source_index, kind, schema_version, device_id, \
     metric_name, metric_value, event_time, method, score, threshold, expected, lower, upper, mean, std_dev, z_score, \
     evidence, direction, severity, label, window_count, \"window\", detected_at";

/// Reads the record and the time of its detection.
///
/// # Errors
/// Fails if a column is missing or has another type.
pub fn anomaly(row: &Row) -> Result<(Anomaly, Timestamp), postgres::Error> {
    let time = |name| row.try_get::<_, time::OffsetDateTime>(name).map(Timestamp::from);
    // Kinds of later versions can leave these null, which this version reads as 0.
    let number = |name| row.try_get::<_, Option<f64>>(name).map(Option::unwrap_or_default);
    let anomaly = Anomaly {
        schema_version: row.try_get::<_, i32>("schema_version")? as u32,
        kind: row.try_get("kind")?,
        device_id: row.try_get("device_id")?,
        metric_name: row.try_get("metric_name")?,
        metric_value: row.try_get("metric_value")?,
        timestamp: Some(time("event_time")?),
        method: row.try_get("method")?,
        score: number("score")?,
        threshold: row.try_get("threshold")?,
        expected: row.try_get("expected")?,
        lower: number("lower")?,
        upper: number("upper")?,
        mean: row.try_get("mean")?,
        std_dev: row.try_get("std_dev")?,
        z_score: row.try_get("z_score")?,
        evidence: row.try_get::<_, Json<BTreeMap<String, f64>>>("evidence")?.0,
        direction: if row.try_get::<_, &str>("direction")? == "low" { Direction::Low } else { Direction::High },
        severity: if row.try_get::<_, &str>("severity")? == "critical" {
            Severity::Critical
        } else {
            Severity::Warning
        },
        label: row.try_get("label")?,
        window_count: row.try_get::<_, i32>("window_count")? as u32,
        window: row.try_get("window")?,
        source: RecordId {
            topic: row.try_get("source_topic")?,
            partition: row.try_get("source_partition")?,
            offset: row.try_get("source_offset")?,
            index: row.try_get("source_index")?,
        },
    };
    Ok((anomaly, time("detected_at")?))
}

/// Returns the start times for a search of an anomaly whose time is unknown: first recent partitions, then all of them.
pub fn sinces() -> [OffsetDateTime; 2] {
    let recent = OffsetDateTime::now_utc() - time::Duration::days(35);
    let ever = Date::from_ordinal_date(-4000, 1).map_or(OffsetDateTime::UNIX_EPOCH, |day| day.midnight().assume_utc());
    [recent, ever]
}

#[cfg(test)]
mod tests {
    use crate::anomaly;

    #[test]
    fn the_select_list_is_the_list_of_columns() {
        let listed = super::COLUMNS.split(", ").map(|name| name.trim_matches('"'));
        assert!(listed.eq(anomaly::COLUMNS.map(|(name, _)| name)));
    }

    #[test]
    fn the_table_has_these_columns_with_these_types_and_those_of_the_sink() {
        let schema = include_str!("../../sql/V1__schema.sql");
        let table = schema.split("create table anomalies (").nth(1).unwrap().split("primary key").next().unwrap();
        let column = |line: &str| {
            let (name, rest) = line.trim().trim_end_matches(',').split_once(' ').unwrap();
            let of = rest.split("not null").next().unwrap().split("default").next().unwrap();
            (name.trim_matches('"').to_owned(), of.trim().to_owned())
        };
        let found = table.lines().filter(|line| !line.trim().is_empty()).map(column).collect::<Vec<_>>();
        let of_the_sink = [("sink", "integer"), ("sink_offset", "bigint"), ("stored_at", "timestamptz")];
        let expected = anomaly::COLUMNS.into_iter().chain(of_the_sink);
        assert_eq!(found, expected.map(|(name, of)| (name.to_owned(), of.to_owned())).collect::<Vec<_>>());
    }
}
