//! Evaluates the records of the last minutes and derives conditions: only rejections, values that only learn, times far
//! from their arrival, a backlog of minutes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Activity, ConditionCode, ConditionSeverity};
use crate::event::RejectReason;

/// Width of one bin of the counts.
const BIN: Duration = Duration::from_secs(5);
/// Period over which most conditions are evaluated.
const MINUTE: Duration = Duration::from_secs(60);
/// Period for event times and for slow rejections. It is longer, because slow topics have few events per minute.
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Time without a record after which earlier rejections no longer count.
const HOUR: Duration = Duration::from_secs(3_600);
/// Minimum number of records for a decision.
const MIN_RECORDS: u64 = 10;
/// Minimum number of rejected records for a decision over ten minutes: on a slow topic, the share matters.
const FEW_SLOW: u64 = 3;
/// Rejections within less than this time are one burst, which the count of its minute reports.
const BURST: Duration = Duration::from_secs(120);
/// Maximum number of different reasons that are counted.
const MOST_REASONS: usize = 16;
/// A backlog of less work than this many seconds, at the present rate, raises no condition.
const BACKLOG_SECONDS: u64 = 60;
/// A backlog of fewer records than this raises no condition.
const BACKLOG_RECORDS: i64 = 1_000;

/// Counts the reasons of rejections; the number of different reasons is bounded.
#[derive(Debug, Clone, Default)]
pub struct RejectReasons(BTreeMap<RejectReason, u64>);

impl RejectReasons {
    /// Counts one record.
    pub fn note(&mut self, reason: RejectReason) {
        if let Some(count) = self.0.get_mut(&reason) {
            *count += 1;
        } else if self.0.len() < MOST_REASONS {
            self.0.insert(reason, 1);
        }
    }

    /// Returns the most frequent reason.
    fn first(&self) -> Option<(&RejectReason, u64)> {
        self.0.iter().max_by_key(|(_, count)| **count).map(|(reason, count)| (reason, *count))
    }

    fn add(&mut self, other: &RejectReasons) {
        for (reason, count) in &other.0 {
            if self.0.contains_key(reason) || self.0.len() < MOST_REASONS {
                *self.0.entry(reason.clone()).or_default() += count;
            }
        }
    }
}

#[derive(Debug)]
struct Bin {
    began: Duration,
    activity: Activity,
    reasons: RejectReasons,
}

/// The last ten minutes, and the rejections since the last accepted event.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    bins: VecDeque<Bin>,
    /// When the last event was accepted.
    accepted: Option<Duration>,
    rejected_in_a_row: u64,
    reasons_in_a_row: RejectReasons,
    /// When the first and the last record of that row arrived.
    row: Option<(Duration, Duration)>,
    /// When the first record arrived.
    began: Option<Duration>,
    /// Since when the backlog is long.
    behind_since: Option<Duration>,
    evaluated: Option<Duration>,
}

/// A condition and its message; no message: it is not active.
pub(super) type HeldCondition = (ConditionCode, Option<(ConditionSeverity, String)>);

impl Arrivals {
    /// Adds the counts of a commit.
    pub(crate) fn note(&mut self, now: Duration, activities: impl Iterator<Item = Activity>, reasons: &RejectReasons) {
        let activity = activities.fold(Activity::default(), |mut sum, one| {
            sum += one;
            sum
        });
        if activity.tally.sum() == 0 {
            return;
        }
        self.began.get_or_insert(now);
        if activity.tally.judged + activity.tally.learning > 0 {
            self.accepted = Some(now);
            self.end_row();
        } else if activity.tally.rejected > 0 {
            let began = self.row.map_or(now, |(began, _)| began);
            self.row = Some((began, now));
            self.rejected_in_a_row += activity.tally.rejected;
            self.reasons_in_a_row.add(reasons);
        }
        if self.bins.back().is_none_or(|bin| now.saturating_sub(bin.began) >= BIN) {
            self.bins.push_back(Bin { began: now, activity: Activity::default(), reasons: RejectReasons::default() });
        }
        if let Some(bin) = self.bins.back_mut() {
            bin.activity += activity;
            bin.reasons.add(reasons);
        }
    }

