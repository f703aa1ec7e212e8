//! The partitions of `anomalies`: made ahead, and dropped when `postgres.retention` has passed.

use super::{Failure, open};
use crate::config::resolved::Postgres;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions that were made.
    pub made: i32,
    /// Partitions that were dropped with all that was in them.
    pub dropped: i32,
    /// Rows outside of partitions that were deleted.
    pub trimmed: i64,
    /// There is more to do: call again soon.
    pub is_more: bool,
}

/// Longest time that it may take; moving rows is the longest part.
const LIMIT: &str = "10min";

/// Makes, drops and trims a little over a connection of its own. Any number of processes may; only one at a time does anything.
///
/// # Errors
/// Why not, as a sentence.
pub fn maintain(settings: &Postgres) -> Result<Maintained, String> {
    let mut client = open(settings)?;
    let seconds = settings.retention.as_secs_f64();
    let mut call = || -> Result<Maintained, postgres::Error> {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!("set local statement_timeout = '{LIMIT}'"))?;
        let sql = "select made, dropped, trimmed, is_more from anomalies_maintain(make_interval(secs => $1))";
        let row = transaction.query_one(sql, &[&seconds])?;
        transaction.commit()?;
        Ok(Maintained { made: row.get(0), dropped: row.get(1), trimmed: row.get(2), is_more: row.get(3) })
    };
    call().map_err(|e| Failure::from(e).sentence())
}
