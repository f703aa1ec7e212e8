//! The archive in PostgreSQL: lends a connection to each question, replaces those that an outage broke, and says in three
//! words why there is no answer. Knows nothing of pages.

use std::time::Duration;

use postgres::{Client, Error};

use super::follower::Listener;
use super::{Failure, Pool, connect, marks, query, session};
use crate::archive::{
    self, ActivityRow, Archive, BinCount, Bins, ConditionRow, CoverageRow, Cursor, DeadLetter, Filter, Follower, Key,
    Known, LaneCount, Mark, NameCount, NewMark, Order, Outside, Page, Quality, Record, Review, StatusRow,
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
        let mut connection = pool.get(PATIENCE).map_err(Failure::for_archive)?;
        match question(&mut connection) {
            Err(_) if connection.is_closed() => {}
            answer => return answer.map_err(failure),
        }
    }
    let mut connection = pool.get(PATIENCE).map_err(Failure::for_archive)?;
    question(&mut connection).map_err(failure)
}

/// Why the database gave no answer, with the remedy.
pub fn failure(error: Error) -> archive::Failure {
    let failure = Failure::from(error);
    if let Failure::Refused(refusal) = &failure
        && ["26000", "42P05"].contains(&refusal.state.as_str())
    {
        session::forget();
    }
    failure.for_archive()
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

    fn activity(&self, from: Instant, grain: i64) -> Result<Vec<ActivityRow>, archive::Failure> {
        self.ask(|client| query::activity(client, from, grain))
    }

    fn outside(&self, filter: &Filter, since: Instant, limit: u32) -> Result<Outside, archive::Failure> {
        self.ask(|client| query::outside(client, filter, since, limit))
    }

    fn fresh(&self, filter: &Filter, since: Instant) -> Result<u64, archive::Failure> {
        self.ask(|client| query::fresh(client, filter, since))
    }

    fn refused(&self, since: Instant) -> Result<u64, archive::Failure> {
        self.ask(|client| query::refused(client, since))
    }

    fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, archive::Failure> {
        self.ask(|client| query::dead_letters(client, limit))
    }

    fn knows(&self, device: &str) -> Result<Known, archive::Failure> {
        self.ask(|client| query::knows(client, device))
    }

    fn clock(&self) -> Result<Instant, archive::Failure> {
        self.ask(query::clock)
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
        let client = connect(&self.settings).map_err(Failure::for_archive)?;
        Ok(Box::new(Listener::new(client)?))
    }
}
