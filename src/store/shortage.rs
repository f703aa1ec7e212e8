//! Opens a connection in a process that may have too few file descriptors or threads. The crate `postgres` panics if it
//! cannot create the runtime of a connection, which would end the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::DatabaseError;

/// Opens a connection with the crate `postgres`. A shortage of the system becomes an error.
pub(super) fn open(
    connect: impl FnOnce() -> Result<postgres::Client, postgres::Error>,
) -> Result<postgres::Client, DatabaseError> {
    // The crate creates the same runtime.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DatabaseError::Shortage(error.to_string()))?;
    // Another thread may take the last descriptors after this check.
    match catch_unwind(AssertUnwindSafe(connect)) {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(DatabaseError::Shortage("a connection could not be created; see the log".to_owned())),
    }
}
