//! Opens connections on which time zone, search path and timeout are set.

use super::deadline::AnswerLimit;
use super::dial::dial;
use super::failure::DatabaseError;
use super::session;
use crate::config::resolved::PostgresSettings;

/// Opens one connection outside of any pool. It keeps the time zone, the search path and the timeout that are set on
/// it.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn connect(settings: &PostgresSettings) -> Result<postgres::Client, DatabaseError> {
    connect_adjustable(settings).map(|(client, _)| client)
}

/// Opens a connection as [`connect`] does. The limit of its answers can be changed, for statements that take longer than
/// `postgres.statement_timeout`.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn connect_adjustable(settings: &PostgresSettings) -> Result<(postgres::Client, AnswerLimit), DatabaseError> {
    let (mut client, limit) = dial(settings)?;
    session::prepare(&mut client, settings)?;
    session::probe(&mut client, settings)?;
    Ok((client, limit))
}
