//! The schema: the numbered files of `sql/`, embedded, applied once each in order.

use postgres::Client;

use super::{DatabaseError, explain};
use crate::error::{Error, Result};

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Two programs that migrate at once wait for one another here. Any constant will do.
const LOCK: i64 = 0x0061_6e6f_6d61_6c79;

/// Creates the schema if it is named and missing, applies what is missing; returns the names of what was applied.
///
/// # Errors
/// 69 with the database's reason; 78 when the database is newer than this program.
pub fn migrate(client: &mut Client, schema: &str) -> Result<Vec<String>> {
    let failed = |e: postgres::Error| Error::unavailable(format_args!("cannot migrate: {}", explain(&e)));
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).map_err(failed)?;
    // `create schema if not exists` asks for the right to create also when it exists.
    let is_missing = "select $1 <> '' and to_regnamespace($1) is null";
    if client.query_one(is_missing, &[&schema]).map_err(failed)?.get(0) {
        client.batch_execute(&format!("create schema {schema}")).map_err(failed)?;
    }
    match version(client) {
        Ok(Some(found)) if found > wanted() => {
            return Err(Error::config(format_args!(
                "the database's schema is version {found}, newer than this program knows ({}): upgrade anomaly",
                wanted()
            )));
        }
        Ok(_) => {}
        Err(e) => return Err(Error::unavailable(format_args!("cannot migrate: {e}"))),
    }
    let report = embedded::migrations::runner().set_abort_missing(false).run(client);
    client.execute("select pg_advisory_unlock($1)", &[&LOCK]).map_err(failed)?;
    let report = report.map_err(|e| Error::unavailable(format_args!("cannot migrate: {e}")))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Lets another role than the owner use the tables: the one that the detector and the dashboard run as.
///
/// # Errors
/// 69 with the database's reason.
pub fn grant(client: &mut Client, schema: &str, role: &str) -> Result<()> {
    let failed =
        |e: postgres::Error| Error::unavailable(format_args!("cannot grant {role} its rights: {}", explain(&e)));
    let name = role.replace('\'', "''");
    let quoted = |row: postgres::Row| (row.get::<_, String>(0), row.get::<_, String>(1));
    let (schema, role) = client
        .query_one("select quote_ident(coalesce(nullif($1, ''), current_schema())), quote_ident($2)", &[&schema, &role])
        .map(quoted)
        .map_err(failed)?;
    client
        .batch_execute(&format!(
            "grant usage on schema {schema} to {role};
             grant select, insert, update, delete on all tables in schema {schema} to {role};
             grant usage, select on all sequences in schema {schema} to {role};
             grant execute on function {schema}.anomalies_maintain(interval, timestamptz, interval, interval) to {role};
             do $$ begin
                 -- The sink copies through a table of its session. Mostly everyone may have such; only the database's owner
                 -- can say so where that was revoked.
                 if not has_database_privilege('{name}', current_database(), 'TEMPORARY') then
                     execute format('grant temporary on database %I to {role}', current_database());
                 end if;
             end $$"
        ))
        .map_err(failed)
}

/// What a role of the pages may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DashboardRole {
    /// Read everything.
    Reads,
    /// Add marks, and nothing else.
    Marks,
}

/// Lets a role of the pages do its part.
///
/// # Errors
/// 69 with the database's reason.
pub fn grant_page(client: &mut Client, schema: &str, role: &str, part: DashboardRole) -> Result<()> {
    let failed =
        |e: postgres::Error| Error::unavailable(format_args!("cannot grant {role} its rights: {}", explain(&e)));
    let row = client
        .query_one("select quote_ident(coalesce(nullif($1, ''), current_schema())), quote_ident($2)", &[&schema, &role])
        .map_err(failed)?;
    let (schema, role): (String, String) = (row.get(0), row.get(1));
    let rights = match part {
        DashboardRole::Reads => format!("grant select on all tables in schema {schema} to {role}"),
        DashboardRole::Marks => format!("grant insert on {schema}.marks to {role}"),
    };
    client.batch_execute(&format!("grant usage on schema {schema} to {role}; {rights}")).map_err(failed)
}

/// The newest version that is applied; `None` before the first migration.
///
/// # Errors
/// As [`DatabaseError`] says.
pub fn version(client: &mut Client) -> Result<Option<i32>, DatabaseError> {
    let is_there = client.query_one("select to_regclass('refinery_schema_history') is not null", &[])?;
    if !is_there.get::<_, bool>(0) {
        return Ok(None);
    }
    Ok(client.query_one("select max(version)::int4 from refinery_schema_history", &[])?.get(0))
}

/// The newest version that this program knows.
pub fn wanted() -> i32 {
    embedded::migrations::runner().get_migrations().iter().map(|m| m.version()).max().unwrap_or(0)
}

const TABLES: [&str; 16] = [
    "anomalies",
    "sink_offsets",
    "sink_rejects",
    "detector_status",
    "detector_conditions",
    "activity",
    "rejected_samples",
    "seen_devices",
    "detector_settings",
    "coverage",
    "anomaly_minutes",
    "anomaly_hours",
    "anomaly_days",
    "anomaly_metrics",
    "devices",
    "marks",
];

/// Whether the role has these privileges, of which the first is to read, on every table; names the first that it lacks.
///
/// # Errors
/// As [`DatabaseError`] says.
pub fn missing_right(client: &mut Client, privileges: &[&str]) -> Result<Option<String>, DatabaseError> {
    for table in TABLES {
        // The detector has nothing to do with marks, and forgets settings never.
        let privileges = if table == "marks" { &privileges[..1] } else { privileges };
        for privilege in privileges {
            let row = client.query_one("select has_table_privilege($1, $2)", &[&table, privilege])?;
            if !row.get::<_, bool>(0) {
                return Ok(Some(format!("{privilege} on {table}")));
            }
        }
    }
    if !privileges.contains(&"insert") {
        return Ok(None);
    }
    let temporary = client.query_one("select has_database_privilege(current_database(), 'TEMPORARY')", &[])?;
    if !temporary.get::<_, bool>(0) {
        return Ok(Some("temporary on the database".into()));
    }
    let maintains = client.query_one(
        "select has_function_privilege('anomalies_maintain(interval, timestamptz, interval, interval)', 'EXECUTE')",
        &[],
    )?;
    Ok((!maintains.get::<_, bool>(0))
        .then(|| "execute on function anomalies_maintain(interval, timestamptz, interval, interval)".into()))
}

/// Why the database's encoding is of no use, with the remedy; `None` when it can store every name.
///
/// # Errors
/// As [`DatabaseError`] says.
pub fn unsuitable_encoding(client: &mut Client) -> Result<Option<String>, DatabaseError> {
    let sql = "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()";
    let encoding: String = client.query_one(sql, &[])?.get(0);
    // SQL_ASCII stores bytes as they come.
    Ok((!["UTF8", "SQL_ASCII"].contains(&encoding.as_str())).then(|| {
        format!(
            "the database's encoding is {encoding}, which lacks most characters: anomalies whose names have them are refused. Use \
             a database that was made with encoding UTF8 (create database ... encoding 'UTF8' template template0)"
        )
    }))
}

/// The database's clock.
///
/// # Errors
/// As [`DatabaseError`] says.
pub fn clock(client: &mut Client) -> Result<crate::event::Timestamp, DatabaseError> {
    Ok(client.query_one("select clock_timestamp()", &[])?.get::<_, time::OffsetDateTime>(0).into())
}
