//! Writes the reports of a detector every few seconds, also when nothing is abnormal: `detector_status`,
//! `detector_conditions`, `coverage`, `activity` and `rejected_samples`.

mod counts;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use postgres::Client;

use super::failure::DatabaseError;
use super::writer::open;
use crate::config::resolved::PostgresSettings;
use crate::health::{Activity, Component, RejectedSamples, Tally};

/// A table of the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Status,
    Conditions,
    Coverage,
    Activity,
    RejectedSamples,
    SeenDevices,
}

impl Table {
    const ALL: [Table; 6] = [
        Table::Status,
        Table::Conditions,
        Table::Coverage,
        Table::Activity,
        Table::RejectedSamples,
        Table::SeenDevices,
    ];

    fn name(self) -> &'static str {
        match self {
            Table::Status => "detector_status",
            Table::Conditions => "detector_conditions",
            Table::Coverage => "coverage",
            Table::Activity => "activity",
            Table::RejectedSamples => "rejected_samples",
            Table::SeenDevices => "seen_devices",
        }
    }
}

/// What a component has counted and seen since its last heartbeat.
struct ComponentCounts {
    coverage: BTreeMap<(i64, i32), Tally>,
    activity: BTreeMap<(i64, i32), Activity>,
    rejected: RejectedSamples,
    devices: Vec<String>,
}

impl ComponentCounts {
    fn take(component: &Component) -> ComponentCounts {
        ComponentCounts {
            coverage: component.take_coverage(),
            activity: component.take_activity(),
            rejected: component.take_rejected(),
            devices: component.take_devices(),
        }
    }

    /// Returns whether there is nothing to write into a table. That would say nothing about a missing permission.
    fn is_empty(&self, component: &Component, table: Table) -> bool {
        match table {
            Table::Status => component.partitions().is_empty(),
            Table::Conditions => false,
            Table::Coverage => self.coverage.is_empty(),
            Table::Activity => self.activity.is_empty(),
            Table::RejectedSamples => self.rejected.is_empty(),
            Table::SeenDevices => self.devices.is_empty(),
        }
    }

    /// Adds the counts of a table that was not written again to the component.
    fn give_back(&mut self, component: &Component, table: Table) {
        match table {
            Table::Status | Table::Conditions => {}
            Table::Coverage => component.cover(std::mem::take(&mut self.coverage)),
            Table::Activity => component.note_activity(std::mem::take(&mut self.activity)),
            Table::RejectedSamples => component.give_back_rejected(std::mem::take(&mut self.rejected)),
            Table::SeenDevices => {
                component.forget_devices();
                component.note_devices(self.devices.iter().map(String::as_str));
            }
        }
    }
}

/// What a heartbeat could not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatError {
    /// Nothing was written after this failure, because there is no connection.
    NoConnection(String),
    /// These tables were not written, each with the reason. The others were written.
    Tables(BTreeMap<&'static str, String>),
}

