//! Queries the archive as the pages do, at intervals, so that the role can report whether pages get answers. A refused
//! query of a single reader does not count, because the query itself may be the cause.

use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic};

use super::answer_cache::NoNewAnswer;
use super::dashboard::Dashboard;
use super::outage::OutageCause;
use crate::archive::NoAnswer;
use crate::unavailable::Unavailable;

/// Interval between two rounds of queries while all are answered.
const INTERVAL: Duration = Duration::from_secs(15);
/// Interval after a reader's query was refused, or after a query of the last round failed.
const SHORT_INTERVAL: Duration = Duration::from_secs(5);
/// Number of consecutive slow rounds after which the archive counts as too slow.
const SLOW_ROUNDS: u32 = 3;

/// Problems of the archive, each with its remedy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveTroubles {
    /// Why the pages get no new answers.
    pub pages: Option<String>,
    /// Why reviews cannot be added. `None` also while the pages get no answers.
    pub reviews: Option<String>,
}

/// The watch over the archive, with the result of the last rounds.
pub struct ArchiveWatch {
    dashboard: Arc<Dashboard>,
    last_round: Option<Monotonic>,
    /// Number of refusals that the site had counted when the last round began.
    noted: u64,
    refusal: Option<String>,
    slow_rounds: u32,
    /// Why reviews cannot be added, while pages are answered.
    no_reviews: Option<String>,
}

impl ArchiveWatch {
    pub(super) fn new(dashboard: Arc<Dashboard>) -> ArchiveWatch {
        ArchiveWatch { dashboard, last_round: None, noted: 0, refusal: None, slow_rounds: 0, no_reviews: None }
    }

    /// Returns why the pages get no new answers, or why reviews cannot be added. Queries the archive if a round is due.
    pub fn check(&mut self) -> ArchiveTroubles {
        let is_in_doubt = self.refusal.is_some()
            || self.no_reviews.is_some()
            || self.slow_rounds > 0
            || self.noted != self.dashboard.site.health().refusals();
        let pause = if is_in_doubt { SHORT_INTERVAL } else { INTERVAL };
        if self.dashboard.site.is_away() {
            // Its answers after the outage are not known yet.
            self.last_round = None;
        } else if self.last_round.is_none_or(|last_round| last_round.elapsed() >= pause) {
            self.ask();
        }
        let pages = self.no_answer();
        let reviews = self.no_reviews.as_ref().filter(|_| pages.is_none()).map(|why| {
            format!(
                "the role of [reviews] user cannot add reviews: {}. `anomaly check --role dashboard --connect` says more",
                why.trim_end_matches('.')
            )
        });
        ArchiveTroubles { pages, reviews }
    }

    /// Returns why the pages get no new answers, with the remedy, according to the last rounds.
    fn no_answer(&self) -> Option<String> {
        if let Some(OutageCause { since, unavailable: Unavailable { what, cause } }) =
            self.dashboard.site.health().cause()
        {
            return Some(format!(
                "{}{since}, and the pages show no new data: {cause}. Check `systemctl status postgresql` and postgres.host",
                what.unreachable_since()
            ));
        }
        if let Some(refusal) = &self.refusal {
            return Some(format!(
                "PostgreSQL refuses to answer the pages: {}. `anomaly check --role dashboard --connect` says more",
                refusal.trim_end_matches('.')
            ));
        }
        (self.slow_rounds >= SLOW_ROUNDS)
            .then(|| "PostgreSQL repeatedly does not answer the pages in time: check its load and its locks".into())
    }

    /// Makes the next call run a round of queries.
    #[cfg(test)]
    pub(super) fn is_due(&mut self) {
        self.last_round = None;
    }

    /// Runs one round, up to the first query that is not answered.
    fn ask(&mut self) {
        self.noted = self.dashboard.site.health().refusals();
        self.last_round = Some(Monotonic::now());
        match self.dashboard.pages.unanswered(&self.dashboard.site) {
            None => {
                (self.refusal, self.slow_rounds) = (None, 0);
                match self.dashboard.site.archive.try_review() {
                    Ok(()) => self.no_reviews = None,
                    // One slow answer says nothing about the permission.
                    Err(NoAnswer::Slow) => {}
                    Err(why) => self.no_reviews = Some(why.to_string()),
                }
            }
            Some(NoNewAnswer::Refused(why)) => (self.refusal, self.slow_rounds) = (Some(why), 0),
            // The last refusal stays in effect, because nothing newer is known.
            Some(NoNewAnswer::Slow) => self.slow_rounds += 1,
            // The site itself remembers the outage.
            Some(NoNewAnswer::Unavailable { .. }) => {}
        }
        // Refusals of this round are already known.
        self.noted = self.noted.max(self.dashboard.site.health().refusals());
    }
}
