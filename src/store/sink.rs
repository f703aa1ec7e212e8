//! The ledger in PostgreSQL: rows and offsets move together; what the database refuses for its content goes to
//! `sink_rejects` in the same transaction.

use std::collections::{BTreeMap, HashMap};

use postgres::types::ToSql;
use postgres::{Client, Transaction};

use super::row::{self, COLUMNS};
use super::{Failure, explain, open};
use crate::anomaly::{Anomaly, Source};
use crate::config::resolved::Postgres;
use crate::fail;
use crate::ledger::{Entry, Ledger, Unwritten, Written};

/// One connection, made when it is needed and again after it broke.
pub struct PostgresLedger {
    settings: Postgres,
    group: String,
    topic: String,
    client: Option<Client>,
}

impl PostgresLedger {
    /// Connects to nothing yet. The group and the topic name its rows in `sink_offsets`.
    pub fn new(settings: &Postgres, group: &str, topic: &str) -> Self {
        PostgresLedger { settings: settings.clone(), group: group.to_owned(), topic: topic.to_owned(), client: None }
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Client, &Names<'_>) -> Result<T, Trouble>) -> Result<T, Unwritten> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => open(&self.settings).map_err(Unwritten::Away)?,
        };
        let names = Names { group: &self.group, topic: &self.topic };
        match call(&mut client, &names) {
            Ok(done) => {
                self.client = Some(client);
                Ok(done)
            }
            // After any failure the connection is made anew: nobody knows what became of it.
            Err(Trouble::Moved) => Err(Unwritten::Moved),
            // Rights and schema are for people to mend, who need no restart of ours for it.
            Err(Trouble::Failed(failure)) => Err(Unwritten::Away(failure.sentence())),
        }
    }
}

struct Names<'a> {
    group: &'a str,
    topic: &'a str,
}

enum Trouble {
    Moved,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Failed(error.into())
    }
}

impl Ledger for PostgresLedger {
    fn positions(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Unwritten> {
        self.with(|client, names| {
            let rows = client.query(
                "select partition, next_offset from sink_offsets where sink_group = $1 and topic = $2",
                &[&names.group, &names.topic],
            )?;
            let known: HashMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            Ok(partitions.iter().map(|partition| (*partition, known.get(partition).copied())).collect())
        })
    }

    fn begin(&mut self, partition: i32, offset: i64) -> Result<(), Unwritten> {
        self.with(|client, names| {
            client.execute(
                "insert into sink_offsets (sink_group, topic, partition, next_offset) values ($1, $2, $3, $4)
                 on conflict do nothing",
                &[&names.group, &names.topic, &partition, &offset],
            )?;
            Ok(())
        })
    }

    fn write(&mut self, entries: &[Entry], moves: &BTreeMap<i32, (i64, i64)>) -> Result<Written, Unwritten> {
        self.with(|client, names| {
            let mut transaction = client.transaction()?;
            for (partition, (old, new)) in moves {
                let moved = transaction.execute(
                    "update sink_offsets set next_offset = $1, updated_at = now()
                     where sink_group = $2 and topic = $3 and partition = $4 and next_offset = $5",
                    &[new, &names.group, &names.topic, partition, old],
                )?;
                if moved == 0 {
                    return Err(Trouble::Moved);
                }
            }
            let mut written = Written::default();
            let mut good = Vec::new();
            for entry in entries {
                match &entry.anomaly {
                    Ok(anomaly) => good.push((entry, anomaly)),
                    Err(why) => reject(&mut transaction, names.topic, entry, "undecodable", why, &mut written)?,
                }
            }
            insert(&mut transaction, names.topic, &good, &mut written)?;
            fail::point("rows");
            transaction.commit()?;
            fail::point("rows committed");
            Ok(written)
        })
    }
}

/// Inserts all of them, or halves the batch until the row that the database refuses stands alone.
fn insert(
    transaction: &mut Transaction<'_>,
    topic: &str,
    batch: &[(&Entry, &Anomaly)],
    written: &mut Written,
) -> Result<(), Trouble> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut attempt = transaction.savepoint("batch")?;
    let refused = match insert_all(&mut attempt, batch) {
        Ok(left) => {
            attempt.commit()?;
            written.inserted += (batch.len() - left.len()) as u64;
            for at in left {
                let (entry, anomaly) = batch[at];
                present(transaction, topic, entry, anomaly, written)?;
            }
            return Ok(());
        }
        Err(error) => error,
    };
    attempt.rollback()?;
    let state = refused.code().map_or("", |c| c.code()).to_owned();
    // 22 data exception, 23 integrity, 54 too large for an index or a row.
    if !["22", "23", "54"].iter().any(|class| state.starts_with(class)) {
        return Err(refused.into());
    }
    if let [(entry, _)] = batch {
        return reject(transaction, topic, entry, &state, &explain(&refused), written);
    }
    let (left, right) = batch.split_at(batch.len() / 2);
    insert(transaction, topic, left, written)?;
    insert(transaction, topic, right, written)
}

