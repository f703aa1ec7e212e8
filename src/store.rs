//! PostgreSQL: the pool, the migrations of the schema, the writes of the sink and the heartbeat, and the queries of the
//! pages. Everything here blocks; async callers use a thread of their own or `spawn_blocking`.

pub mod authorities;
mod copy;
mod failure;
mod follower;
pub mod heartbeat;
pub mod maintain;
pub mod migrate;
mod pool;
pub mod query;
mod archive;
pub mod row;
mod session;
pub mod ledger;
mod tls;

use std::time::Duration;

use postgres::config::{SslMode, TargetSessionAttrs};

pub use archive::PostgresArchive;
pub use failure::{DatabaseError, Refusal, explain};
pub use pool::{Pool, PooledConnection};

use crate::archive::{ConditionRow, StatusRow};
use crate::config::resolved::PostgresSettings;
use crate::error::Result;
use crate::ledger::LedgerError;
use crate::unavailable::Unavailable;

/// Creates a pool of at most `size` connections, without connecting. The settings `user` and `password` are those of
/// `section`.
///
/// # Errors
/// 78 if the TLS settings cannot be used.
pub fn pool(settings: &PostgresSettings, section: &'static str, size: u32) -> Result<Pool> {
    tls::connector(settings)?;
    Ok(Pool::new(settings, section, size))
}

/// Opens one connection outside of any pool. It keeps the time zone, the search path and the timeout that are set on
/// it.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn connect(settings: &PostgresSettings) -> Result<postgres::Client, DatabaseError> {
    let mut client = dial(settings)?;
    session::prepare(&mut client, settings)?;
    session::probe(&mut client, settings)?;
    Ok(client)
}

/// Opens a connection on which nothing is set.
fn dial(settings: &PostgresSettings) -> Result<postgres::Client, DatabaseError> {
    let tls = tls::connector(settings).map_err(|e| DatabaseError::unusable(e.message, ""))?;
    connection(settings).connect(tls).map_err(DatabaseError::from).map_err(|error| match error {
        // In TLS 1.3 the server checks the client's certificate after the handshake. Its alert may be lost with the
        // connection.
        DatabaseError::Unavailable(Unavailable { cause, .. }) if !settings.sslcert.is_empty() => {
            DatabaseError::Unavailable(Unavailable::postgresql(format!(
                "{cause}; perhaps it refuses the certificate in postgres.sslcert: its log says so"
            )))
        }
        other => other,
    })
}

/// Reads the last heartbeat of every partition and the active conditions, over a connection of its own.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn status(settings: &PostgresSettings) -> Result<(Vec<StatusRow>, Vec<ConditionRow>), DatabaseError> {
    let mut client = connect(settings)?;
    Ok((query::status(&mut client)?, query::conditions(&mut client)?))
}

/// Removes heartbeats and conditions that are older than an hour, such as those of a deleted topic.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn forget(settings: &PostgresSettings) -> Result<Vec<heartbeat::Forgotten>, DatabaseError> {
    Ok(heartbeat::forget(&mut connect(settings)?)?)
}

/// Opens a connection for writing. It refuses a schema of another version: a newer one may have another meaning, and an
/// older one lacks columns.
///
/// # Errors
/// Fails with [`LedgerError`].
fn open(settings: &PostgresSettings) -> Result<postgres::Client, LedgerError> {
    let mut client = connect(settings).map_err(DatabaseError::for_ledger)?;
    match migrate::state(&mut client).map_err(DatabaseError::for_ledger)?.problem() {
        Some(problem) => Err(LedgerError::Failed(problem)),
        None => Ok(client),
    }
}

/// Interval between two probes of a silent connection, of which three may fail.
const KEEPALIVE: Duration = Duration::from_secs(1);

fn connection(settings: &PostgresSettings) -> postgres::Config {
    let mut config = postgres::Config::new();
    let timeout = settings.connect_timeout;
    let hosts = settings.host.split(',').map(str::trim).filter(|host| !host.is_empty()).collect::<Vec<_>>();
    for host in &hosts {
        config.host(host);
    }
    if hosts.len() > 1 {
        // Of a primary and its standbys, only the primary accepts writes.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
        .port(settings.port)
        .dbname(&settings.dbname)
        .user(&settings.user)
        .application_name("anomaly")
        .connect_timeout(timeout)
        .tcp_user_timeout(timeout)
        .keepalives_idle(timeout)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3)
        .ssl_mode(match settings.sslmode.as_str() {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
    if !settings.password.reveal().is_empty() {
        config.password(settings.password.reveal());
    }
    config
}
