//! Maintains the partitions of `anomalies`: creates them ahead, and drops them when `postgres.retention` has passed by
//! all clocks.

use std::time::Duration;

use time::OffsetDateTime;

use super::failure::DatabaseError;
use super::writer::open_adjustable;
use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;

/// Result of one maintenance step.
#[derive(Debug, Clone, PartialEq)]
pub struct MaintenanceResult {
    /// Number of partitions that were created.
    pub made: i32,
    /// Number of partitions that were dropped with all their rows.
    pub dropped: i32,
    /// Number of rows outside of partitions that were deleted.
    pub trimmed: i64,
    /// Whether there is more to do, so that the next call should follow soon.
    pub is_more: bool,
    /// Deletion that waits because it is unusually large.
    pub plan: Option<PendingDeletion>,
    /// Time of the database's clock minus this machine's, in milliseconds.
    pub clocks_apart: i64,
    /// Sessions that hold the lock of the maintenance, so that nothing was done; empty if it was free.
    pub blockers: Vec<Blocker>,
}

/// A session that holds the lock of the maintenance.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Database role of the session.
    pub role: String,
    /// Number of the server's process, as `pg_terminate_backend` expects it; 0 for a prepared transaction.
    pub process: i32,
    /// The client's `application_name`.
    pub application: String,
    /// Whether the session has another role than this program, and so is not another detector.
    pub is_foreign: bool,
}

/// A deletion that waits because it is unusually large.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingDeletion {
    /// Oldest time that is stored.
    pub from: Option<Timestamp>,
    /// Time before which everything will be deleted.
    pub to: Timestamp,
    /// Number of anomalies that will be deleted.
    pub rows: i64,
    /// Time until the deletion.
    pub remaining: Duration,
}

/// Maximum duration of a step; moving rows takes longest.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// Performs one step of maintenance over a connection of its own. Of several processes only one at a time does
/// anything. `elapsed` is the time since this process' last call, by its monotonic clock.
///
/// # Errors
/// Returns the reason as a sentence.
pub fn maintain(settings: &PostgresSettings, elapsed: Duration) -> Result<MaintenanceResult, String> {
    let (mut client, answers) = open_adjustable(settings).map_err(|e| e.to_string())?;
    let [retention, elapsed, delay] = [settings.retention, elapsed, settings.retention_delay].map(|d| d.as_secs_f64());
    let mut call = || -> Result<MaintenanceResult, postgres::Error> {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!("set local statement_timeout = {}", STEP_TIMEOUT.as_millis()))?;
        answers.allow(STEP_TIMEOUT);
        let sql = "select made, dropped, trimmed, is_more, due_from, due_to, due_rows,
                extract(epoch from remaining)::float8, extract(epoch from now() - $2)::float8
            from anomalies_maintain(make_interval(secs => $1), $2, make_interval(secs => $3), make_interval(secs => $4))";
        let blockers = blockers(&mut transaction)?;
        let row = transaction.query_one(sql, &[&retention, &OffsetDateTime::now_utc(), &elapsed, &delay])?;
        transaction.commit()?;
        let time = |column| row.get::<_, Option<OffsetDateTime>>(column).map(Timestamp::from);
        let plan = time(5).map(|to| PendingDeletion {
            from: time(4),
            to,
            rows: row.get::<_, Option<i64>>(6).unwrap_or(0),
            remaining: Duration::from_secs_f64(row.get::<_, Option<f64>>(7).unwrap_or(0.0).max(0.0)),
        });
        Ok(MaintenanceResult {
            made: row.get(0),
            dropped: row.get(1),
            trimmed: row.get(2),
            is_more: row.get(3),
            plan,
            clocks_apart: (row.get::<_, f64>(8) * 1000.0) as i64,
            blockers,
        })
    };
    call().map_err(|e| DatabaseError::from(e).sentence())
}

/// Takes the lock of `anomalies_maintain`, which the transaction keeps; returns the sessions that hold it if it is not
/// free. Every role of the database can take an advisory lock. A detector that connects as another role is not foreign.
fn blockers(transaction: &mut postgres::Transaction<'_>) -> Result<Vec<Blocker>, postgres::Error> {
    const KEY: &str = "'anomalies'::regclass::oid::bigint";
    if transaction.query_one(&format!("select pg_try_advisory_xact_lock({KEY})"), &[])?.get(0) {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select coalesce(usename::text, ''), coalesce(pid, 0), coalesce(application_name, ''),
         usename is distinct from session_user and application_name is distinct from 'anomaly'
         from pg_locks left join pg_stat_activity using (pid)
         where locktype = 'advisory' and granted and objsubid = 1 and classid = 0 and objid::bigint = {KEY}
         and database = (select oid from pg_database where datname = current_database()) order by pid"
    );
    let blocker = |row: postgres::Row| Blocker {
        role: row.get(0),
        process: row.get(1),
        application: row.get(2),
        is_foreign: row.get(3),
    };
    Ok(transaction.query(&sql, &[])?.into_iter().map(blocker).collect())
}
