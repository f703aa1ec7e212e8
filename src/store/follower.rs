//! Follows the commits of the sinks over a connection of its own. It waits for their notification if the server can
//! send it, and polls otherwise.

use std::time::Duration;

use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Statement};

use super::session::failure;
use super::{query, row};
use crate::archive::{CommittedAnomaly, Cursor, Follower, NoAnswer};
use crate::unavailable::Unavailable;

/// Interval between two polls of a server that cannot notify (a standby).
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Follower of the table over one connection.
pub(crate) struct PostgresFollower {
    client: Client,
    rows: Statement,
    /// Whether the server notifies of commits; a standby does not.
    is_notified: bool,
}

impl PostgresFollower {
    /// Starts to listen for notifications.
    ///
    /// # Errors
    /// Fails with [`NoAnswer`].
    pub(crate) fn new(mut client: Client) -> Result<PostgresFollower, NoAnswer> {
        // A standby does not support `listen`, and is polled. Any other error is one.
        let is_notified = match client.batch_execute("listen anomalies") {
            Ok(()) => true,
            Err(e) if e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => false,
            Err(e) => return Err(failure(e)),
        };
        let columns = row::stored_columns();
        let rows = client
            .prepare(&format!(
                "select {columns}, sink_offset from anomalies where sink = $1 and sink_offset >= $2 and sink_offset < $3
                 order by sink_offset limit $4"
            ))
            .map_err(failure)?;
        Ok(PostgresFollower { client, rows, is_notified })
    }
}

impl Follower for PostgresFollower {
    fn position(&mut self) -> Result<Cursor, NoAnswer> {
        query::position(&mut self.client).map_err(failure)
    }

    fn committed(&mut self, sink: i32, from: i64, to: i64, limit: u32) -> Result<Vec<CommittedAnomaly>, NoAnswer> {
        let rows = self.client.query(&self.rows, &[&sink, &from, &to, &i64::from(limit)]).map_err(failure)?;
        let committed = |row: &postgres::Row| {
            Ok(CommittedAnomaly { sink, offset: row.try_get("sink_offset")?, record: row::stored(row)? })
        };
        rows.iter().map(committed).collect::<Result<_, postgres::Error>>().map_err(failure)
    }

    fn wait(&mut self, patience: Duration) -> Result<(), NoAnswer> {
        if !self.is_notified {
            std::thread::sleep(patience.min(POLL_INTERVAL));
            if self.client.is_closed() {
                return Err(NoAnswer::Unavailable(Unavailable::postgresql("the connection is closed")));
            }
            return Ok(());
        }
        let mut notifications = self.client.notifications();
        let first = notifications.timeout_iter(patience).next().map_err(failure)?;
        if first.is_some() {
            // One query serves the notifications of many sinks.
            let mut waiting = notifications.iter();
            while waiting.next().map_err(failure)?.is_some() {}
        }
        Ok(())
    }
}
