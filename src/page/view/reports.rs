//! Reports of the detectors: heartbeats, conditions, arrivals. This file decides for all pages which reports are
//! current. A report that is too old proves nothing; a topic that is no longer read is listed but not missed.

use crate::archive::{ActivityRow, Archive, ConditionRow, DeadLetter, NoAnswer, StatusRow};
use crate::event::Timestamp;
use crate::health::{Activity, ComponentState, ConditionCode, ConditionSeverity, Tally};

/// Age in seconds at which a partition counts as silent: three heartbeats of 5 s are missing.
pub(crate) const SILENT_SECONDS: f64 = 15.0;
/// Silence in seconds after which another consumer group counts as ended for good.
const GONE: f64 = 86_400.0;
/// Number of minutes over which recent arrivals are counted.
const LATELY: i64 = 5;
const MINUTE: i64 = 60_000;
/// Difference between clocks, in seconds, from which it is reported.
const SKEW: f64 = 30.0;

/// The reports as the archive stores them.
pub(crate) struct Reports {
    /// The last heartbeat of every partition.
    pub status: Vec<StatusRow>,
    conditions: Vec<ConditionRow>,
    /// Records that arrived since the range began, by intervals of its grain.
    pub arrivals: Vec<ActivityRow>,
    /// Sum of the counts in `arrivals`.
    pub arrived: Activity,
    lately: Vec<ActivityRow>,
    /// One of the rejected records, if all recent records were rejected.
    pub rejected: Option<DeadLetter>,
    /// Number of rows that the table has refused since the range began.
    pub refused: u64,
}

/// The reports that are current at a given time.
pub(crate) struct Current<'a> {
    /// Partitions from which a report is due.
    pub rows: Vec<&'a StatusRow>,
    /// Consumer groups and topics that no longer report, with the time of their last report.
    pub others: Vec<(&'a str, &'a str, Timestamp)>,
    /// Current conditions, the degrading ones first. Each message occurs once, with the number of workers that report
    /// it.
    pub conditions: Vec<(&'a ConditionRow, usize)>,
    /// Seconds since the reports were read.
    since: f64,
}

/// Loads the reports from the archive.
///
/// # Errors
/// The errors of the archive.
pub(crate) fn load(archive: &dyn Archive, from: Timestamp, grain: i64, now: Timestamp) -> Result<Reports, NoAnswer> {
    let status = archive.status()?;
    let arrivals = arrivals(archive, &status, from, grain)?;
    let mut arrived = Activity::default();
    arrivals.iter().for_each(|row| arrived += row.activity);
    let recent = Timestamp::from_millis(now.millis() - LATELY * MINUTE).unwrap_or(now);
    let lately = self::arrivals(archive, &status, recent, MINUTE)?;
    let refused = archive.refused(from)?;
    let mut reports =
        Reports { status, conditions: archive.conditions()?, arrivals, arrived, lately, rejected: None, refused };
    if reports.is_all_rejected() {
        reports.rejected = archive.dead_letters(1)?.pop();
    }
    Ok(reports)
}

/// Loads the records that arrived since `from`. The detector counts them by its clock; the result has the times of the
/// database's.
///
/// # Errors
/// The errors of the archive.
pub(crate) fn arrivals(
    archive: &dyn Archive,
    status: &[StatusRow],
    from: Timestamp,
    grain: i64,
) -> Result<Vec<ActivityRow>, NoAnswer> {
    let ahead = skew(status).map_or(0, |seconds| (seconds * 1000.0) as i64);
    let theirs = Timestamp::from_millis((from.millis() + ahead).div_euclid(MINUTE) * MINUTE).unwrap_or(from);
    let mut rows = archive.activity(theirs, grain)?;
    let whole = ahead.div_euclid(MINUTE) * MINUTE;
    rows.iter_mut()
        .for_each(|row| row.minute = Timestamp::from_millis(row.minute.millis() - whole).unwrap_or(row.minute));
    Ok(rows)
}

/// Returns whether a report of this age in seconds proves something about the present. A report from the future, which
/// the database's clock dated when it was ahead, proves nothing; a small difference is an adjustment of that clock.
pub(crate) fn is_fresh(age: f64) -> bool {
    (-SILENT_SECONDS..=SILENT_SECONDS).contains(&age)
}

