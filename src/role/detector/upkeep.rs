//! Maintains the table partitions and the retention, in the thread of the heartbeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::resolved::PostgresSettings;
use crate::foreign;
use crate::health::{Component, ConditionCode, ConditionSeverity};
use crate::store::maintain::{Blocker, MaintenanceResult, PendingDeletion, maintain};

/// Interval between two passes, and after a failed one.
const PASS: Duration = Duration::from_secs(600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Time for which a session of the same role may hold the lock before it is reported. A pass takes at most ten minutes,
/// in a session of its own.
const LONG_PASS: Duration = Duration::from_secs(1200);
/// Clocks that differ by more milliseconds than this prevent deletion.
const APART_MILLIS: i64 = 300_000;

/// State between two passes of the upkeep.
pub(crate) struct Upkeep {
    settings: PostgresSettings,
    component: Arc<Component>,
    next: Instant,
    last: Instant,
    /// Server process of a session that holds the lock of the maintenance, and the time since which it does.
    blocked: Option<(i32, Instant)>,
    /// Created partitions, dropped partitions and deleted rows that are not logged yet.
    done: (i32, i32, i64),
}

impl Upkeep {
    /// Creates the upkeep. The first pass is due at once. It raises conditions on `component`.
    pub(crate) fn new(settings: &PostgresSettings, component: Arc<Component>) -> Self {
        let now = Instant::now();
        Upkeep { settings: settings.clone(), component, next: now, last: now, blocked: None, done: (0, 0, 0) }
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
        if !done.blockers.is_empty() {
            let stuck = stuck(&mut self.blocked, &done.blockers, now);
            if let Some(message) = describe_blocker(&done.blockers, stuck) {
                self.component.raise(ConditionCode::RetentionWaits, ConditionSeverity::Notice, message);
            }
            return;
        }
        self.blocked = None;
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

/// Returns the process of a session that has held the lock for longer than a pass takes.
fn stuck(blocked: &mut Option<(i32, Instant)>, blockers: &[Blocker], now: Instant) -> Option<i32> {
    let still = blocked.filter(|(process, _)| blockers.iter().any(|blocker| blocker.process == *process));
    *blocked = still.or_else(|| Some((blockers.first()?.process, now)));
    blocked.filter(|(_, since)| now - *since >= LONG_PASS).map(|(process, _)| process)
}

/// Describes the session that prevents the maintenance. `None` if it is another detector during its own pass.
fn describe_blocker(blockers: &[Blocker], stuck: Option<i32>) -> Option<String> {
    let blocker = blockers.iter().find(|blocker| blocker.is_foreign || Some(blocker.process) == stuck)?;
    let Blocker { role, process, application, .. } = blocker;
    if *process == 0 {
        return Some(
            "table partitions are not maintained: a prepared transaction holds their advisory lock. Rows go to the default \
             partition, and old rows stay. Roll it back: pg_prepared_xacts names it"
                .to_owned(),
        );
    }
    Some(format!(
        "table partitions are not maintained: a session of role {} (process {process}, application {}) holds their advisory \
         lock. Rows go to the default partition, and old rows stay. End that session: select pg_terminate_backend({process})",
        foreign::name(role),
        foreign::name(application),
    ))
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

    fn blocker(process: i32, is_foreign: bool) -> Blocker {
        Blocker { role: "eve".into(), process, application: "psql".into(), is_foreign }
    }

    #[test]
    fn a_session_that_holds_the_lock_is_named_unless_it_is_a_detector_for_a_short_time() {
        let message = describe_blocker(&[blocker(6, false), blocker(7, true)], None).unwrap();
        assert!(message.contains("role eve (process 7, application psql)"), "{message}");
        assert_eq!(describe_blocker(&[blocker(7, false)], Some(6)), None);
        assert!(describe_blocker(&[blocker(7, false)], Some(7)).is_some());
        let message = describe_blocker(&[blocker(0, true)], None).unwrap();
        assert!(message.contains("pg_prepared_xacts") && !message.contains("terminate"), "{message}");
    }

    #[test]
    fn passes_of_other_detectors_one_after_another_are_not_reported() {
        let (begin, mut blocked) = (Instant::now(), None);
        let mut reported =
            |process, seconds| stuck(&mut blocked, &[blocker(process, false)], begin + Duration::from_secs(seconds));
        let passes = (0..100).filter_map(|pass| reported(pass, 600 * pass as u64)).count();
        assert_eq!(passes, 0, "each pass has a session of its own");
        assert_eq!([60_000, 61_199, 61_200].map(|seconds| reported(100, seconds)), [None, None, Some(100)]);
    }

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (34_560_000, "400 d"), (90_061, "1 d 1 h")] {
            assert_eq!(brief(seconds), text);
        }
    }
}
