//! Asks the archive the questions of the pages when no reader does, so that the role can say whether readers get answers.
//! A question that only one reader asks never counts: that it is refused may be the question's fault.

use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic};

use super::answer_cache::NoNewAnswer;
use super::dashboard::Dashboard;
use super::outage::OutageCause;

/// Time between two rounds of questions while all are answered.
const USUAL: Duration = Duration::from_secs(15);
/// The same when a question of a reader was refused, or one of the last round was not answered.
const SOON: Duration = Duration::from_secs(5);
/// Rounds in a row with a question that is not answered in time before that counts.
const SLOW_ROUNDS: u32 = 3;

/// What the last rounds of questions came to.
pub struct ArchiveWatch {
    dashboard: Arc<Dashboard>,
    asked: Option<Monotonic>,
    /// Refusals that the site had noted when the last round began.
    noted: u64,
    refusal: Option<String>,
    slow_rounds: u32,
}

impl ArchiveWatch {
    pub(super) fn new(dashboard: Arc<Dashboard>) -> ArchiveWatch {
        ArchiveWatch { dashboard, asked: None, noted: 0, refusal: None, slow_rounds: 0 }
    }

    /// Why readers get no new answer now, with the remedy; `None` while they get one. Asks when it is time to.
    pub fn look(&mut self) -> Option<String> {
        let is_in_doubt =
            self.refusal.is_some() || self.slow_rounds > 0 || self.noted != self.dashboard.site.health().refusals();
        let pause = if is_in_doubt { SOON } else { USUAL };
        if self.dashboard.site.is_away() {
            // What it answers once it is back is not known.
            self.asked = None;
        } else if self.asked.is_none_or(|asked| asked.elapsed() >= pause) {
            self.ask();
        }
        if let Some(OutageCause { since, why }) = self.dashboard.site.health().cause() {
            return Some(format!(
                "PostgreSQL is away since {since}, and the pages show no new data: {why}. Look at `systemctl status postgresql` \
                 and at postgres.host"
            ));
        }
        if let Some(refusal) = &self.refusal {
            return Some(format!(
                "PostgreSQL refuses to answer the pages: {}. `anomaly check --role dashboard --connect` says more",
                refusal.trim_end_matches('.')
            ));
        }
        let sentence = "PostgreSQL does not answer the pages in time, again and again: look at its load and its locks";
        (self.slow_rounds >= SLOW_ROUNDS).then(|| sentence.to_owned())
    }

    /// The next look asks, whatever the last one found.
    #[cfg(test)]
    pub(super) fn is_due(&mut self) {
        self.asked = None;
    }

    /// One round, up to the first question that is not answered.
    fn ask(&mut self) {
        self.noted = self.dashboard.site.health().refusals();
        self.asked = Some(Monotonic::now());
        match self.dashboard.pages.unanswered(&self.dashboard.site) {
            None => (self.refusal, self.slow_rounds) = (None, 0),
            Some(NoNewAnswer::Refused(why)) => (self.refusal, self.slow_rounds) = (Some(why), 0),
            // The refusal still holds as far as is known.
            Some(NoNewAnswer::Slow) => self.slow_rounds += 1,
            // The site remembers it.
            Some(NoNewAnswer::Away { .. }) => {}
        }
        // Those of this round are no doubt about it.
        self.noted = self.noted.max(self.dashboard.site.health().refusals());
    }
}
