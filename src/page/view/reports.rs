//! What the detectors say of themselves: heartbeats, conditions, arrivals. Which of it counts now is decided here for all
//! pages: a report that is too old proves nothing, and a topic that is not read any more is named, not missed.

use crate::archive::{ActivityRow, Archive, ConditionRow, DeadLetter, NoAnswer, StatusRow};
use crate::event::Timestamp;
use crate::health::{Activity, ComponentState, ConditionCode, ConditionSeverity, Tally};

/// A heartbeat is due every 5 s; three in a row are missing then.
pub const SILENT: f64 = 15.0;
/// Another group that has been silent for so many seconds has most likely ended for good.
const GONE: f64 = 86_400.0;
/// What arrives is looked at over so many minutes.
const LATELY: i64 = 5;
const MINUTE: i64 = 60_000;
/// Clocks that differ by more seconds are worth a word.
const SKEW: f64 = 30.0;

/// As the archive has them.
pub struct Reports {
    /// The last heartbeat of every partition.
    pub status: Vec<StatusRow>,
    conditions: Vec<ConditionRow>,
    /// What arrived since the range began, by stretches of its grain.
    pub arrivals: Vec<ActivityRow>,
    /// All of it together.
    pub arrived: Activity,
    lately: Vec<ActivityRow>,
    /// When every record that came lately was rejected: one of them.
    pub rejected: Option<DeadLetter>,
    /// Rows that the table refused since the range began.
    pub refused: u64,
}

/// What counts at a moment.
pub struct Current<'a> {
    /// Partitions that ought to report.
    pub rows: Vec<&'a StatusRow>,
    /// Groups and topics that do not any more, with their last report.
    pub others: Vec<(&'a str, &'a str, Timestamp)>,
    /// Those reported lately, the degrading ones first; each message once, with how many loops say so.
    pub conditions: Vec<(&'a ConditionRow, usize)>,
    /// Seconds since it was asked for.
    since: f64,
}

/// Asks.
///
/// # Errors
/// The archive's.
pub fn look(archive: &dyn Archive, from: Timestamp, grain: i64, now: Timestamp) -> Result<Reports, NoAnswer> {
    let status = archive.status()?;
    // Arrivals are counted by the detector's clock.
    let ahead = skew(&status).map_or(0, |seconds| (seconds * 1000.0) as i64);
    let theirs = |millis: i64| Timestamp::from_millis((millis + ahead).div_euclid(MINUTE) * MINUTE).unwrap_or(now);
    // Back to the times of the pages.
    let ours = |mut rows: Vec<ActivityRow>| {
        let whole = ahead.div_euclid(MINUTE) * MINUTE;
        rows.iter_mut()
            .for_each(|row| row.minute = Timestamp::from_millis(row.minute.millis() - whole).unwrap_or(row.minute));
        rows
    };
    let arrivals = ours(archive.activity(theirs(from.millis()), grain)?);
    let mut arrived = Activity::default();
    arrivals.iter().for_each(|row| arrived += row.activity);
    let lately = ours(archive.activity(theirs(now.millis() - LATELY * MINUTE), MINUTE)?);
    let refused = archive.refused(from)?;
    let mut reports =
        Reports { status, conditions: archive.conditions()?, arrivals, arrived, lately, rejected: None, refused };
    if reports.is_all_rejected() {
        reports.rejected = archive.dead_letters(1)?.pop();
    }
    Ok(reports)
}

/// Seconds by which the detectors' clocks are ahead of the database's, when that matters.
fn skew(status: &[StatusRow]) -> Option<f64> {
    let fresh = status.iter().filter(|row| row.age <= SILENT).filter_map(|row| row.ahead);
    fresh.filter(|ahead| ahead.abs() >= SKEW).max_by(|a, b| a.abs().total_cmp(&b.abs()))
}

/// Whether the report is the last one of a worker that has ended.
pub fn has_ended(row: &StatusRow) -> bool {
    row.state == ComponentState::Stopped.describe()
}