impl std::fmt::Display for HeartbeatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeartbeatError::NoConnection(why) => write!(f, "cannot write detector_status: {why}"),
            HeartbeatError::Tables(tables) => {
                let one = |(table, why): (&&str, &String)| format!("cannot write {table}: {why}");
                f.write_str(&tables.iter().map(one).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Writes heartbeats over one connection, which is opened when needed.
pub struct Heartbeat {
    settings: PostgresSettings,
    group: String,
    topic: String,
    instance: String,
    settings_hash: String,
    /// Settings that the hash stands for.
    detection: serde_json::Value,
    client: Option<Client>,
    /// Whether the settings are in the table.
    has_settings: bool,
    /// Tables whose last write failed, with the reason. Each is written in a transaction of its own.
    apart: BTreeMap<Table, String>,
}

impl Heartbeat {
    /// Creates the writer without connecting.
    pub fn new(
        settings: &PostgresSettings,
        group: &str,
        topic: &str,
        instance: &str,
        (settings_hash, detection): (&str, serde_json::Value),
    ) -> Self {
        Heartbeat {
            settings: settings.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            instance: instance.to_owned(),
            settings_hash: settings_hash.to_owned(),
            detection,
            client: None,
            has_settings: false,
            apart: BTreeMap::new(),
        }
    }

    /// Writes the reports of these components. If a table cannot be written, its counts are added again to the
    /// components, and the other tables are written.
    ///
    /// # Errors
    /// Returns what was not written.
    pub fn write(&mut self, components: &[Arc<Component>]) -> Result<(), HeartbeatError> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let client = open(&self.settings).map_err(|e| HeartbeatError::NoConnection(e.to_string()))?;
                (self.has_settings, self.apart) = (false, BTreeMap::new());
                client
            }
        };
        let sql = "insert into detector_settings (settings_hash, settings) values ($1, $2) on conflict do nothing";
        let settings = match self.has_settings {
            true => None,
            false => client.execute(sql, &[&self.settings_hash, &self.detection]).err(),
        };
        self.has_settings = settings.is_none();
        let settings = settings.map(|e| DatabaseError::from(e).sentence());
        let mut results = BTreeMap::new();
        for component in components {
            self.write_component(&mut client, component, &mut results)?;
        }
        self.client = Some(client);
        // Without partitions the table is not written, so an earlier failure would stay.
        if components.len() > 1 && components.iter().all(|component| component.partitions().is_empty()) {
            self.apart.remove(&Table::Status);
        }
        for (table, failure) in results {
            match failure {
                Some(why) => self.apart.insert(table, why),
                None => self.apart.remove(&table),
            };
        }
        let mut failed = self.apart.iter().map(|(table, why)| (table.name(), why.clone())).collect::<BTreeMap<_, _>>();
        failed.extend(settings.map(|why| ("detector_settings", why)));
        if failed.is_empty() { Ok(()) } else { Err(HeartbeatError::Tables(failed)) }
    }

    /// Returns the other groups whose detectors now write about the same topic into these tables.
    ///
    /// # Errors
    /// Returns the reason as a sentence.
    pub fn other_groups(&mut self) -> Result<Vec<String>, String> {
        let Some(client) = &mut self.client else { return Ok(Vec::new()) };
        let sql = "select distinct detector_group from detector_status
            where topic = $1 and detector_group <> $2 and updated_at > now() - interval '15 seconds' order by 1";
        let rows = client.query(sql, &[&self.topic, &self.group]).map_err(|e| DatabaseError::from(e).sentence())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Writes the tables of one component in one transaction. If that fails, it writes each table in a transaction of
    /// its own. `results` gets an entry for each of these tables, with the failure if there was one.
    ///
    /// # Errors
    /// Fails if the connection is lost.
    fn write_component(
        &self,
        client: &mut Client,
        component: &Component,
        results: &mut BTreeMap<Table, Option<String>>,
    ) -> Result<(), HeartbeatError> {
        let mut counts = ComponentCounts::take(component);
        let due = Table::ALL.into_iter().filter(|table| !counts.is_empty(component, *table)).collect::<Vec<_>>();
        // A table that was refused lately would undo the others again.
        let (mut each, joint) = due.iter().partition::<Vec<_>, _>(|table| self.apart.contains_key(table));
        if let Err(e) = self.write_tables(client, component, &counts, &joint) {
            if client.is_closed() {
                due.iter().for_each(|table| counts.give_back(component, *table));
                return Err(HeartbeatError::NoConnection(DatabaseError::from(e).sentence()));
            }
            each = due;
        }
        let mut lost = None;
        for table in each {
            match self.write_tables(client, component, &counts, &[table]) {
                // The failure of another component stays.
                Ok(()) => drop(results.entry(table).or_default()),
                Err(e) => {
                    counts.give_back(component, table);
                    let why = DatabaseError::from(e).sentence();
                    if client.is_closed() {
                        lost.get_or_insert(why);
                    } else {
                        results.insert(table, Some(why));
                    }
                }
            }
        }
        lost.map_or(Ok(()), |why| Err(HeartbeatError::NoConnection(why)))
    }

    /// Writes these tables in one transaction.
    fn write_tables(
        &self,
        client: &mut Client,
        component: &Component,
        counts: &ComponentCounts,
        tables: &[Table],
    ) -> Result<(), postgres::Error> {
        let mut transaction = client.transaction()?;
        for table in tables {
            match table {
                Table::Status => self.write_status(&mut transaction, component)?,
                Table::Conditions => self.write_conditions(&mut transaction, component)?,
                Table::Coverage => self.write_coverage(&mut transaction, &counts.coverage)?,
                Table::Activity => self.write_activity(&mut transaction, &counts.activity)?,
                Table::RejectedSamples => self.write_rejected(&mut transaction, &counts.rejected)?,
                Table::SeenDevices => counts::write_devices(&mut transaction, &counts.devices)?,
            }
        }
        transaction.commit()
    }

    fn worker(&self, component: &Component) -> String {
        format!("{}/{}", self.instance, component.name)
    }
}

/// Partitions of one topic whose heartbeats were removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Forgotten {
    /// Consumer group of the detector.
    pub group: String,
    /// Topic of the raw events.
    pub topic: String,
    /// Number of removed partitions.
    pub partitions: i64,
    /// Seconds since the newest heartbeat was written.
    pub age: f64,
}

/// Removes the heartbeats and conditions that are older than an hour. A running detector writes them again.
///
/// # Errors
/// Returns the error of the database.
pub fn forget(client: &mut Client) -> Result<Vec<Forgotten>, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.execute("delete from detector_conditions where updated_at < now() - interval '1 hour'", &[])?;
    let rows = transaction.query(
        "with gone as (
             delete from detector_status where updated_at < now() - interval '1 hour'
             returning detector_group, topic, updated_at)
         select detector_group, topic, count(*), extract(epoch from now() - max(updated_at))::float8
         from gone group by 1, 2 order by 1, 2",
        &[],
    )?;
    transaction.commit()?;
    let line = |row: &postgres::Row| Forgotten {
        group: row.get(0),
        topic: row.get(1),
        partitions: row.get(2),
        age: row.get(3),
    };
    Ok(rows.iter().map(line).collect())
}
