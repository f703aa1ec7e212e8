//! The archive in PostgreSQL: lends a connection to each question, replaces those that an outage broke, and says in three
//! words why there is no answer. Knows nothing of pages.

use std::time::Duration;

use postgres::{Client, Error};

use super::follower::PostgresFollower;
use super::session::failure;
use super::{DatabaseError, Pool, connect, query, reviews};
use crate::anomaly::AnomalyId;
use crate::archive::{
    self, ActivityRow, AnomalyPage, Archive, BinCount, Bins, ConditionRow, CoverageRow, Cursor, DeadLetter, Filter,
    Follower, Known, LaneCount, NameCount, NewReview, Outside, PageKey, Quality, Ranking, Review, ReviewRecord,
    StatusRow, StoredAnomaly,
};
use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;

/// Longest wait for a connection. A reader waits for the answer: an outage must be told before that becomes a bore.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads through a pool; writes reviews through another one, whose role may do nothing else.
pub struct PostgresArchive {
    settings: PostgresSettings,
    pool: Pool,
    reviewer: Pool,
}

impl PostgresArchive {
    /// Connects to nothing yet. `settings` are those of the reading pool.
    pub fn new(settings: &PostgresSettings, pool: Pool, reviewer: Pool) -> Self {
        PostgresArchive { settings: settings.clone(), pool, reviewer }
    }

    fn ask<T>(&self, question: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, archive::NoAnswer> {
        ask(&self.pool, question)
    }

    /// The end of the hour in which the retention begins; 0 keeps everything.
    fn since(&self) -> query::Since {
        const HOUR: i64 = 3_600_000;
        let retention = self.settings.retention.as_millis() as i64;
        let hour = (Timestamp::now().millis() - retention).div_euclid(HOUR);
        (retention > 0).then(|| Timestamp::from_millis((hour + 1) * HOUR)).flatten()
    }
}

/// Asks with a connection. After a restart of the server every pooled connection is broken, which shows only when it is used:
/// each of them may fail once before a fresh one is tried.
fn ask<T>(pool: &Pool, question: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, archive::NoAnswer> {
    for _ in 0..pool.max_size() {
        let mut connection = pool.get(PATIENCE).map_err(DatabaseError::for_archive)?;
        match question(&mut connection) {
            Err(_) if connection.is_closed() => {}
            answer => return answer.map_err(failure),
        }
    }
    let mut connection = pool.get(PATIENCE).map_err(DatabaseError::for_archive)?;
    question(&mut connection).map_err(failure)
}

impl Archive for PostgresArchive {
    fn ping(&self) -> Result<(), archive::NoAnswer> {
        self.ask(|client| client.simple_query("select 1").map(drop))
    }

    fn newest(&self, filter: &Filter, before: Option<&PageKey>, limit: u32) -> Result<AnomalyPage, archive::NoAnswer> {
        self.ask(|client| query::newest(client, filter, before, limit))
    }

    fn newer(&self, filter: &Filter, after: &PageKey, limit: u32) -> Result<AnomalyPage, archive::NoAnswer> {
        self.ask(|client| query::newer(client, filter, after, limit))
    }

    fn ranked(&self, filter: &Filter, order: Ranking, limit: u32) -> Result<Vec<StoredAnomaly>, archive::NoAnswer> {
        self.ask(|client| query::ranked(client, filter, order, limit))
    }

    fn at(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<StoredAnomaly>, archive::NoAnswer> {
        self.ask(|client| query::at(client, topic, partition, offset))
    }

    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, archive::NoAnswer> {
        self.ask(|client| query::by_time(client, filter, bins, self.since()))
    }

    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::NoAnswer> {
        self.ask(|client| query::by_device(client, filter, limit, self.since()))
    }

    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, archive::NoAnswer> {
        self.ask(|client| query::by_metric(client, filter, limit, self.since()))
    }

    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, archive::NoAnswer> {
        self.ask(|client| query::lanes(client, filter, bins, devices, self.since()))
    }

    fn coverage(&self, from: Timestamp, to: Timestamp, grain: i64) -> Result<Vec<CoverageRow>, archive::NoAnswer> {
        self.ask(|client| query::coverage(client, from, to, grain))
    }

    fn activity(&self, from: Timestamp, grain: i64) -> Result<Vec<ActivityRow>, archive::NoAnswer> {
        self.ask(|client| query::activity(client, from, grain))
    }

    fn outside(&self, filter: &Filter, since: Timestamp, limit: u32) -> Result<Outside, archive::NoAnswer> {
        self.ask(|client| query::outside(client, filter, since, limit))
    }

    fn fresh(&self, filter: &Filter, since: Timestamp) -> Result<u64, archive::NoAnswer> {
        self.ask(|client| query::fresh(client, filter, since))
    }

    fn refused(&self, since: Timestamp) -> Result<u64, archive::NoAnswer> {
        self.ask(|client| query::refused(client, since))
    }

    fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, archive::NoAnswer> {
        self.ask(|client| query::dead_letters(client, limit))
    }

    fn knows(&self, device: &str) -> Result<Known, archive::NoAnswer> {
        self.ask(|client| query::knows(client, device))
    }

    fn clock(&self) -> Result<Timestamp, archive::NoAnswer> {
        self.ask(query::clock)
    }

    fn conditions(&self) -> Result<Vec<ConditionRow>, archive::NoAnswer> {
        self.ask(query::conditions)
    }

    fn status(&self) -> Result<Vec<StatusRow>, archive::NoAnswer> {
        self.ask(query::status)
    }

    fn search(&self, text: &str, limit: u32) -> Result<Vec<String>, archive::NoAnswer> {
        self.ask(|client| query::search(client, text, limit))
    }

    fn position(&self) -> Result<Cursor, archive::NoAnswer> {
        self.ask(query::position)
    }

    fn reviews_of(&self, id: &AnomalyId) -> Result<Vec<ReviewRecord>, archive::NoAnswer> {
        self.ask(|client| reviews::of(client, id))
    }

    fn add_review(&self, review: &NewReview) -> Result<bool, archive::NoAnswer> {
        let Some(time) = self.ask(|client| reviews::event_time(client, &review.anomaly))? else { return Ok(false) };
        ask(&self.reviewer, |client| reviews::add(client, review, time))?;
        Ok(true)
    }

    fn reviews(&self, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, archive::NoAnswer> {
        self.ask(|client| reviews::reviews(client, from, to))
    }

    fn settings(&self, hash: &str) -> Result<Option<Vec<(String, String)>>, archive::NoAnswer> {
        self.ask(|client| query::settings(client, hash))
    }

    fn quality(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, archive::NoAnswer> {
        self.ask(|client| reviews::quality(client, from, to))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, archive::NoAnswer> {
        let client = connect(&self.settings).map_err(DatabaseError::for_archive)?;
        Ok(Box::new(PostgresFollower::new(client)?))
    }
}