    /// Evaluates each condition; `None` if the last evaluation is more recent than `pause`. `backlog` is the number of
    /// waiting records.
    pub(crate) fn conditions(&mut self, now: Duration, pause: Duration, backlog: i64) -> Option<[HeldCondition; 6]> {
        if self.evaluated.is_some_and(|at| now.saturating_sub(at) < pause) {
            return None;
        }
        self.evaluated = Some(now);
        Some(self.evaluate(now, backlog))
    }

    fn evaluate(&mut self, now: Duration, backlog: i64) -> [HeldCondition; 6] {
        while self.bins.front().is_some_and(|bin| now.saturating_sub(bin.began) > TEN_MINUTES) {
            self.bins.pop_front();
        }
        let silence = self.row.map_or(Duration::ZERO, |(_, last)| now.saturating_sub(last));
        if self.bins.is_empty() && silence > HOUR.max(self.usual_silence()) {
            // Earlier records say nothing about the present.
            self.end_row();
        }
        let (minute, reasons) = self.sum(now, MINUTE);
        let (ten, ten_reasons) = self.sum(now, TEN_MINUTES);
        // While some events are accepted, `some_rejected` reports the problem.
        let is_alone = self.accepted.is_none_or(|at| now.saturating_sub(at) >= 3 * BIN);
        let is_present = !self.bins.is_empty() || silence <= self.usual_silence();
        let all = self.all_rejected(now).filter(|_| is_alone && is_present);
        let some = some_rejected(&minute, &reasons, ("minute", MIN_RECORDS))
            .or_else(|| self.some_rejected_slowly(&ten, &ten_reasons))
            .filter(|_| ten.tally.judged + ten.tally.learning > 0);
        let (all, some) = match all {
            // A few rejected records in a row between accepted ones are not all records.
            Some((ConditionSeverity::Notice, _)) if some.is_some() => (None, some),
            Some(all) => (Some(all), None),
            None => (None, some),
        };
        let is_settled = self.began.is_some_and(|began| now.saturating_sub(began) >= MINUTE);
        [
            (ConditionCode::AllRejected, all),
            (ConditionCode::AllIgnored, all_ignored(&ten)),
            (ConditionCode::SomeRejected, some),
            (ConditionCode::TimesDiffer, times_differ(&ten)),
            (ConditionCode::MostlyLearning, mostly_learning(&minute).filter(|_| is_settled)),
            (ConditionCode::FallingBehind, self.falling_behind(now, &minute, backlog)),
        ]
    }

    fn sum(&self, now: Duration, over: Duration) -> (Activity, RejectReasons) {
        let bins = self.bins.iter().filter(|bin| now.saturating_sub(bin.began) <= over);
        bins.fold(Default::default(), |(mut activity, mut reasons): (Activity, RejectReasons), bin| {
            activity += bin.activity;
            reasons.add(&bin.reasons);
            (activity, reasons)
        })
    }

    fn end_row(&mut self) {
        (self.rejected_in_a_row, self.reasons_in_a_row, self.row) = (0, RejectReasons::default(), None);
    }

