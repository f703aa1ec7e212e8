//! Maintains the table partitions and the retention, in the thread of the heartbeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::resolved::PostgresSettings;
use crate::health::{Component, ConditionCode, ConditionSeverity};
use crate::store::maintain::{MaintenanceResult, PendingDeletion, maintain};

/// Interval between two passes, and after a failed one.
const PASS: Duration = Duration::from_secs(600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Clocks that differ by more milliseconds than this prevent deletion.
const APART_MILLIS: i64 = 300_000;

/// State between two passes of the upkeep.
pub(crate) struct Upkeep {
    settings: PostgresSettings,
    component: Arc<Component>,
    next: Instant,
    last: Instant,
    /// Created partitions, dropped partitions and deleted rows that are not logged yet.
    done: (i32, i32, i64),
}

impl Upkeep {
    /// Creates the upkeep. The first pass is due at once. It raises conditions on `component`.
    pub(crate) fn new(settings: &PostgresSettings, component: Arc<Component>) -> Self {
        let now = Instant::now();
        Upkeep { settings: settings.clone(), component, next: now, last: now, done: (0, 0, 0) }
    }

    /// Runs one limited pass if it is due.
    pub(crate) fn run(&mut self) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + AFTER_FAILURE;
        match maintain(&self.settings, now - self.last) {
            Ok(done) => {
                self.last = now;
                self.took(&done, now);
            }
            Err(e) => self.component.raise(
                ConditionCode::RetentionWaits,
                ConditionSeverity::Notice,
                format!("cannot maintain table partitions: {e}. Rows go to the default partition, and old rows stay"),
            ),
        }
    }

    fn took(&mut self, done: &MaintenanceResult, now: Instant) {
        match waits(&self.settings, done) {
            Some(message) => self.component.raise(ConditionCode::RetentionWaits, ConditionSeverity::Notice, message),
            None => self.component.clear(ConditionCode::RetentionWaits),
        }
        self.done.0 += done.made;
        self.done.1 += done.dropped;
        self.done.2 += done.trimmed;
        if done.is_more {
            self.next = now;
            return;
        }
        self.next = now + done.plan.as_ref().map_or(PASS, |plan| plan.remaining.min(PASS));
        let (made, dropped, trimmed) = std::mem::take(&mut self.done);
        if (made, dropped, trimmed) != (0, 0, 0) {
            tracing::info!(made, dropped, trimmed, "partitions of the table follow postgres.retention");
        }
    }
}

/// Says in a sentence why rows cannot be deleted.
fn waits(settings: &PostgresSettings, done: &MaintenanceResult) -> Option<String> {
    let mut reasons = Vec::new();
    if done.clocks_apart.abs() > APART_MILLIS {
        let (by, side) =
            (brief(done.clocks_apart.unsigned_abs() / 1000), if done.clocks_apart > 0 { "ahead of" } else { "behind" });
        reasons.push(format!(
            "the database's clock is {by} {side} this machine's: only what is too old by both clocks is deleted. Synchronise \
             the clocks"
        ));
    }
    if let Some(PendingDeletion { from, to, rows, remaining }) = &done.plan {
        let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
        reasons.push(format!(
            "all data{from} to {to} ({rows} anomalies) is older than postgres.retention = {} and will be deleted in {}, \
             since that is unusually much at once. To keep the data, correct postgres.retention or the clock before then",
            brief(settings.retention.as_secs()),
            brief(remaining.as_secs()),
        ));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Formats a duration in its two largest units.
fn brief(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let at = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(3);
    let (name, unit) = units[at];
    let rest = units.get(at + 1).map(|(name, unit_below)| (name, seconds % unit / unit_below)).filter(|(_, n)| *n > 0);
    let rest = rest.map(|(name, n)| format!(" {n} {name}")).unwrap_or_default();
    format!("{} {name}{rest}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (34_560_000, "400 d"), (90_061, "1 d 1 h")] {
            assert_eq!(brief(seconds), text);
        }
    }
}
