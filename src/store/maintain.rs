//! Maintains the partitions of `anomalies`: creates them ahead, and drops them when `postgres.retention` has passed by
//! all clocks.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DatabaseError, open};
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
const LIMIT: &str = "10min";

/// Performs one step of maintenance over a connection of its own. Of several processes only one at a time does
/// anything. `elapsed` is the time since this process' last call, by its monotonic clock.
///
/// # Errors
/// Returns the reason as a sentence.
pub fn maintain(settings: &PostgresSettings, elapsed: Duration) -> Result<MaintenanceResult, String> {
    let mut client = open(settings).map_err(|e| e.to_string())?;
    let [retention, elapsed, delay] = [settings.retention, elapsed, settings.retention_delay].map(|d| d.as_secs_f64());
    let mut call = || -> Result<MaintenanceResult, postgres::Error> {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!("set local statement_timeout = '{LIMIT}'"))?;
        let sql = "select made, dropped, trimmed, is_more, due_from, due_to, due_rows,
                extract(epoch from remaining)::float8, extract(epoch from now() - $2)::float8
            from anomalies_maintain(make_interval(secs => $1), $2, make_interval(secs => $3), make_interval(secs => $4))";
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
        })
    };
    call().map_err(|e| DatabaseError::from(e).sentence())
}
