//! Opens connections for writing, after a check of the schema's version.

use super::connection::connect_adjustable;
use super::deadline::AnswerLimit;
use super::failure::DatabaseError;
use super::migrate;
use crate::config::resolved::PostgresSettings;
use crate::ledger::LedgerError;

/// Opens a connection for writing. It refuses a schema of another version: a newer one may have another meaning, and an
/// older one lacks columns.
///
/// # Errors
/// Fails with [`LedgerError`].
pub(super) fn open(settings: &PostgresSettings) -> Result<postgres::Client, LedgerError> {
    open_adjustable(settings).map(|(client, _)| client)
}

/// Opens a connection as [`open`] does. The limit of its answers can be changed.
pub(super) fn open_adjustable(settings: &PostgresSettings) -> Result<(postgres::Client, AnswerLimit), LedgerError> {
    let (mut client, limit) = connect_adjustable(settings).map_err(DatabaseError::for_ledger)?;
    match migrate::state(&mut client).map_err(DatabaseError::for_ledger)?.problem() {
        Some(problem) => Err(LedgerError::Failed(problem)),
        None => Ok((client, limit)),
    }
}