    /// Returns the time without a record that is usual between rejected records: twice their mean distance, and at least
    /// ten minutes.
    fn usual_silence(&self) -> Duration {
        let distances = u32::try_from(self.rejected_in_a_row.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        self.row.map_or(TEN_MINUTES, |(began, last)| TEN_MINUTES.max(last.saturating_sub(began) * 2 / distances))
    }

    /// Returns the condition about rejections that are too slow for a decision over one minute.
    fn some_rejected_slowly(&self, ten: &Activity, reasons: &RejectReasons) -> Option<(ConditionSeverity, String)> {
        let mut wrong = self.bins.iter().filter(|bin| bin.activity.tally.rejected + bin.activity.partial > 0);
        let first = wrong.next()?.began;
        let last = wrong.next_back()?.began;
        let some = some_rejected(ten, reasons, ("10 min", FEW_SLOW));
        let (severity, text) = some.filter(|_| last.saturating_sub(first) >= BURST)?;
        // The last minute of a fast topic tells more about the present than all ten.
        let is_slow = ten.records < 10 * MIN_RECORDS && ten.tally.rejected >= MIN_RECORDS;
        Some((if is_slow { severity } else { ConditionSeverity::Notice }, text))
    }

    fn all_rejected(&self, now: Duration) -> Option<(ConditionSeverity, String)> {
        let count = self.rejected_in_a_row;
        let (reason, times) = self.reasons_in_a_row.first().filter(|_| count > 0)?;
        let is_long = self.row.is_some_and(|(began, _)| now.saturating_sub(began) >= TEN_MINUTES);
        let is_enough = count >= MIN_RECORDS || (count >= FEW_SLOW && is_long);
        let severity = if is_enough { ConditionSeverity::Degraded } else { ConditionSeverity::Notice };
        Some((
            severity,
            format!("Events arrive, all rejected: {reason} ({times} of {count}); `anomaly dlq list` shows them"),
        ))
    }

    fn falling_behind(
        &mut self,
        now: Duration,
        minute: &Activity,
        backlog: i64,
    ) -> Option<(ConditionSeverity, String)> {
        let passed = minute.records.max(1);
        let seconds = backlog.unsigned_abs() * MINUTE.as_secs() / passed;
        if backlog < BACKLOG_RECORDS || seconds < BACKLOG_SECONDS {
            self.behind_since = None;
            return None;
        }
        let since = *self.behind_since.get_or_insert(now);
        let message = format!("{backlog} records wait, about {} min of work at the present rate", seconds.div_ceil(60));
        (now.saturating_sub(since) >= MINUTE).then_some((ConditionSeverity::Notice, message))
    }
}

/// Returns the condition about the records of a period, which is `minute` or `10 min`.
fn some_rejected(
    sum: &Activity,
    reasons: &RejectReasons,
    (period, few): (&str, u64),
) -> Option<(ConditionSeverity, String)> {
    let (rejected, partial, all) = (sum.tally.rejected, sum.partial, sum.records);
    if rejected + partial < few || (rejected + partial) * 100 < all {
        return None;
    }
    let severity = if rejected * 2 >= all { ConditionSeverity::Degraded } else { ConditionSeverity::Notice };
    let reason = reasons.first().map(|(reason, _)| format!(", most often: {reason}")).unwrap_or_default();
    let partial = match partial {
        0 => String::new(),
        n => format!(", {n} were judged by their valid values only"),
    };
    Some((
        severity,
        format!(
            "{rejected} of {all} records of the last {period} were rejected{partial}{reason}; `anomaly dlq list` shows them"
        ),
    ))
}

fn all_ignored(ten: &Activity) -> Option<(ConditionSeverity, String)> {
    let (ignored, excluded, all) = (ten.tally.ignored, ten.tally.excluded, ten.tally.sum());
    (all >= MIN_RECORDS && ignored + excluded == all).then(|| {
        let message = match excluded {
            0 => format!(
                "Records arrive, all ignored ({ignored} of {all}): their value is null, or `fields.ignore` matches them"
            ),
            _ => format!(
                "Records arrive, none is judged: {excluded} of {all} are of excluded series ([[detector.override]] with \
                 enabled = false), {ignored} are ignored"
            ),
        };
        (ConditionSeverity::Degraded, message)
    })
}

fn mostly_learning(minute: &Activity) -> Option<(ConditionSeverity, String)> {
    let (judged, learning) = (minute.tally.judged, minute.tally.learning);
    (learning > MIN_RECORDS && judged * 2 < learning).then(|| {
        let all = judged + learning;
        let message = format!(
            "{learning} of {all} values of the last minute are learning, {judged} were judged: their series have fewer values \
             than detector.min_samples"
        );
        (ConditionSeverity::Notice, message)
    })
}

fn times_differ(ten: &Activity) -> Option<(ConditionSeverity, String)> {
    let accepted = ten.tally.judged + ten.tally.learning;
    let count = ten.late + ten.early;
    (count > 0 && count * 2 >= accepted).then(|| {
        let usual = |seconds: i64, count: u64| duration(seconds.unsigned_abs() / count.max(1));
        let (late, early) = (usual(ten.late_seconds, ten.late), usual(ten.early_seconds, ten.early));
        let times = match (ten.late, ten.early) {
            (_, 0) => format!("times about {late} behind"),
            (0, _) => format!("times about {early} ahead of"),
            (behind, ahead) => format!("other times: {behind} about {late} behind, {ahead} about {early} ahead of"),
        };
        let message = format!(
            "{count} of {accepted} values of the last 10 min carry {times} their arrival; pages show them at those times"
        );
        (ConditionSeverity::Notice, message)
    })
}

/// Formats a time in one unit, as the nearest number of it. The pages round times in the same way.
fn duration(seconds: u64) -> String {
    let nearest = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_170 => format!("{} min", nearest(60)),
        7_170..172_800 => format!("{} h", nearest(3_600)),
        172_800..63_072_000 => format!("{} days", nearest(86_400)),
        _ => format!("{} years", nearest(31_556_952)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RejectClass, Rejection};
    use crate::health::Tally;

    fn reason(message: &str) -> RejectReason {
        Rejection { class: RejectClass::DeviceId, message: message.to_owned() }.reason()
    }

    fn note(arrivals: &mut Arrivals, second: u64, judged: u64, learning: u64, rejected: u64, offset: i64) {
        let tally = Tally { judged, learning, rejected, ..Tally::default() };
        let mut activity = Activity { tally, records: tally.sum(), ..Activity::default() };
        (0..judged + learning).for_each(|_| activity.note_offset(offset));
        let mut reasons = RejectReasons::default();
        (0..rejected).for_each(|_| reasons.note(reason("`device_id` is missing")));
        arrivals.note(Duration::from_secs(second), [activity].into_iter(), &reasons);
    }

    fn held(arrivals: &mut Arrivals, second: u64, backlog: i64) -> Vec<(ConditionCode, ConditionSeverity, String)> {
        let all = arrivals.evaluate(Duration::from_secs(second), backlog);
        all.into_iter().filter_map(|(code, held)| held.map(|(severity, text)| (code, severity, text))).collect()
    }

    #[test]
    fn records_with_many_values_hide_neither_rejected_records_nor_invalid_values_nor_a_backlog() {
        let wide = |rejected, partial| {
            let tally = Tally { judged: 10_000, rejected, ..Tally::default() };
            [Activity { tally, records: 100 + rejected, partial, ..Activity::default() }]
        };
        let severity = |activities: [Activity; 1]| {
            let mut arrivals = Arrivals::default();
            arrivals.note(Duration::from_secs(1), activities.into_iter(), &RejectReasons::default());
            held(&mut arrivals, 2, 0).into_iter().map(|(code, severity, _)| (code, severity)).collect::<Vec<_>>()
        };
        assert_eq!(severity(wide(0, 0)), []);
        assert_eq!(severity(wide(100, 0)), [(ConditionCode::SomeRejected, ConditionSeverity::Degraded)]);
        assert_eq!(severity(wide(0, 100)), [(ConditionCode::SomeRejected, ConditionSeverity::Notice)]);
        let mut arrivals = Arrivals::default();
        arrivals.note(Duration::from_secs(1), wide(0, 0).into_iter(), &RejectReasons::default());
        held(&mut arrivals, 2, 2_000);
        let minute = Activity { records: 100, ..wide(0, 0)[0] };
        assert!(arrivals.falling_behind(Duration::from_secs(63), &minute, 2_000).is_some());
    }

    #[test]
    fn excluded_values_do_not_hide_that_all_other_records_are_rejected() {
        let mut arrivals = Arrivals::default();
        let mut reasons = RejectReasons::default();
        reasons.note(reason("`device_id` is missing"));
        let tally = Tally { excluded: 60, rejected: 40, ..Tally::default() };
        let activity = Activity { tally, records: 100, ..Activity::default() };
        arrivals.note(Duration::from_secs(1), [activity].into_iter(), &reasons);
        let all = held(&mut arrivals, 2, 0);
        assert_eq!((all[0].0, all[0].1), (ConditionCode::AllRejected, ConditionSeverity::Degraded));
    }

    #[test]
    fn rejections_only_are_degraded_until_an_event_is_accepted() {
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 1, 0, 0, 300, 0);
        let [(code, severity, text)] = &held(&mut arrivals, 2, 0)[..] else { panic!("one condition") };
        assert_eq!((*code, *severity), (ConditionCode::AllRejected, ConditionSeverity::Degraded));
        assert!(text.starts_with("Events arrive, all rejected: `device_id` is missing (300 of 300)"), "{text}");
        note(&mut arrivals, 3, 300, 0, 0, 0);
        let codes =
            held(&mut arrivals, 4, 0).into_iter().map(|(code, severity, _)| (code, severity)).collect::<Vec<_>>();
        assert_eq!(
            codes,
            [(ConditionCode::SomeRejected, ConditionSeverity::Degraded)],
            "half of the minute was rejected"
        );
        assert_eq!(held(&mut arrivals, 70, 0), []);
    }

