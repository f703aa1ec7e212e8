//! PostgreSQL: the pool, the migrations of the schema, the writes of the sink and the heartbeat, and the queries of the
//! pages. Everything here blocks; async callers use a thread of their own or `spawn_blocking`.

mod archive;
pub mod authorities;
mod copy;
mod deadline;
mod failure;
mod follower;
pub mod heartbeat;
pub mod ledger;
pub mod maintain;
pub mod migrate;
mod pool;
pub mod query;
pub mod row;
mod session;
mod tls;

use std::time::Duration;

use postgres::config::{SslMode, SslNegotiation, TargetSessionAttrs};

pub use archive::PostgresArchive;
pub use deadline::AnswerLimit;
pub use failure::{DatabaseError, Refusal, explain};
pub use pool::{Pool, PooledConnection};

use crate::archive::{ConditionRow, StatusRow};
use crate::config::resolved::PostgresSettings;
use crate::error::Result;
use crate::ledger::LedgerError;
use crate::unavailable::Unavailable;
use deadline::{Encryption, MakeDeadlineConnector};

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

/// Opens a connection on which nothing is set, to the first host that accepts one. Every connection is opened here.
/// Each step and each answer has a deadline, except over a Unix socket.
fn dial(settings: &PostgresSettings) -> Result<(postgres::Client, AnswerLimit), DatabaseError> {
    let tls = tls::connector(settings).map_err(|e| DatabaseError::unusable(e.message, ""))?;
    let limit = AnswerLimit::new(settings);
    let encryption = match settings.sslmode.as_str() {
        "disable" => Encryption::Never,
        "prefer" => Encryption::IfOffered,
        _ => Encryption::Always,
    };
    let connector =
        MakeDeadlineConnector { tls, encryption, handshake: settings.connect_timeout, limit: limit.clone() };
    let mut failure = DatabaseError::unusable("no host is named", "Set postgres.host");
    for host in hosts(settings) {
        match dial_host(settings, host, connector.clone()) {
            Ok(client) => return Ok((client, limit)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn dial_host(
    settings: &PostgresSettings,
    host: &str,
    connector: MakeDeadlineConnector,
) -> Result<postgres::Client, DatabaseError> {
    let mut config = connection(settings, host);
    let connected = match host.starts_with('/') {
        // The crate `postgres` does not let a connector wrap a Unix socket, and there is no TLS over it.
        true => config.ssl_mode(connector.encryption.mode()).connect(connector.tls),
        false => {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            config.connect(connector)
        }
    };
    connected.map_err(DatabaseError::from).map_err(|error| match error {
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
    open_adjustable(settings).map(|(client, _)| client)
}

/// Opens a connection as [`open`] does. The limit of its answers can be changed.
fn open_adjustable(settings: &PostgresSettings) -> Result<(postgres::Client, AnswerLimit), LedgerError> {
    let (mut client, limit) = connect_adjustable(settings).map_err(DatabaseError::for_ledger)?;
    match migrate::state(&mut client).map_err(DatabaseError::for_ledger)?.problem() {
        Some(problem) => Err(LedgerError::Failed(problem)),
        None => Ok((client, limit)),
    }
}

/// Interval between two probes of a silent connection, of which three may fail.
const KEEPALIVE: Duration = Duration::from_secs(1);

fn hosts(settings: &PostgresSettings) -> impl Iterator<Item = &str> {
    settings.host.split(',').map(str::trim).filter(|host| !host.is_empty())
}

fn connection(settings: &PostgresSettings, host: &str) -> postgres::Config {
    let mut config = postgres::Config::new();
    let timeout = settings.connect_timeout;
    config.host(host);
    if hosts(settings).count() > 1 {
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
        // The operating system takes whole seconds.
        .keepalives_idle(timeout.max(KEEPALIVE))
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3);
    if !settings.password.reveal().is_empty() {
        config.password(settings.password.reveal());
    }
    config
}
