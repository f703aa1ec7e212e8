//! The archive in PostgreSQL: lends a connection to each question, replaces those that an outage broke, and says in three
//! words why there is no answer. Knows nothing of pages.

use std::time::Duration;

use postgres::{Client, Error};

use super::{Failure, Pool, explain, query};
use crate::archive::{
    self, Archive, BinCount, Bins, CoverageRow, Filter, Key, LaneCount, NameCount, Page, Record, StatusRow,
};
use crate::event::Instant;

/// Longest wait for a connection. A reader waits for the answer: an outage must be told before that becomes a bore.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads through a pool.
pub struct Reader {
    pool: Pool,
}

impl Reader {
    /// Connects to nothing yet.
    pub fn new(pool: Pool) -> Self {
        Reader { pool }
    }

    /// Asks with a connection. After a restart of the server every pooled connection is broken, which shows only when it is
    /// used: each of them may fail once before a fresh one is tried.
    fn ask<T>(&self, question: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, archive::Failure> {
        for _ in 0..self.pool.max_size() {
            let mut connection = self.pool.get_timeout(PATIENCE).map_err(|e| archive::Failure::Away(e.to_string()))?;
            match question(&mut connection) {
                Err(_) if connection.is_closed() => {}
                answer => return answer.map_err(failure),
            }
        }
        let mut connection = self.pool.get_timeout(PATIENCE).map_err(|e| archive::Failure::Away(e.to_string()))?;
        question(&mut connection).map_err(failure)
    }
}

fn failure(error: Error) -> archive::Failure {
    let state = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
    match (state.as_str(), Failure::from(error)) {
        ("57014", _) => archive::Failure::Slow,
        (_, Failure::Away(why)) => archive::Failure::Away(why),
        ("42P01" | "42703" | "3F000", Failure::Refused(error)) => archive::Failure::Refused(format!(
            "The tables are missing or older than this program: run `anomaly migrate` ({})",
            explain(&error)
        )),
        ("42501", Failure::Refused(error)) => archive::Failure::Refused(format!(
            "The dashboard's role may not read the tables: grant it select ({})",
            explain(&error)
        )),
        (_, refused) => archive::Failure::Refused(refused.to_string()),
    }
}

impl Archive for Reader {
    fn ping(&self) -> Result<(), archive::Failure> {
        self.ask(|client| client.simple_query("select 1").map(drop))
    }

    fn newest(&self, filter: &Filter, before: Option<&Key>, limit: u32) -> Result<Page, archive::Failure> {
        self.ask(|client| query::newest(client, filter, before, limit))
    }

    fn at(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<Record>, archive::Failure> {
        self.ask(|client| query::at(client, topic, partition, offset))
    }

    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, archive::Failure> {
        self.ask(|client| query::by_time(client, filter, bins))
    }

    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::Failure> {
        self.ask(|client| query::by_device(client, filter, limit))
    }

    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::Failure> {
        self.ask(|client| query::by_metric(client, filter, limit))
    }

    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, archive::Failure> {
        self.ask(|client| query::lanes(client, filter, bins, devices))
    }

    fn coverage(&self, from: Instant, to: Instant) -> Result<Vec<CoverageRow>, archive::Failure> {
        self.ask(|client| query::coverage(client, from, to))
    }

    fn status(&self) -> Result<Vec<StatusRow>, archive::Failure> {
        self.ask(query::status)
    }
}