    #[test]
    fn one_wrong_record_alone_leaves_the_process_ready() {
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 1, 0, 0, 1, 0);
        assert!(held(&mut arrivals, 2, 0).iter().all(|(_, severity, _)| *severity == ConditionSeverity::Notice));
    }

    #[test]
    fn rejections_of_a_slow_topic_are_degraded_if_all_records_are_rejected() {
        for gap in [60, 240, 900] {
            let (mut arrivals, mut degraded_at) = (Arrivals::default(), None);
            for second in (0..7_200).step_by(30) {
                if second % gap == 0 {
                    note(&mut arrivals, second, 0, 0, 1, 0);
                }
                let degraded = held(&mut arrivals, second, 0).iter().any(|(code, severity, _)| {
                    (*code, *severity) == (ConditionCode::AllRejected, ConditionSeverity::Degraded)
                });
                assert!(degraded || degraded_at.is_none(), "one record per {gap} s: cleared at {second} s");
                degraded_at = degraded_at.or(degraded.then_some(second));
            }
            assert!(degraded_at.is_some_and(|at| at <= 1_800), "one record per {gap} s: {degraded_at:?}");
            note(&mut arrivals, 7_201, 1, 0, 0, 0);
            let all = held(&mut arrivals, 7_202, 0);
            assert!(all.iter().all(|(code, ..)| *code != ConditionCode::AllRejected), "{all:?}");
        }
    }

    #[test]
    fn rejections_of_fewer_than_ten_records_a_minute_are_reported_by_their_share() {
        for (accepted, rejected, severity) in
            [(1, 2, Some(ConditionSeverity::Degraded)), (91, 9, Some(ConditionSeverity::Notice)), (1_000, 5, None)]
        {
            let mut arrivals = Arrivals::default();
            for minute in 0..10 {
                note(&mut arrivals, 60 * minute, 0, 0, rejected, 0);
                note(&mut arrivals, 60 * minute + 20, accepted, 0, 0, 0);
            }
            let all = held(&mut arrivals, 590, 0);
            let some = all.iter().find(|(code, ..)| *code == ConditionCode::SomeRejected);
            assert_eq!(
                some.map(|(_, severity, _)| *severity),
                severity,
                "{rejected} of {rejected} + {accepted}: {all:?}"
            );
        }
    }

    #[test]
    fn a_burst_of_rejections_is_reported_for_its_minute_and_a_stopped_producer_for_ten() {
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 1, 0, 0, 9, 0);
        note(&mut arrivals, 2, 0, 0, 300, 0);
        assert_eq!(held(&mut arrivals, 590, 0).len(), 1);
        assert_eq!(held(&mut arrivals, 640, 0), []);
    }

    #[test]
    fn learning_raises_a_condition_only_after_the_first_minute() {
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 0, 2, 5_000, 0, 0);
        assert_eq!(held(&mut arrivals, 1, 0), []);
        note(&mut arrivals, 61, 2, 5_000, 0, 0);
        let [(ConditionCode::MostlyLearning, ConditionSeverity::Notice, text)] = &held(&mut arrivals, 62, 0)[..] else {
            panic!("learning")
        };
        assert!(text.starts_with("5000 of 5002 values"), "{text}");
    }

    #[test]
    fn times_far_from_their_arrival_are_reported_with_the_distance() {
        for (offset, words) in [
            (-7_199, "about 2 h behind"),
            (-4_500, "about 75 min behind"),
            (600, "about 10 min ahead of"),
            (90_000, "about 25 h ahead of"),
            (89_990, "about 25 h ahead of"),
            (-228_960, "about 3 days behind"),
            (-1_795_000_000, "about 57 years behind"),
        ] {
            let mut arrivals = Arrivals::default();
            note(&mut arrivals, 1, 60, 0, 0, offset);
            let [(ConditionCode::TimesDiffer, _, text)] = &held(&mut arrivals, 2, 0)[..] else { panic!("{offset}") };
            assert!(text.contains(words), "{text}");
        }
        // Some are behind and some ahead: together they are most of the values.
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 1, 40, 0, 0, 0);
        note(&mut arrivals, 1, 30, 0, 0, -7_199);
        note(&mut arrivals, 1, 30, 0, 0, 600);
        let [(ConditionCode::TimesDiffer, _, text)] = &held(&mut arrivals, 2, 0)[..] else { panic!("both") };
        let both = "60 of 100 values of the last 10 min carry other times: 30 about 2 h behind, 30 about 10 min ahead of \
                    their arrival";
        assert!(text.starts_with(both), "{text}");
        let mut arrivals = Arrivals::default();
        note(&mut arrivals, 1, 60, 0, 0, -600);
        assert_eq!(held(&mut arrivals, 2, 0), [], "a backlog of minutes is usual");
    }

    #[test]
    fn a_backlog_of_minutes_is_reported_when_it_lasts() {
        let mut arrivals = Arrivals::default();
        for second in 0..130 {
            note(&mut arrivals, second, 100, 0, 0, 0);
            let found = held(&mut arrivals, second, 50_000);
            assert_eq!(
                found.iter().any(|(code, ..)| *code == ConditionCode::FallingBehind),
                second >= 60,
                "at {second} s"
            );
        }
        assert_eq!(held(&mut arrivals, 131, 900), []);
    }

    #[test]
    fn events_that_are_accepted_now_and_then_are_not_all_rejected() {
        let mut arrivals = Arrivals::default();
        for second in 0..60 {
            // One of two workers has only invalid records.
            note(&mut arrivals, second, 0, 0, 20, 0);
            let all = held(&mut arrivals, second, 0).iter().any(|(code, ..)| *code == ConditionCode::AllRejected);
            assert!(!all || second == 0, "at {second} s");
            note(&mut arrivals, second, 20, 0, 0, 0);
        }
    }

    #[test]
    fn reasons_that_quote_the_record_are_one() {
        let mut reasons = RejectReasons::default();
        (0..300)
            .for_each(|n| reasons.note(reason(&format!("`timestamp` \"0{n}/03/2026\" is not a time; use RFC 3339"))));
        assert_eq!(reasons.first(), Some((&reason("`timestamp` \"\" is not a time"), 300)));
    }

    #[test]
    fn reasons_are_bounded() {
        let mut reasons = RejectReasons::default();
        (0..1_000).for_each(|n| reasons.note(reason(&format!("reason {}", "x".repeat(n)))));
        assert_eq!(reasons.0.len(), MOST_REASONS);
    }
}
