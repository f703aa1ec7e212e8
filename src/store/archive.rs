//! The archive in PostgreSQL: the position of the sinks, and the followers. The queries are in [`query`].

use super::connection::connect;
use super::failure::DatabaseError;
use super::follower::PostgresFollower;
use super::query;
use super::reader::PostgresArchive;
use crate::archive::{Archive, Cursor, Follower, NoAnswer};

impl Archive for PostgresArchive {
    fn ping(&self) -> Result<(), NoAnswer> {
        self.ask(|client| client.simple_query("select 1").map(drop))
    }

    fn position(&self) -> Result<Cursor, NoAnswer> {
        self.ask(query::position)
    }

    fn follow(&self) -> Result<Box<dyn Follower>, NoAnswer> {
        let client = connect(self.settings()).map_err(DatabaseError::for_archive)?;
        Ok(Box::new(PostgresFollower::new(client)?))
    }
}
