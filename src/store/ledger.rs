//! The ledger in PostgreSQL. Rows and offsets change in the same transaction. Rows that the database refuses for their
//! content go to `sink_rejects`, also in this transaction.

mod totals;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use postgres::types::ToSql;
use postgres::{Client, Transaction};
use time::OffsetDateTime;

use super::copy::{self, event_time};
use super::failure::{DatabaseError, Refusal};
use super::row::{self, COLUMNS, IDENTITY};
use super::writer::open;
use crate::anomaly::Anomaly;
use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;
use crate::fail;
use crate::ledger::{Ledger, LedgerError, LedgerPosition, OpenRejects, SinkRecord, WrittenBatch};
use totals::TOTALS;

/// Maximum number of attempts to write a batch while partitions of the table are created for its rows.
const MOST_ATTEMPTS: u32 = 5;

/// Ledger over one connection, which is opened when needed and replaced after a failure.
pub struct PostgresLedger {
    settings: PostgresSettings,
    group: String,
    topic: String,
    client: Option<Client>,
}

impl PostgresLedger {
    /// Creates the ledger without connecting. The group and the topic identify its rows in `sink_offsets`.
    pub fn new(settings: &PostgresSettings, group: &str, topic: &str) -> Self {
        PostgresLedger { settings: settings.clone(), group: group.to_owned(), topic: topic.to_owned(), client: None }
    }

    fn with<T>(
        &mut self,
        call: impl Fn(&mut Client, &LedgerKey<'_>) -> Result<T, LedgerFailure>,
    ) -> Result<T, LedgerError> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => open(&self.settings)?,
        };
        let key = LedgerKey { group: &self.group, topic: &self.topic };
        let mut attempts = (1..MOST_ATTEMPTS).map(|_| call(&mut client, &key));
        let ended = attempts.find(|ended| !matches!(ended, Err(failure) if failure.is_late_partition()));
        match ended.unwrap_or_else(|| call(&mut client, &key)) {
            Ok(done) => {
                self.client = Some(client);
                Ok(done)
            }
            // After any failure the connection is replaced, because its state is unknown.
            Err(LedgerFailure::Moved) => Err(LedgerError::Moved),
            // A person must correct permissions and schema, which needs no restart of this program.
            Err(LedgerFailure::Failed(failure)) => Err(failure.for_ledger()),
        }
    }
}

struct LedgerKey<'a> {
    group: &'a str,
    topic: &'a str,
}

enum LedgerFailure {
    Moved,
    Failed(DatabaseError),
}

impl LedgerFailure {
    fn is_late_partition(&self) -> bool {
        matches!(self, LedgerFailure::Failed(DatabaseError::Refused(refusal)) if refusal.is_late_partition())
    }
}

impl<E: Into<DatabaseError>> From<E> for LedgerFailure {
    fn from(error: E) -> Self {
        LedgerFailure::Failed(error.into())
    }
}

