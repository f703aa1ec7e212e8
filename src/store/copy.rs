//! Copies rows to the database with COPY in binary format.
//!
//! The writer of the crate `postgres` sends a message for every 4 kB, which is three rows. That costs more than
//! everything else.

use std::collections::HashMap;
use std::io::Write;

use bytes::{BufMut, BytesMut};
use postgres::Transaction;
use postgres::types::{IsNull, Json, ToSql, Type};

use super::failure::DatabaseError;
use super::row::COLUMNS;
use crate::anomaly::Anomaly;
use crate::event::Timestamp;
use crate::ledger::SinkRecord;
use crate::unavailable::Unavailable;

/// Number of bytes after which a message is sent.
const MESSAGE: usize = 256 * 1024;
/// First bytes of the stream: signature, no flags, no extension. From PostgreSQL's manual, at COPY.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// End of the stream, in place of a number of columns.
const TRAILER: i16 = -1;

/// Types of [`COLUMNS`], then of the sink and the sink's offset.
const TYPES: [Type; 32] = [
    Type::TEXT,
    Type::INT4,
    Type::INT4,
    Type::INT8,
    Type::INT4,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::FLOAT8,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::JSON,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::FLOAT8_ARRAY,
    Type::TEXT,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::TIMESTAMPTZ,
    Type::INT4,
    Type::INT8,
];

/// Copies the batch into the table `incoming`.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub(crate) fn rows(
    transaction: &mut Transaction<'_>,
    sinks: &HashMap<i32, i32>,
    batch: &[(&SinkRecord, &Anomaly)],
) -> Result<(), DatabaseError> {
    let mut writer =
        transaction.copy_in(&format!("copy incoming ({COLUMNS}, sink, sink_offset) from stdin (format binary)"))?;
    let mut message = BytesMut::with_capacity(MESSAGE + MESSAGE / 4);
    message.put_slice(HEADER);
    for (entry, a) in batch {
        let at = event_time(entry, a).to_time();
        let row: [&(dyn ToSql + Sync); TYPES.len()] = [
            &a.source.topic,
            &a.source.generation,
            &a.source.partition,
            &a.source.offset,
            &a.source.index,
            &a.kind,
            &(a.schema_version as i32),
            &a.device_id,
            &a.metric_name,
            &a.metric_value,
            &at,
            &a.method,
            &a.score,
            &a.threshold,
            &a.expected,
            &a.lower,
            &a.upper,
            &a.mean,
            &a.std_dev,
            &a.z_score,
            &Json(&a.evidence),
            &a.direction.as_str(),
            &a.severity.as_str(),
            &a.label,
            &(a.window_count as i32),
            &a.window,
            &a.reason,
            &a.return_period_events,
            &a.return_period_seconds,
            &entry.detected_at.to_time(),
            &sinks.get(&entry.partition),
            &entry.offset,
        ];
        encode(&row, &mut message).map_err(|e| away(format!("a row cannot be sent: {e}")))?;
        if message.len() > MESSAGE {
            writer.write_all(&message.split()).map_err(|e| away(e.to_string()))?;
        }
    }
    message.put_i16(TRAILER);
    writer.write_all(&message).map_err(|e| away(e.to_string()))?;
    writer.finish()?;
    Ok(())
}

fn away(cause: String) -> DatabaseError {
    DatabaseError::Unavailable(Unavailable::postgresql(cause))
}

/// Writes the number of columns, then each column with its length, which is -1 for null.
fn encode(
    row: &[&(dyn ToSql + Sync); TYPES.len()],
    into: &mut BytesMut,
) -> Result<(), Box<dyn std::error::Error + Sync + Send>> {
    into.put_i16(i16::try_from(TYPES.len())?);
    for (value, of) in row.iter().zip(&TYPES) {
        let at = into.len();
        into.put_i32(0);
        let length = match value.to_sql_checked(of, into)? {
            IsNull::Yes => -1,
            IsNull::No => i32::try_from(into.len() - at - size_of::<i32>())?,
        };
        into[at..at + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Returns the event's time, which is part of the row's identity. Very old brokers store records without any time; the
/// time of the detection replaces it.
pub(super) fn event_time(entry: &SinkRecord, anomaly: &Anomaly) -> Timestamp {
    anomaly.timestamp.unwrap_or(entry.detected_at)
}

#[cfg(test)]
mod tests {
    use super::TYPES;
    use crate::anomaly;

    #[test]
    fn the_copied_types_are_those_of_the_columns() {
        let name = |sql: &str| match sql {
            "integer" => "int4",
            "bigint" => "int8",
            "double precision" => "float8",
            "double precision[]" => "_float8",
            "timestamptz" => "timestamptz",
            "json" => "json",
            "text" => "text",
            other => panic!("which type is {other}?"),
        };
        // The sink and its offset follow the columns.
        let expected = anomaly::COLUMNS.iter().map(|(_, sql)| name(sql)).chain(["int4", "int8"]);
        assert!(TYPES.iter().map(postgres::types::Type::name).eq(expected));
    }
}
