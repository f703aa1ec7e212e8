//! Converts a row of `anomalies` to a record. All readers and writers use the same order of columns.

use std::collections::BTreeMap;

use postgres::Row;
use postgres::types::{Json, ToSql};
use time::{Date, OffsetDateTime};

use crate::anomaly::{Anomaly, AnomalyId, Direction, RecordId, Severity};
use crate::archive::{Review, StoredAnomaly};
use crate::event::Timestamp;

/// All columns of an anomaly, in the order that [`anomaly`] reads.
pub const COLUMNS: &str = "source_topic, source_generation, source_partition, source_offset, source_index, kind, schema_version, device_id, \
     metric_name, metric_value, event_time, method, score, threshold, expected, lower, upper, mean, std_dev, z_score, \
     evidence, direction, severity, label, window_count, \"window\", reason, \
     return_period_events, return_period_seconds, detected_at";

/// Columns that are an anomaly's identity, in the order of [`AnomalyId`]'s fields.
pub const IDENTITY: &str = "source_topic, source_generation, source_partition, source_offset, source_index, kind";

/// Returns the columns of a stored anomaly, in the order that [`stored`] reads.
pub fn stored_columns() -> String {
    format!(
        "{COLUMNS}, source_generation >= coalesce((select g.generation from topic_generations as g
             where g.topic = source_topic), source_generation) as is_newest_generation"
    )
}

/// Reads a stored anomaly, without its review.
///
/// # Errors
/// Fails if a column is missing or has another type.
pub fn stored(row: &Row) -> Result<StoredAnomaly, postgres::Error> {
    let (anomaly, detected_at) = anomaly(row)?;
    let is_newest_generation = row.try_get("is_newest_generation")?;
    Ok(StoredAnomaly { anomaly, detected_at, review: Review::None, is_newest_generation })
}

/// Reads the identity from columns that begin with [`IDENTITY`].
///
/// # Errors
/// Fails if a column is missing or has another type.
pub fn identity(row: &Row) -> Result<AnomalyId, postgres::Error> {
    let source = RecordId {
        topic: row.try_get(0)?,
        generation: row.try_get(1)?,
        partition: row.try_get(2)?,
        offset: row.try_get(3)?,
        index: row.try_get(4)?,
    };
    Ok(AnomalyId { source, kind: row.try_get(5)? })
}

/// Returns the values of [`IDENTITY`], in this order.
pub fn identity_values(AnomalyId { source, kind }: &AnomalyId) -> [&(dyn ToSql + Sync); 6] {
    [&source.topic, &source.generation, &source.partition, &source.offset, &source.index, kind]
}

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
        reason: row.try_get("reason")?,
        return_period_events: row.try_get("return_period_events")?,
        return_period_seconds: row.try_get("return_period_seconds")?,
        source: RecordId {
            topic: row.try_get("source_topic")?,
            generation: row.try_get("source_generation")?,
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
    use std::collections::BTreeSet;

    use super::IDENTITY;
    use crate::anomaly;

    #[test]
    fn the_select_list_is_the_list_of_columns() {
        let listed = super::COLUMNS.split(", ").map(|name| name.trim_matches('"'));
        assert!(listed.eq(anomaly::COLUMNS.map(|(name, _)| name)));
    }

    #[test]
    fn the_identity_has_each_field_of_a_source_and_the_kind_in_every_key() {
        let (_, source) = anomaly::tests::json_names();
        let listed = IDENTITY.split(", ").collect::<BTreeSet<_>>();
        let expected = source.iter().map(|name| format!("source_{name}")).chain(["kind".to_owned()]);
        assert_eq!(listed, expected.collect::<BTreeSet<_>>().iter().map(String::as_str).collect());
        let schema = include_str!("../../sql/V1__schema.sql");
        let columns = |start: &str| {
            let text = schema.split(start).nth(1).unwrap().split('(').nth(1).unwrap();
            text.split(')').next().unwrap().split(", ").collect::<BTreeSet<_>>()
        };
        assert!(columns("create index reviews_anomaly").is_superset(&listed));
        assert!(columns("select distinct on").is_superset(&listed));
        let table = schema.split("create table anomalies (").nth(1).unwrap();
        let key = table.split("primary key (").nth(1).unwrap().split(')').next().unwrap().split(", ");
        let key = key.collect::<BTreeSet<_>>();
        assert_eq!(key.difference(&listed).copied().collect::<Vec<_>>(), ["event_time"]);
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
        let is_column = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("--");
        let found = table.lines().filter(is_column).map(column).collect::<Vec<_>>();
        let of_the_sink = [("sink", "integer"), ("sink_offset", "bigint"), ("stored_at", "timestamptz")];
        let expected = anomaly::COLUMNS.into_iter().chain(of_the_sink);
        assert_eq!(found, expected.map(|(name, of)| (name.to_owned(), of.to_owned())).collect::<Vec<_>>());
    }
}
