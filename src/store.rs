//! PostgreSQL: the pool, the migrations of the schema, the writes of the sink and the heartbeat, and the queries of the
//! pages. Everything here blocks; async callers use a thread of their own or `spawn_blocking`.

mod archive;
pub mod authorities;
mod connection;
mod copy;
mod deadline;
mod dial;
mod failure;
mod follower;
pub mod heartbeat;
pub mod ledger;
pub mod maintain;
pub mod migrate;
mod pool;
pub mod query;
mod reader;
pub mod row;
mod session;
mod shortage;
mod tls;
mod writer;

pub use connection::{connect, connect_adjustable};
pub use deadline::AnswerLimit;
pub use failure::{DatabaseError, Refusal, explain};
pub use pool::{Pool, PooledConnection};
pub use reader::PostgresArchive;

use crate::archive::{ConditionRow, StatusRow};
use crate::config::resolved::PostgresSettings;
use crate::error::Result;

/// Creates a pool of at most `size` connections, without connecting. The settings `user` and `password` are those of
/// `section`.
///
/// # Errors
/// 78 if the TLS settings cannot be used.
pub fn pool(settings: &PostgresSettings, section: &'static str, size: u32) -> Result<Pool> {
    tls::connector(settings)?;
    Ok(Pool::new(settings, section, size))
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