/// Returns by how many seconds the detectors' clocks are ahead of the database's, if the difference matters.
fn skew(status: &[StatusRow]) -> Option<f64> {
    let fresh = status.iter().filter(|row| is_fresh(row.age)).filter_map(|row| row.ahead);
    fresh.filter(|ahead| ahead.abs() >= SKEW).max_by(|a, b| a.abs().total_cmp(&b.abs()))
}

/// Returns the age of a report in seconds; infinite if the report is from the future.
fn past(age: f64) -> f64 {
    if age < -SILENT_SECONDS { f64::INFINITY } else { age.max(0.0) }
}

/// Returns whether the report is the last one of a worker that has ended.
pub(crate) fn has_ended(row: &StatusRow) -> bool {
    row.state == ComponentState::Stopped.describe()
}

/// Returns whether a condition makes detection or storage incomplete.
fn is_degrading(row: &ConditionRow) -> bool {
    row.severity == ConditionSeverity::Degraded
}

impl Reports {
    /// Returns the reports that are current at `now`, if they were read at `taken`.
    pub(crate) fn current(&self, taken: Timestamp, now: Timestamp) -> Current<'_> {
        let since = (now.millis() - taken.millis()).max(0) as f64 / 1000.0;
        let is_fresh = |age: f64| is_fresh(age) && age.max(0.0) + since <= SILENT_SECONDS;
        let live = self.status.iter().filter(|row| is_fresh(row.age)).collect::<Vec<_>>();
        let newest = self.status.iter().min_by(|a, b| past(a.age).total_cmp(&past(b.age)));
        let is_due = |row: &StatusRow| {
            if live.is_empty() {
                return newest.is_some_and(|newest| newest.group == row.group && newest.topic == row.topic);
            }
            let is_live = live.iter().any(|live| live.group == row.group && live.topic == row.topic);
            // A group that now reads another topic has left this one. Another group may have failed, so it is missed
            // for a while.
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

    /// Returns the age in seconds of the newest report of a row's group and topic.
    fn age_of(&self, of: &StatusRow) -> f64 {
        let same = self.status.iter().filter(|row| row.group == of.group && row.topic == of.topic);
        same.map(|row| past(row.age)).fold(f64::INFINITY, f64::min)
    }

    /// Returns by how many seconds the detectors' clocks are ahead of the database's, if the difference matters.
    pub(crate) fn skew(&self) -> Option<f64> {
        skew(&self.status)
    }

    /// Returns the outcome counts of the last minutes.
    pub(crate) fn lately(&self) -> Tally {
        let mut sum = Tally::default();
        self.lately.iter().for_each(|row| sum += row.activity.tally);
        sum
    }

    /// Returns whether a detector reported lately that all records are rejected, and no other one has accepted records.
    /// The detector decides how many rejected records are enough. The counts only show whether this is so for all
    /// detectors.
    pub(crate) fn is_all_rejected(&self) -> bool {
        let lately = self.lately();
        let is_it = |row: &ConditionRow| row.code == ConditionCode::AllRejected.as_str() && is_degrading(row);
        lately.rejected > 0
            && lately.judged + lately.learning == 0
            && self.conditions.iter().any(|row| is_fresh(row.age) && is_it(row))
    }

    /// Returns the rates in records per second: judged, learning, rejected, ignored, excluded. They are those of the last whole
    /// minutes, or of the current minute if there is no other.
    pub(crate) fn pace(&self, taken: Timestamp) -> Option<[f64; 5]> {
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
        let Tally { judged, learning, rejected, ignored, excluded } = tally;
        Some([judged, learning, rejected, ignored, excluded].map(|n| n as f64 / seconds))
    }

    /// Returns why the detector did not serve at its last report, if a condition reported then or later tells.
    pub(crate) fn last_reason(&self) -> Option<&ConditionRow> {
        let newest = self.status.iter().map(|row| past(row.age)).fold(f64::INFINITY, f64::min);
        let reasons = self.conditions.iter().filter(|row| is_degrading(row));
        let at_last = reasons
            .filter(|row| row.code == ConditionCode::NotServing.as_str() && past(row.age) <= newest + SILENT_SECONDS);
        at_last.min_by(|a, b| a.age.total_cmp(&b.age))
    }

    /// Returns all stored conditions, each with whether it was reported recently.
    pub(crate) fn all_conditions(&self) -> impl Iterator<Item = (&ConditionRow, bool)> {
        self.conditions.iter().map(|row| (row, is_fresh(row.age)))
    }
}

impl<'a> Current<'a> {
    /// Returns whether a partition's report is too old, or from the future.
    pub(crate) fn is_silent(&self, row: &StatusRow) -> bool {
        !is_fresh(row.age) || self.age(row) > SILENT_SECONDS
    }

