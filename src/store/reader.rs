//! The archive in PostgreSQL: lends a connection to each question, replaces those that an outage broke, and says in three
//! words why there is no answer. Knows nothing of pages.

use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Client, Error};

use super::follower::Listener;
use super::{Failure, Pool, connection, explain, marks, query, tls};
use crate::archive::{
    self, ActivityRow, Archive, BinCount, Bins, ConditionRow, CoverageRow, Cursor, Filter, Follower, Key, LaneCount,
    Mark, NameCount, NewMark, Order, Page, Quality, Record, Review, StatusRow,
};
use crate::config::resolved::Postgres;
use crate::event::Instant;

/// Longest wait for a connection. A reader waits for the answer: an outage must be told before that becomes a bore.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads through a pool; writes marks through another one, whose role may do nothing else.
pub struct Reader {
    settings: Postgres,
    pool: Pool,
    marker: Pool,
}

impl Reader {
    /// Connects to nothing yet. `settings` are those of the reading pool.
    pub fn new(settings: &Postgres, pool: Pool, marker: Pool) -> Self {
        Reader { settings: settings.clone(), pool, marker }
    }

    fn ask<T>(&self, question: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, archive::Failure> {
        ask(&self.pool, question)
    }

    /// The end of the hour in which the retention begins; 0 keeps everything.
    fn since(&self) -> query::Since {
        const HOUR: i64 = 3_600_000;
        let retention = self.settings.retention.as_millis() as i64;
        let hour = (Instant::now().millis() - retention).div_euclid(HOUR);
        (retention > 0).then(|| Instant::from_millis((hour + 1) * HOUR)).flatten()
    }
}

/// Asks with a connection. After a restart of the server every pooled connection is broken, which shows only when it is used:
/// each of them may fail once before a fresh one is tried.
fn ask<T>(pool: &Pool, question: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, archive::Failure> {
    for _ in 0..pool.max_size() {
        let mut connection = pool.get_timeout(PATIENCE).map_err(|e| archive::Failure::Away(e.to_string()))?;
        match question(&mut connection) {
            Err(_) if connection.is_closed() => {}
            answer => return answer.map_err(failure),
        }
    }
    let mut connection = pool.get_timeout(PATIENCE).map_err(|e| archive::Failure::Away(e.to_string()))?;
    question(&mut connection).map_err(failure)
}

/// Why the database gave no answer, with the remedy.
pub fn failure(error: Error) -> archive::Failure {
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

    fn newer(&self, filter: &Filter, after: &Key, limit: u32) -> Result<Page, archive::Failure> {
        self.ask(|client| query::newer(client, filter, after, limit))
    }

    fn ranked(&self, filter: &Filter, order: Order, limit: u32) -> Result<Vec<Record>, archive::Failure> {
        self.ask(|client| query::ranked(client, filter, order, limit))
    }

    fn at(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<Record>, archive::Failure> {
        self.ask(|client| query::at(client, topic, partition, offset))
    }

    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, archive::Failure> {
        self.ask(|client| query::by_time(client, filter, bins, self.since()))
    }

    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::Failure> {
        self.ask(|client| query::by_device(client, filter, limit, self.since()))
    }

    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::Failure> {
        self.ask(|client| query::by_metric(client, filter, limit, self.since()))
    }

    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, archive::Failure> {
        self.ask(|client| query::lanes(client, filter, bins, devices, self.since()))
    }

    fn coverage(&self, from: Instant, to: Instant, grain: i64) -> Result<Vec<CoverageRow>, archive::Failure> {
        self.ask(|client| query::coverage(client, from, to, grain))
    }

    fn activity(&self, from: Instant, to: Instant) -> Result<Vec<ActivityRow>, archive::Failure> {
        self.ask(|client| query::activity(client, from, to))
    }

    fn conditions(&self) -> Result<Vec<ConditionRow>, archive::Failure> {
        self.ask(query::conditions)
    }

    fn status(&self) -> Result<Vec<StatusRow>, archive::Failure> {
        self.ask(query::status)
    }

    fn search(&self, text: &str, limit: u32) -> Result<Vec<String>, archive::Failure> {
        self.ask(|client| query::search(client, text, limit))
    }

    fn position(&self) -> Result<Cursor, archive::Failure> {
        self.ask(query::position)
    }

    fn marks(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<Mark>, archive::Failure> {
        self.ask(|client| marks::of(client, topic, partition, offset))
    }

    fn mark(&self, mark: &NewMark) -> Result<bool, archive::Failure> {
        let Some(time) = self.ask(|client| marks::event_time(client, mark))? else { return Ok(false) };
        ask(&self.marker, |client| marks::add(client, mark, time))?;
        Ok(true)
    }

    fn reviews(&self, from: Instant, to: Instant) -> Result<Vec<(Review, u64)>, archive::Failure> {
        self.ask(|client| marks::reviews(client, from, to))
    }

    fn settings(&self, hash: &str) -> Result<Option<Vec<(String, String)>>, archive::Failure> {
        self.ask(|client| query::settings(client, hash))
    }

    fn quality(&self, from: Instant, to: Instant) -> Result<Vec<Quality>, archive::Failure> {
        self.ask(|client| marks::quality(client, from, to))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, archive::Failure> {
        let tls = tls(&self.settings).map_err(|e| archive::Failure::Away(e.message))?;
        let client = connection(&self.settings).connect(tls).map_err(|error| match error.code() {
            // The pool's still answer.
            Some(&SqlState::TOO_MANY_CONNECTIONS) => archive::Failure::Refused(explain(&error)),
            _ => failure(error),
        })?;
        Ok(Box::new(Listener::new(client)?))
    }
}
