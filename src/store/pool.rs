//! A pool of connections for queries. It returns the real reason if there is no connection; r2d2 only reports a
//! timeout.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::connection::connect;
use super::failure::DatabaseError;
use crate::config::resolved::PostgresSettings;

/// Pool of connections that are opened when needed.
pub struct Pool {
    inner: r2d2::Pool<ConnectionManager>,
    /// Section of the settings that contains the user and the password.
    section: &'static str,
    last: Last,
}

/// Reason why the last attempt to connect failed; `None` after a success.
type Last = Arc<Mutex<Option<DatabaseError>>>;

/// A connection of the pool, which returns to the pool on drop.
pub type PooledConnection = r2d2::PooledConnection<ConnectionManager>;

/// Opens the connections of the pool.
pub struct ConnectionManager {
    settings: PostgresSettings,
    last: Last,
}

impl r2d2::ManageConnection for ConnectionManager {
    type Connection = postgres::Client;
    type Error = DatabaseError;

    fn connect(&self) -> Result<postgres::Client, DatabaseError> {
        let made = connect(&self.settings);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = made.as_ref().err().cloned();
        made
    }

    fn is_valid(&self, client: &mut postgres::Client) -> Result<(), DatabaseError> {
        Ok(client.simple_query("").map(drop)?)
    }

    fn has_broken(&self, client: &mut postgres::Client) -> bool {
        client.is_closed()
    }
}

impl Pool {
    /// Creates a pool of at most `size` connections, without connecting. The user and the password of the settings are
    /// those of `section`.
    pub fn new(settings: &PostgresSettings, section: &'static str, size: u32) -> Pool {
        let last = Last::default();
        let inner = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .connection_timeout(settings.connect_timeout)
            // A broken connection is noticed in use; a round trip before each use would cost more.
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(ConnectionManager { settings: settings.clone(), last: last.clone() });
        Pool { inner, section, last }
    }

    /// Changes an error of one of these connections, so that its remedy names the section of their settings.
    pub fn own(&self, error: DatabaseError) -> DatabaseError {
        error.for_section(self.section)
    }

    /// Returns the maximum number of connections.
    pub fn max_size(&self) -> u32 {
        self.inner.max_size()
    }

    /// Returns a connection, after waiting at most this long.
    ///
    /// # Errors
    /// Returns why no connection could be opened, or `Slow` if all are in use.
    pub fn get(&self, patience: Duration) -> Result<PooledConnection, DatabaseError> {
        self.inner.get_timeout(patience).map_err(|_| {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let slow = || DatabaseError::Slow(format!("no connection within {} ms", patience.as_millis()));
            last.map_or_else(slow, |error| self.own(error))
        })
    }
}
