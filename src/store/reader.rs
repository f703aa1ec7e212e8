//! Runs the queries of the pages. Each runs on a connection of a pool. Connections that an outage broke are replaced, and
//! the database's errors become [`NoAnswer`].

use std::time::Duration;

use postgres::{Client, Error};

use super::failure::{DatabaseError, is_overdue};
use super::pool::Pool;
use super::session::noted;
use crate::archive::NoAnswer;
use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;

/// Longest wait for a connection, so that a waiting reader soon sees that the database is unavailable.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads through one pool, and writes reviews through another one, whose role can only write reviews.
pub struct PostgresArchive {
    settings: PostgresSettings,
    pool: Pool,
    reviewer: Pool,
    has_review_role: bool,
}

impl PostgresArchive {
    /// Creates the archive without connecting. `settings` are those of the reading pool. `has_review_role` says whether
    /// the settings name a role for reviews, which the pool `reviewer` then uses.
    pub fn new(settings: &PostgresSettings, pool: Pool, reviewer: Pool, has_review_role: bool) -> Self {
        PostgresArchive { settings: settings.clone(), pool, reviewer, has_review_role }
    }

    /// Returns the settings of the reading pool.
    pub(super) fn settings(&self) -> &PostgresSettings {
        &self.settings
    }

    /// Returns whether reviews are written by a role of their own.
    pub(super) fn has_review_role(&self) -> bool {
        self.has_review_role
    }

    /// Runs a query with a connection of the reading pool. It may run more than once.
    pub(super) fn ask<T>(&self, query: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, NoAnswer> {
        ask(&self.pool, query)
    }

    /// Runs a query with the role that may write reviews. It may run more than once.
    pub(super) fn ask_reviewer<T>(&self, query: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, NoAnswer> {
        ask(&self.reviewer, query)
    }

    /// Returns the end of the hour in which the retention begins: earlier totals may be deleted. Rows stay longer if they were
    /// written late. `None` if the retention keeps everything.
    pub(super) fn totals_since(&self) -> Option<Timestamp> {
        const HOUR: i64 = 3_600_000;
        let retention = self.settings.retention.as_millis() as i64;
        let hour = (Timestamp::now().millis() - retention).div_euclid(HOUR);
        (retention > 0).then(|| Timestamp::from_millis((hour + 1) * HOUR)).flatten()
    }
}

/// Runs a query on a connection of the pool. After a restart of the server every pooled connection is broken, which is
/// noticed only in use. So each of them may fail once before a new one is tried.
fn ask<T>(pool: &Pool, query: impl Fn(&mut Client) -> Result<T, Error>) -> Result<T, NoAnswer> {
    let failure = |error| pool.own(noted(error)).for_archive();
    for _ in 0..pool.max_size() {
        let mut connection = pool.get(CONNECTION_TIMEOUT).map_err(DatabaseError::for_archive)?;
        match query(&mut connection) {
            // If the server does not answer, the reader would wait once for each connection.
            Err(error) if connection.is_closed() && !is_overdue(&error) => {}
            answer => return answer.map_err(failure),
        }
    }
    let mut connection = pool.get(CONNECTION_TIMEOUT).map_err(DatabaseError::for_archive)?;
    query(&mut connection).map_err(failure)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_wrong_password_is_reported_with_the_section_of_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = crate::config::load(&crate::config::SettingFiles::default()).unwrap().settings.postgres;
        (settings.host, settings.port) = ("127.0.0.1".into(), listener.local_addr().unwrap().port());
        settings.sslmode = "disable".into();
        // A server that refuses every password.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(b"E\0\0\0\x1aSFATAL\0C28P01\0Mwrong\0\0");
            }
        });
        for (section, other) in [("postgres", "reviews"), ("reviews", "postgres")] {
            let pool = Pool::new(&settings, section, 1);
            let mut refused = String::new();
            // A connection that is still being opened is not an answer.
            for _ in 0..60 {
                if let Err(NoAnswer::Refused(why)) = ask(&pool, |client| client.simple_query("select 1")) {
                    refused = why;
                    break;
                }
            }
            for key in ["user", "password", "password_file"] {
                let is_named = |section: &str| refused.contains(&format!("{section}.{key}"));
                assert!(is_named(section) && !is_named(other), "{section}: {refused}");
            }
        }
    }
}