impl Ledger for PostgresLedger {
    fn positions(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, LedgerPosition>, LedgerError> {
        self.with(|client, key| {
            let rows = client.query(
                "select partition, next_offset, topic_id from sink_offsets
                 where sink_group = $1 and topic = $2 and partition = any($3)",
                &[&key.group, &key.topic, &partitions],
            )?;
            Ok(rows.iter().map(|row| (row.get(0), position(row))).collect())
        })
    }

    fn begin(&mut self, partition: i32, at: &LedgerPosition) -> Result<(), LedgerError> {
        self.with(|client, key| {
            client.execute(
                // A topic that another partition or group has already is of the same generation. Otherwise rejects of an
                // earlier topic show that this one is a later one, although a person has deleted its offsets.
                "insert into sink_offsets (sink_group, topic, partition, next_offset, topic_id, generation)
                 values ($1, $2, $3, $4, $5, coalesce(
                     (select max(generation) from sink_offsets where topic = $2 and topic_id = $5),
                     (select max(generation) + 1 from sink_rejects where topic = $2 and partition = $3), 0))
                 on conflict do nothing",
                &[&key.group, &key.topic, &partition, &at.next, &at.topic_id],
            )?;
            Ok(())
        })
    }

    fn note_topic_id(&mut self, partitions: &[i32], topic_id: &str) -> Result<(), LedgerError> {
        self.with(|client, key| {
            client.execute(
                "update sink_offsets set topic_id = $4
                 where sink_group = $1 and topic = $2 and partition = any($3) and topic_id is null",
                &[&key.group, &key.topic, &partitions, &topic_id],
            )?;
            Ok(())
        })
    }

    fn accept(
        &mut self,
        topic_id: Option<&str>,
        bounds: &BTreeMap<i32, Range<i64>>,
    ) -> Result<BTreeMap<i32, i64>, LedgerError> {
        let partitions = bounds.keys().copied().collect::<Vec<_>>();
        self.with(|client, key| {
            let mut transaction = client.transaction()?;
            let rows = transaction.query(
                "select partition, next_offset, topic_id from sink_offsets
                 where sink_group = $1 and topic = $2 and partition = any($3) for update",
                &[&key.group, &key.topic, &partitions],
            )?;
            let mut changed = BTreeMap::new();
            for row in &rows {
                let (partition, position) = (row.get::<_, i32>(0), position(row));
                let Some(range) = bounds.get(&partition).filter(|range| !position.is_in(topic_id, range.end)) else {
                    continue;
                };
                // Followers of the table read each partition in the order of its offsets, so that it needs a new id.
                transaction.execute(
                    "update sink_offsets
                     set next_offset = $4, topic_id = $5, generation = generation + 1, id = default, updated_at = now()
                     where sink_group = $1 and topic = $2 and partition = $3",
                    &[&key.group, &key.topic, &partition, &range.start, &topic_id],
                )?;
                changed.insert(partition, position.next);
            }
            transaction.commit()?;
            Ok(changed)
        })
    }

    fn write(
        &mut self,
        entries: &[SinkRecord],
        moves: &BTreeMap<i32, (i64, i64)>,
    ) -> Result<WrittenBatch, LedgerError> {
        self.with(|client, key| {
            let mut transaction = client.transaction()?;
            let sinks = move_on(&mut transaction, key, moves)?;
            let mut written = WrittenBatch::default();
            let mut good = Vec::new();
            for entry in entries {
                match &entry.anomaly {
                    Ok(anomaly) => good.push((entry, anomaly)),
                    Err(why) => reject(&mut transaction, key, entry, "undecodable", why, &mut written)?,
                }
            }
            insert(&mut transaction, key, &sinks, &good, &mut written)?;
            if written.inserted > 0 {
                // The commit notifies the followers of the table.
                transaction.execute("select pg_notify('anomalies', current_schema())", &[])?;
            }
            fail::point("rows");
            transaction.commit()?;
            fail::point("rows committed");
            Ok(written)
        })
    }

    fn rejects(&mut self) -> Result<OpenRejects, LedgerError> {
        self.with(|client, key| {
            let most = OpenRejects::MAX_COUNT as i64;
            let sql = "select count(*) from (select from sink_rejects where topic = $1 limit $2) as kept";
            let count = client.query_one(sql, &[&key.topic, &most])?.get::<_, i64>(0).max(0) as u64;
            if count == 0 {
                return Ok(OpenRejects::default());
            }
            let sql = "select partition, record_offset, case when reason ~ '^[0-9A-Z]{5}$' then message
                    else reason || ': ' || message end
                from sink_rejects where topic = $1 order by rejected_at desc limit 1";
            let last = client.query_opt(sql, &[&key.topic])?.map_or_else(String::new, |row| {
                let (partition, offset, why): (i32, i64, String) = (row.get(0), row.get(1), row.get(2));
                format!("{} [{partition}] offset {offset}: {why}", key.topic)
            });
            Ok(OpenRejects { count, last })
        })
    }
}

/// Returns the position in a row of partition, next offset and topic id.
fn position(row: &postgres::Row) -> LedgerPosition {
    LedgerPosition { next: row.get(1), topic_id: row.get(2) }
}

/// Advances each partition from its old to its new offset; returns the number that identifies the partition in rows.
fn move_on(
    transaction: &mut Transaction<'_>,
    key: &LedgerKey<'_>,
    moves: &BTreeMap<i32, (i64, i64)>,
) -> Result<HashMap<i32, i32>, LedgerFailure> {
    let partitions = moves.keys().collect::<Vec<_>>();
    let (old, new): (Vec<i64>, Vec<i64>) = moves.values().copied().unzip();
    let moved = transaction.query(
        "update sink_offsets as s set next_offset = m.new, updated_at = now()
         from unnest($3::int[], $4::bigint[], $5::bigint[]) as m (partition, old, new)
         where s.sink_group = $1 and s.topic = $2 and s.partition = m.partition and s.next_offset = m.old
         returning s.partition, s.id",
        &[&key.group, &key.topic, &partitions, &old, &new],
    )?;
    if moved.len() < moves.len() {
        return Err(LedgerFailure::Moved);
    }
    Ok(moved.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Inserts all rows. If the database refuses one, halves the batch until that row is alone.
fn insert(
    transaction: &mut Transaction<'_>,
    key: &LedgerKey<'_>,
    sinks: &HashMap<i32, i32>,
    batch: &[(&SinkRecord, &Anomaly)],
    written: &mut WrittenBatch,
) -> Result<(), LedgerFailure> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut attempt = transaction.savepoint("batch")?;
    let refused = match insert_all(&mut attempt, sinks, batch) {
        Ok(left) => {
            attempt.commit()?;
            written.inserted += (batch.len() - left.len()) as u64;
            for at in left {
                let (entry, anomaly) = batch[at];
                present(transaction, key, entry, anomaly, written)?;
            }
            return Ok(());
        }
        Err(error) => error,
    };
    let DatabaseError::Refused(why) = &refused else { return Err(refused.into()) };
    attempt.rollback()?;
    if !is_for_its_content(why) {
        return Err(refused.into());
    }
    if let [(entry, _)] = batch {
        return reject(transaction, key, entry, &why.state, &format!("{}: {}", why.state, why.message), written);
    }
    let (left, right) = batch.split_at(batch.len() / 2);
    insert(transaction, key, sinks, left, written)?;
    insert(transaction, key, sinks, right, written)
}

/// Returns whether the table refuses a row for its content: 22 data exception, 23 integrity, 54 too large for an index
/// or a row. A missing partition is also of class 23.
fn is_for_its_content(refusal: &Refusal) -> bool {
    let is_of_a_row = ["22", "23", "54"].iter().any(|class| refusal.state.starts_with(class));
    is_of_a_row && !refusal.is_without_partition()
}

/// Inserts the whole batch at once; returns the indexes of the rows that existed already.
///
/// The batch is first copied in binary format into a temporary table. Windows are arrays, which `unnest` would flatten,
/// and their text costs more than everything else.
fn insert_all(
    transaction: &mut Transaction<'_>,
    sinks: &HashMap<i32, i32>,
    batch: &[(&SinkRecord, &Anomaly)],
) -> Result<Vec<usize>, DatabaseError> {
    transaction.batch_execute(
        "set local client_min_messages = error;
         create temp table if not exists incoming (like anomalies) on commit delete rows;
         delete from incoming",
    )?;
    copy::rows(transaction, sinks, batch)?;
    let insert = format!(
        "with inserted as (
             insert into anomalies ({COLUMNS}, sink, sink_offset) select {COLUMNS}, sink, sink_offset from incoming
             on conflict ({IDENTITY}, event_time) do nothing
             returning {IDENTITY}, event_time, sink, device_id,
                       coalesce(metric_name, '') as metric_name, severity, label),
         {TOTALS}"
    );
    let mut attempt = transaction.savepoint("whole")?;
    let count: i64 = attempt.query_one(&format!("{insert} select count(*) from inserted"), &[])?.get(0);
    if count == batch.len() as i64 {
        attempt.commit()?;
        return Ok(Vec::new());
    }
    attempt.rollback()?;
    let rows = transaction.query(&format!("{insert} select {IDENTITY}, event_time from inserted"), &[])?;
    let mut inserted = HashSet::new();
    for row in &rows {
        let time = row.try_get::<_, OffsetDateTime>("event_time")?;
        inserted.insert((row::identity(row)?, Timestamp::from(time)));
    }
    // Of several entries with one identity in the batch, only the first was inserted.
    let is_left =
        |(entry, anomaly): &(&SinkRecord, &Anomaly)| !inserted.remove(&(anomaly.id(), event_time(entry, anomaly)));
    Ok(batch.iter().map(is_left).enumerate().filter_map(|(at, left)| left.then_some(at)).collect())
}

/// Compares an entry with the existing row of its identity: equal rows are fine, others are a conflict.
fn present(
    transaction: &mut Transaction<'_>,
    key: &LedgerKey<'_>,
    entry: &SinkRecord,
    anomaly: &Anomaly,
    written: &mut WrittenBatch,
) -> Result<(), LedgerFailure> {
    let (source, id) = (&anomaly.source, anomaly.id());
    let time = event_time(entry, anomaly).to_time();
    let values = row::identity_values(&id).into_iter().chain([&time as &(dyn ToSql + Sync)]);
    let row = transaction.query_one(
        &format!("select {COLUMNS} from anomalies where ({IDENTITY}) = ($1, $2, $3, $4, $5, $6) and event_time = $7"),
        &values.collect::<Vec<_>>(),
    )?;
    let (there, _) = row::anomaly(&row)?;
    let timestamp = Some(event_time(entry, anomaly));
    if there == (Anomaly { timestamp, ..anomaly.clone() }) {
        written.present += 1;
        return Ok(());
    }
    let why = format!(
        "the table has another anomaly of {} [{}] offset {}: was the topic recreated?",
        source.topic, source.partition, source.offset
    );
    tracing::error!(topic = key.topic, partition = entry.partition, offset = entry.offset, "{why}");
    reject(transaction, key, entry, "conflict", &why, written)
}

fn reject(
    transaction: &mut Transaction<'_>,
    key: &LedgerKey<'_>,
    entry: &SinkRecord,
    reason: &str,
    message: &str,
    written: &mut WrittenBatch,
) -> Result<(), LedgerFailure> {
    transaction.execute(
        "insert into sink_rejects (topic, generation, partition, record_offset, key, value, reason, message)
         select topic, generation, partition, $4, $5, $6, $7, $8 from sink_offsets
         where sink_group = $1 and topic = $2 and partition = $3 on conflict do nothing",
        &[
            &key.group,
            &key.topic,
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