impl Reports {
    /// What counts now, when it was asked for at `taken`.
    pub fn current(&self, taken: Timestamp, now: Timestamp) -> Current<'_> {
        let since = (now.millis() - taken.millis()).max(0) as f64 / 1000.0;
        let is_fresh = |age: f64| age.max(0.0) + since <= SILENT;
        let live = self.status.iter().filter(|row| is_fresh(row.age)).collect::<Vec<_>>();
        let newest = self.status.iter().min_by(|a, b| a.age.total_cmp(&b.age));
        let is_due = |row: &StatusRow| {
            if live.is_empty() {
                return newest.is_some_and(|newest| newest.group == row.group && newest.topic == row.topic);
            }
            let is_live = live.iter().any(|live| live.group == row.group && live.topic == row.topic);
            // A group that reads another topic now has left this one; another group may have stopped.
            is_live || (live.iter().all(|live| live.group != row.group) && self.age_of(row) + since <= GONE)
        };
        let rows = self.status.iter().filter(|row| is_due(row)).collect::<Vec<_>>();
        let mut others = Vec::<(&str, &str, Timestamp)>::new();
        for row in self.status.iter().filter(|row| !is_due(row)) {
            match others.iter_mut().find(|(group, topic, _)| *group == row.group && *topic == row.topic) {
                Some((_, _, last)) => *last = row.updated_at.max(*last),
                None => others.push((&row.group, &row.topic, row.updated_at)),
            }
        }
        let mut conditions = Vec::<(&ConditionRow, usize)>::new();
        for row in self.conditions.iter().filter(|row| is_fresh(row.age)) {
            match conditions.iter_mut().find(|(known, _)| known.code == row.code && known.message == row.message) {
                Some((_, count)) => *count += 1,
                None => conditions.push((row, 1)),
            }
        }
        conditions.sort_by_key(|(row, _)| std::cmp::Reverse(row.severity));
        Current { rows, others, conditions, since }
    }

    /// Age of the newest report of a row's group and topic.
    fn age_of(&self, of: &StatusRow) -> f64 {
        let same = self.status.iter().filter(|row| row.group == of.group && row.topic == of.topic);
        same.map(|row| row.age).fold(f64::INFINITY, f64::min)
    }

    /// Seconds by which the detectors' clocks are ahead of the database's, when that matters.
    pub fn skew(&self) -> Option<f64> {
        skew(&self.status)
    }

    /// What came in the last minutes.
    pub fn lately(&self) -> Tally {
        let mut sum = Tally::default();
        self.lately.iter().for_each(|row| sum += row.activity.tally);
        sum
    }

    /// Whether records come, and none of them is an event.
    pub fn is_all_rejected(&self) -> bool {
        let lately = self.lately();
        lately.rejected > 0 && lately.judged + lately.learning == 0
    }

    /// Records a second: judged, learning, rejected, ignored; over the last whole minutes, or over what there is of this one.
    pub fn pace(&self, taken: Timestamp) -> Option<[f64; 4]> {
        let this = taken.millis().div_euclid(MINUTE) * MINUTE;
        let sum = |from: i64, to: i64| {
            let mut sum = Tally::default();
            let within = self.lately.iter().filter(|row| (from..to).contains(&row.minute.millis()));
            within.for_each(|row| sum += row.activity.tally);
            sum
        };
        let (before, last, now) =
            (sum(this - 2 * MINUTE, this - MINUTE), sum(this - MINUTE, this), sum(this, i64::MAX));
        let (tally, seconds) = match (before.sum(), last.sum(), now.sum()) {
            (0, 0, 0) => return None,
            (0, 0, _) => (now, ((taken.millis() - this) as f64 / 1000.0).max(5.0)),
            (0, _, _) => (last, 60.0),
            _ => {
                let mut both = before;
                both += last;
                (both, 120.0)
            }
        };
        Some([tally.judged, tally.learning, tally.rejected, tally.ignored].map(|n| n as f64 / seconds))
    }

    /// Why nothing was served at the last report, when a loop said so then or later.
    pub fn last_reason(&self) -> Option<&ConditionRow> {
        let newest = self.status.iter().map(|row| row.age).fold(f64::INFINITY, f64::min);
        let reasons = self.conditions.iter().filter(|row| row.severity == ConditionSeverity::Degraded);
        let at_last =
            reasons.filter(|row| row.code == ConditionCode::NotServing.as_str() && row.age <= newest + SILENT);
        at_last.min_by(|a, b| a.age.total_cmp(&b.age))
    }

    /// All conditions that are in the database, with whether each was reported lately.
    pub fn all_conditions(&self) -> impl Iterator<Item = (&ConditionRow, bool)> {
        self.conditions.iter().map(|row| (row, row.age <= SILENT))
    }
}

impl<'a> Current<'a> {
    /// Whether a partition has been silent for too long.
    pub fn is_silent(&self, row: &StatusRow) -> bool {
        self.age(row) > SILENT
    }

    /// Age of a report in seconds, now.
    pub fn age(&self, row: &StatusRow) -> f64 {
        row.age.max(0.0) + self.since
    }

    /// Partitions that report.
    pub fn fresh(&self) -> usize {
        self.rows.iter().filter(|row| !self.is_silent(row)).count()
    }

    /// Whether any worker reports, and not that it has ended.
    pub fn is_reporting(&self) -> bool {
        self.rows.iter().any(|row| !self.is_silent(row) && !has_ended(row))
    }

    /// Whether the last report of every worker was that it has ended.
    pub fn has_ended(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| has_ended(row))
    }

    /// Age of the newest report in seconds; `None` without any.
    pub fn newest(&self) -> Option<f64> {
        self.rows.iter().map(|row| self.age(row)).reduce(f64::min)
    }

    /// Those that make too little judged or stored.
    pub fn degrading(&self) -> impl Iterator<Item = &'a ConditionRow> {
        self.conditions.iter().filter(|(row, _)| row.severity == ConditionSeverity::Degraded).map(|(row, _)| *row)
    }

    /// Whether one with this code holds.
    pub fn has(&self, code: ConditionCode) -> bool {
        self.conditions.iter().any(|(row, _)| row.code == code.as_str())
    }
}
