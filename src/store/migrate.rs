//! Migrates the schema: the numbered files of `sql/` are embedded, and each is applied once, in order.

mod permissions;
mod prerelease;

pub use permissions::{DashboardRole, grant, grant_page, missing_permission};
pub use prerelease::replacement;

use std::time::Duration;

use postgres::Client;
use refinery::{Migration, Runner};

use super::deadline::AnswerLimit;
use super::failure::DatabaseError;
use crate::config::resolved::PostgresSettings;
use crate::error::{Error, Result};
use crate::fail;

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Number of the lock that makes concurrent migrations wait for one another. Any constant is suitable.
const LOCK: i64 = 0x0061_6e6f_6d61_6c79;

/// Maximum duration of one migration, which has no `statement_timeout`.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Returns all migrations of this program, in order.
fn migrations() -> Vec<Migration> {
    let mut known = embedded::migrations::runner().get_migrations().clone();
    let next = fail::next_schema().map(|sql| Migration::unapplied(&format!("V{}__next", known.len() + 1), &sql));
    known.extend(next.and_then(std::result::Result::ok));
    known
}

/// Returns the newest version that this program knows.
pub fn wanted() -> i32 {
    migrations().iter().map(Migration::version).max().unwrap_or(0)
}

/// State of the schema in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// The database has no tables of this program.
    Missing,
    /// The tables were created before the first release. No migration leads from them to the current schema.
    PreRelease,
    /// The schema has this version.
    Version(i32),
}

impl SchemaState {
    /// Returns why this program cannot use the schema, with the remedy; `None` if it can.
    pub fn problem(self) -> Option<String> {
        let wanted = wanted();
        match self {
            SchemaState::Missing => Some("there are no tables: run `anomaly migrate`".into()),
            SchemaState::PreRelease => Some(
                "the tables were created by a version before the first release: run `anomaly migrate`, which shows how \
                 to replace them"
                    .into(),
            ),
            SchemaState::Version(found) if found > wanted => Some(format!(
                "the database's schema is version {found}, newer than this program knows ({wanted}): upgrade anomaly"
            )),
            SchemaState::Version(found) if found < wanted => {
                Some(format!("the database's schema is version {found} of {wanted}: run `anomaly migrate`"))
            }
            SchemaState::Version(_) => None,
        }
    }
}

/// Reads the state of the schema in the database.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn state(client: &mut Client) -> Result<SchemaState, DatabaseError> {
    let sql = "select to_regclass('refinery_schema_history') is not null, to_regclass('anomalies') is not null";
    let row = client.query_one(sql, &[])?;
    let without_version = if row.get(1) { SchemaState::PreRelease } else { SchemaState::Missing };
    if !row.get::<_, bool>(0) {
        return Ok(without_version);
    }
    let sql = "select max(version)::int4, max(checksum) filter (where version = 1) from refinery_schema_history";
    let row = client.query_one(sql, &[])?;
    let (Some(version), first) = (row.get::<_, Option<i32>>(0), row.get::<_, Option<String>>(1)) else {
        return Ok(without_version);
    };
    let known = migrations().first().map(|first| first.checksum().to_string());
    Ok(if first == known { SchemaState::Version(version) } else { SchemaState::PreRelease })
}

/// Creates the schema if it is named and missing, and applies the missing migrations. Returns their names.
///
/// # Errors
/// 69 with the database's reason. 78 if the schema is newer than this program or older than the first release.
pub fn migrate(client: &mut Client, answers: &AnswerLimit, settings: &PostgresSettings) -> Result<Vec<String>> {
    let failed = |e: postgres::Error| refused(&e, settings);
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).map_err(failed)?;
    // `create schema if not exists` needs the permission to create even if the schema exists.
    let is_missing = "select $1 <> '' and to_regnamespace($1) is null";
    let schema = &settings.schema;
    if client.query_one(is_missing, &[schema]).map_err(failed)?.get(0) {
        client.batch_execute(&format!("create schema {schema}")).map_err(failed)?;
    }
    let state = state(client).map_err(|e| Error::unavailable(format_args!("cannot migrate: {e}")))?;
    match state {
        SchemaState::PreRelease => {
            return Err(Error::config(
                "the tables were created by a version before the first release, and cannot be upgraded. Nothing was changed",
            ));
        }
        SchemaState::Version(found) if found > wanted() => {
            return Err(Error::config(state.problem().unwrap_or_default()));
        }
        SchemaState::Version(found) if found == wanted() => {}
        SchemaState::Missing | SchemaState::Version(_) => answers.allow(MIGRATION_TIMEOUT),
    }
    let report = Runner::new(&migrations()).set_abort_missing(false).run(client);
    answers.allow(settings.statement_timeout);
    let unlocked = client.execute("select pg_advisory_unlock($1)", &[&LOCK]);
    // If a migration ends the connection, its error is the reason.
    let report =
        report.map_err(|e| match std::error::Error::source(&e).and_then(<dyn std::error::Error>::downcast_ref) {
            // The runner's own text lacks the server's message.
            Some(cause) => refused(cause, settings),
            None => Error::unavailable(format_args!("cannot migrate: {e}")),
        })?;
    unlocked.map_err(failed)?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Creates the error of a migration, with SQLSTATE and remedy.
fn refused(error: &postgres::Error, settings: &PostgresSettings) -> Error {
    let mut error = DatabaseError::of(error);
    if let DatabaseError::Refused(refusal) = &mut error
        && refusal.state == "42501"
    {
        let (user, dbname) = (&settings.user, &settings.dbname);
        let schema = if settings.schema.is_empty() { "public" } else { &settings.schema };
        refusal.remedy = format!(
            "Role {user} must own the tables and may create them: grant create on schema {schema} to {user} (where the \
             schema does not exist: grant create on database {dbname} to {user}), or name another role in migrate.user"
        );
    }
    Error::unavailable(format_args!("cannot migrate: {error}"))
}

/// Returns the database's encoding if it can store every name, or why it is not suitable, with the remedy.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn encoding(client: &mut Client) -> Result<Result<String, String>, DatabaseError> {
    let sql = "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()";
    let encoding: String = client.query_one(sql, &[])?.get(0);
    // SQL_ASCII stores all bytes unchanged.
    if ["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
        return Ok(Ok(encoding));
    }
    Ok(Err(format!(
        "the database's encoding is {encoding}, which lacks most characters: anomalies whose names have them are refused. Use \
         a database that was made with encoding UTF8 (create database ... encoding 'UTF8' template template0)"
    )))
}

/// Reads the database's clock.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn clock(client: &mut Client) -> Result<crate::event::Timestamp, DatabaseError> {
    Ok(client.query_one("select clock_timestamp()", &[])?.get::<_, time::OffsetDateTime>(0).into())
}