    /// Returns the current age of a report in seconds; infinite if the report is from the future.
    fn age(&self, row: &StatusRow) -> f64 {
        past(row.age) + self.since
    }

    /// Returns the silent partitions that no other consumer group reads.
    pub(crate) fn missed(&self) -> Vec<&'a StatusRow> {
        let is_read = |row: &StatusRow| {
            let is_it = |other: &StatusRow| other.topic == row.topic && other.partition == row.partition;
            self.rows.iter().any(|other| is_it(other) && !self.is_silent(other))
        };
        self.rows.iter().filter(|row| self.is_silent(row) && !is_read(row)).copied().collect()
    }

    /// Returns the time of the newest of these reports; `None` if all are from the future.
    pub(crate) fn last<'r>(&self, rows: impl Iterator<Item = &'r StatusRow>) -> Option<Timestamp> {
        rows.filter(|row| self.age(row).is_finite()).map(|row| row.updated_at).max()
    }

    /// Returns the states of the partitions that report, if none of them is served yet.
    pub(crate) fn starting(&self) -> Option<Vec<&'a str>> {
        let fresh = self.rows.iter().filter(|row| !self.is_silent(row) && !has_ended(row));
        let mut states = fresh.map(|row| row.state.as_str()).collect::<Vec<_>>();
        states.sort_unstable();
        states.dedup();
        (!states.is_empty() && !states.contains(&ComponentState::Running.describe())).then_some(states)
    }

    /// Returns the states of the partitions that report but whose worker is not running, one for each partition.
    pub(crate) fn waiting(&self) -> Vec<&'a str> {
        let fresh = self.rows.iter().filter(|row| !self.is_silent(row));
        fresh.map(|row| row.state.as_str()).filter(|state| *state != ComponentState::Running.describe()).collect()
    }

    /// Returns the number of partitions that report.
    pub(crate) fn fresh(&self) -> usize {
        self.rows.iter().filter(|row| !self.is_silent(row)).count()
    }

    /// Returns whether any worker reports that it is running.
    pub(crate) fn is_reporting(&self) -> bool {
        self.rows.iter().any(|row| !self.is_silent(row) && !has_ended(row))
    }

    /// Returns whether the last report of every worker was that it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| has_ended(row))
    }

    /// Returns the age of the newest report in seconds; `None` if there is no report, or none up to now.
    pub(crate) fn newest(&self) -> Option<f64> {
        self.rows.iter().map(|row| self.age(row)).reduce(f64::min).filter(|age| age.is_finite())
    }

    /// Returns a degrading condition that was reported after the last report of every partition.
    pub(crate) fn later(&self) -> Option<&'a ConditionRow> {
        // One heartbeat writes its rows one after the other.
        let newest = self.newest().unwrap_or(f64::INFINITY) - 2.0;
        self.degrading().find(|row| past(row.age) + self.since < newest)
    }

    /// Returns the conditions that make detection or storage incomplete.
    pub(crate) fn degrading(&self) -> impl Iterator<Item = &'a ConditionRow> {
        self.conditions.iter().map(|(row, _)| *row).filter(|row| is_degrading(row))
    }

    /// Returns whether a condition with this code is current and makes detection or storage incomplete.
    pub(crate) fn degrades(&self, code: ConditionCode) -> bool {
        self.degrading().any(|row| row.code == code.as_str())
    }

    /// Returns whether a condition with this code is current.
    pub(crate) fn has(&self, code: ConditionCode) -> bool {
        self.conditions.iter().any(|(row, _)| row.code == code.as_str())
    }
}