/// One statement for the whole batch; returns the places of the rows that were there already.
fn insert_all(transaction: &mut Transaction<'_>, batch: &[(&Entry, &Anomaly)]) -> Result<Vec<usize>, postgres::Error> {
    // Arrays of columns; a window as the text of an array, since unnest would flatten arrays of arrays.
    fn column<'a, T>(batch: &[(&'a Entry, &'a Anomaly)], get: impl Fn(&'a Entry, &'a Anomaly) -> T) -> Vec<T> {
        batch.iter().map(|(entry, anomaly)| get(entry, anomaly)).collect()
    }
    let columns: [Box<dyn ToSql + Sync + '_>; 24] = [
        Box::new(column(batch, |_, a| a.source.topic.as_str())),
        Box::new(column(batch, |_, a| a.source.partition)),
        Box::new(column(batch, |_, a| a.source.offset)),
        Box::new(column(batch, |_, a| a.source.index)),
        Box::new(column(batch, |_, a| a.kind.as_str())),
        Box::new(column(batch, |_, a| a.schema_version as i32)),
        Box::new(column(batch, |_, a| a.device_id.as_str())),
        Box::new(column(batch, |_, a| a.metric_name.as_deref())),
        Box::new(column(batch, |_, a| a.metric_value)),
        Box::new(column(batch, |e, a| a.timestamp.unwrap_or(e.detected_at).to_time())),
        Box::new(column(batch, |_, a| a.mean)),
        Box::new(column(batch, |_, a| a.std_dev)),
        Box::new(column(batch, |_, a| a.z_score)),
        Box::new(column(batch, |_, a| a.score)),
        Box::new(column(batch, |_, a| a.threshold)),
        Box::new(column(batch, |_, a| a.lower)),
        Box::new(column(batch, |_, a| a.upper)),
        Box::new(column(batch, |_, a| a.window_count as i32)),
        Box::new(column(batch, |_, a| a.method.as_str())),
        Box::new(column(batch, |_, a| a.direction.as_str())),
        Box::new(column(batch, |_, a| a.severity.as_str())),
        Box::new(column(batch, |_, a| a.label.as_deref())),
        Box::new(column(batch, |_, a| array_text(&a.window))),
        Box::new(column(batch, |e, _| e.detected_at.to_time())),
    ];
    let statement = format!(
        "with incoming as (
            select * from unnest($1::text[], $2::int4[], $3::int8[], $4::int4[], $5::text[], $6::int4[], $7::text[],
                $8::text[], $9::float8[], $10::timestamptz[], $11::float8[], $12::float8[], $13::float8[], $14::float8[],
                $15::float8[], $16::float8[], $17::float8[], $18::int4[], $19::text[], $20::text[], $21::text[],
                $22::text[], $23::text[], $24::timestamptz[])
            as t (topic, part, off, idx, kind, version, device, metric, value, at, mean, dev, z, score, threshold, lower,
                upper, count, method, direction, severity, label, win, detected)
        )
        insert into anomalies ({COLUMNS})
        select topic, part, off, idx, kind, version, device, metric, value, at, mean, dev, z, score, threshold, lower,
            upper, count, method, direction, severity, label, win::float8[], detected
        from incoming
        on conflict (source_topic, source_partition, source_offset, source_index, kind) do nothing
        returning source_topic, source_partition, source_offset, source_index, kind"
    );
    let parameters = columns.iter().map(|column| column.as_ref() as &(dyn ToSql + Sync)).collect::<Vec<_>>();
    let rows = transaction.query(&statement, &parameters)?;
    let mut inserted = HashMap::new();
    for row in &rows {
        let source = Source { topic: row.get(0), partition: row.get(1), offset: row.get(2), index: row.get(3) };
        inserted.insert((source, row.get::<_, String>(4)), ());
    }
    // The first entry of an identity is the one that was inserted; a second one in the same batch was not.
    let is_left =
        |(_, anomaly): &(&Entry, &Anomaly)| inserted.remove(&(anomaly.source.clone(), anomaly.kind.clone())).is_none();
    Ok(batch.iter().map(is_left).enumerate().filter_map(|(at, left)| left.then_some(at)).collect())
}

fn array_text(values: &[f64]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(values.len() * 12 + 2);
    text.push('{');
    for (i, value) in values.iter().enumerate() {
        let _ = write!(text, "{}{value:e}", if i > 0 { "," } else { "" });
    }
    text.push('}');
    text
}

/// A row with this identity is there: the same again is fine, another one is a conflict.
fn present(
    transaction: &mut Transaction<'_>,
    topic: &str,
    entry: &Entry,
    anomaly: &Anomaly,
    written: &mut Written,
) -> Result<(), Trouble> {
    let source = &anomaly.source;
    let row = transaction.query_one(
        &format!(
            "select {COLUMNS} from anomalies where source_topic = $1 and source_partition = $2 and source_offset = $3
             and source_index = $4 and kind = $5"
        ),
        &[&source.topic, &source.partition, &source.offset, &source.index, &anomaly.kind],
    )?;
    let (there, _) = row::anomaly(&row)?;
    if there == (Anomaly { timestamp: Some(anomaly.timestamp.unwrap_or(entry.detected_at)), ..anomaly.clone() }) {
        written.present += 1;
        return Ok(());
    }
    let why = format!(
        "the table has another anomaly of {} [{}] offset {}: was the topic recreated?",
        source.topic, source.partition, source.offset
    );
    tracing::error!(topic, partition = entry.partition, offset = entry.offset, "{why}");
    reject(transaction, topic, entry, "conflict", &why, written)
}

fn reject(
    transaction: &mut Transaction<'_>,
    topic: &str,
    entry: &Entry,
    reason: &str,
    message: &str,
    written: &mut Written,
) -> Result<(), Trouble> {
    transaction.execute(
        "insert into sink_rejects (topic, partition, record_offset, key, value, reason, message)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        &[
            &topic,
            &entry.partition,
            &entry.offset,
            &entry.key,
            &entry.value,
            &reason,
            &message.replace('\0', "\u{fffd}"),
        ],
    )?;
    written.rejected += 1;
    Ok(())
}
