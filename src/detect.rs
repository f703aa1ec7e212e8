//! Judges events: event -> series -> method -> anomaly. A [`Detector`] has the windows of its partitions, and can undo
//! the changes since the last commit. It depends neither on Kafka, nor on files, nor on clocks.

mod memory;
mod record;

use std::collections::BTreeMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::anomaly::{Anomaly, RecordId};
use crate::event::{Event, Timestamp};
use crate::method::Judgement;
use crate::policy::{Policy, PolicyTable, ResolvedPolicy, UNRESOLVED};
use crate::series::snapshot::Fingerprint;
use crate::series::{self, Evictions, SeriesLimits, SeriesTable, SlotHint, UndoLog};
use crate::series_block::SeriesBlock;
use record::record;

/// Settings of a detector: the policy and limits that decide no verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionSettings {
    /// Policy that decides the verdicts. Its fingerprint is written to each status row.
    pub policy: Policy,
    /// Number of preceding values stored with an anomaly. It decides no verdict.
    pub context: usize,
    /// Maximum number of series per partition. It decides no verdict, because each eviction is recorded.
    pub max_series: usize,
    /// Seconds of silence, by the partition's clock, after which a series is evicted; `None` means never. It decides no
    /// verdict.
    pub idle_after: Option<u32>,
}

impl Default for DetectionSettings {
    fn default() -> Self {
        let policy = Policy::default();
        DetectionSettings { policy, context: 100, max_series: 1_000_000, idle_after: Some(30 * 86_400) }
    }
}

impl DetectionSettings {
    /// Returns the limits of a partition's table.
    pub fn bounds(&self) -> SeriesLimits {
        SeriesLimits { max_series: self.max_series, idle_after: self.idle_after }
    }

    /// Returns the fingerprint of the policy. Only values other than the default are part of it, in the order of their
    /// names. So a setting that a later version adds changes no fingerprint until it is used.
    pub fn fingerprint(&self) -> Fingerprint {
        let text = serde_json::to_vec(&self.policy.changed()).unwrap_or_default();
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&Sha256::digest(&text)[..6]);
        fingerprint
    }
}

/// Formats a fingerprint as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Verdict on an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The series has too few preceding values.
    Learning,
    /// The value is within the expected range.
    Normal,
    /// The value is outside of the expected range.
    Anomalous(Box<Anomaly>),
    /// The value is not judged, and joins no window: the policy excludes the series, or there is no memory for a new one.
    Excluded,
}

/// Judges events in the given order.
pub struct Detector {
    settings: DetectionSettings,
    fingerprint: Fingerprint,
    policies: PolicyTable,
    /// Maximum number of values in the window of an anomaly, below the setting.
    context_limit: usize,
    tables: BTreeMap<i32, SeriesTable>,
    trail: UndoLog,
    key: String,
    guesses: Vec<SlotHint>,
}

impl Detector {
    /// Creates a detector; `None` if the policy names a method that does not exist.
    pub fn new(settings: DetectionSettings) -> Option<Self> {
        let policies = PolicyTable::new(&settings.policy)?;
        let fingerprint = settings.fingerprint();
        Some(Detector {
            settings,
            fingerprint,
            policies,
            context_limit: usize::MAX,
            tables: BTreeMap::new(),
            trail: UndoLog::default(),
            key: String::new(),
            guesses: Vec::new(),
        })
    }

    /// Lets `judge` judge records of one partition.
    pub fn within<T>(&mut self, partition: i32, judge: impl FnOnce(&mut Judge<'_>) -> T) -> T {
        // The table is removed meanwhile, so that `judge` can read the other tables.
        let mut table = self.tables.remove(&partition).unwrap_or_default();
        self.trail.lend(&mut table);
        let mut judging = Judge {
            table,
            bounds: self.settings.bounds(),
            policies: &mut self.policies,
            context: self.settings.context.min(self.context_limit),
            others: &self.tables,
            key: &mut self.key,
            guesses: &mut self.guesses,
            next: 0,
            split: None,
            time: None,
            has_more: false,
        };
        let judged = judge(&mut judging);
        let mut table = judging.table;
        self.trail.take_back(partition, &mut table);
        self.tables.insert(partition, table);
        judged
    }

    /// Makes all changes final.
    pub fn commit(&mut self) {
        self.trail.commit(&mut self.tables);
    }

    /// Undoes all changes since the last commit.
    pub fn rollback(&mut self) {
        self.trail.rollback(&mut self.tables);
    }

    /// Limits the windows of anomalies, because their topic does not take larger records.
    pub fn limit_context(&mut self, most: usize) {
        self.context_limit = most;
    }

    /// Returns the settings.
    pub fn settings(&self) -> &DetectionSettings {
        &self.settings
    }

    /// Returns the resolved policies of the series.
    pub fn policies(&self) -> &PolicyTable {
        &self.policies
    }

    /// Returns the fingerprint of the policy.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Adds the restored table of a partition.
    pub fn adopt(&mut self, partition: i32, table: SeriesTable) {
        self.tables.insert(partition, table);
    }

    /// Returns the table of a partition.
    pub fn table(&self, partition: i32) -> Option<&SeriesTable> {
        self.tables.get(&partition)
    }

    /// Returns the table of a partition as mutable, to mark its snapshots as written.
    pub fn table_mut(&mut self, partition: i32) -> Option<&mut SeriesTable> {
        self.tables.get_mut(&partition)
    }

    /// Removes a partition that now belongs to another worker.
    pub fn forget(&mut self, partition: i32) {
        debug_assert!(!self.trail.has_steps(partition), "its steps would be taken back from another table");
        self.tables.remove(&partition);
    }

    /// Returns the number of series of one partition.
    pub fn series_of(&self, partition: i32) -> usize {
        self.tables.get(&partition).map_or(0, SeriesTable::len)
    }

    /// Returns the numbers of committed evictions since the last call.
    pub fn take_evictions(&mut self) -> Evictions {
        let mut sum = Evictions::default();
        self.tables.values_mut().for_each(|table| sum.add(table.take_evictions()));
        sum
    }
}

/// What a method found of one value.
#[allow(clippy::large_enum_variant)] // It lives on the stack, for one event.
enum Judged {
    /// The series has too few preceding values.
    Learning,
    /// The value is normal. Its figures were not computed.
    CertainlyNormal,
    /// The value was judged.
    Figures(Judgement),
}

/// Judges the events of one partition.
pub struct Judge<'d> {
    table: SeriesTable,
    bounds: SeriesLimits,
    policies: &'d mut PolicyTable,
    context: usize,
    others: &'d BTreeMap<i32, SeriesTable>,
    key: &'d mut String,
    /// Slot hints of the announced events.
    guesses: &'d mut Vec<SlotHint>,
    /// Index of the next announced event.
    next: usize,
    /// Another partition that already had the series that was just created here.
    split: Option<i32>,
    /// Time of the current record, in milliseconds.
    time: Option<i64>,
    /// Whether more events of the same record follow.
    has_more: bool,
}

impl Judge<'_> {
    /// Sets the record's own time for the next events, in milliseconds. It advances the partition's clock.
    pub fn pass(&mut self, time: Option<i64>) {
        self.time = time;
    }

    /// Sets whether more events of the same record follow the next one. Series are evicted only between records,
    /// because a restart replays whole records.
    pub fn set_has_more(&mut self, has_more: bool) {
        self.has_more = has_more;
    }

    /// Returns the other partition that already has the series judged last, if the series was created here just now.
    pub fn take_split(&mut self) -> Option<i32> {
        self.split.take()
    }

    /// Announces the events that are judged next, in this order. The call is cheap, and is faster overall if there are
    /// many series.
    pub fn approach<'e>(&mut self, events: impl Iterator<Item = &'e Event<'e>>) {
        self.next = 0;
        self.guesses.clear();
        if self.table.is_far() {
            for event in events {
                let key = series::key(self.key, &event.device_id, event.metric_name.as_deref());
                self.guesses.push(self.table.guess(key));
            }
            self.table.approach(self.guesses.iter().copied());
        }
    }

    /// Judges one event, then appends its value to the window. An event of an excluded series only advances the clock.
    /// The label is read only if the event is anomalous.
    pub fn judge(
        &mut self,
        source: &RecordId,
        event: &Event<'_>,
        at: Option<Timestamp>,
        label: impl FnOnce() -> Option<String>,
    ) -> Verdict {
        let (time, context) = (at.map(Timestamp::millis), self.context);
        let verdict = self.with_block(source.offset, event, time, true, |policy, block, judged| match judged {
            Judged::Learning => Verdict::Learning,
            Judged::Figures(figures) if figures.abnormal => {
                Verdict::Anomalous(Box::new(record(policy, context, block, figures, source, event, at, label())))
            }
            Judged::Figures(_) | Judged::CertainlyNormal => Verdict::Normal,
        });
        verdict.unwrap_or(Verdict::Excluded)
    }

    /// Judges an event as [`judge`](Self::judge) does, and returns its exact figures. They are `None` while learning,
    /// and for an excluded series.
    pub fn explain(
        &mut self,
        source: &RecordId,
        event: &Event<'_>,
        at: Option<Timestamp>,
    ) -> Option<(Judgement, Option<Box<Anomaly>>)> {
        let (time, context) = (at.map(Timestamp::millis), self.context);
        let explained = self.with_block(source.offset, event, time, false, |policy, block, judged| {
            let Judged::Figures(figures) = judged else { return None };
            let anomaly =
                figures.abnormal.then(|| Box::new(record(policy, context, block, figures, source, event, at, None)));
            Some((figures, anomaly))
        });
        explained.flatten()
    }

    /// Judges an event and appends its value to the window. In between, calls a function with the block of the event's
    /// series and what was judged. Returns `None` if the series is excluded. `may_screen` allows the method to skip the
    /// figures of a value that is certainly normal.
    #[inline]
    fn with_block<T>(
        &mut self,
        offset: i64,
        event: &Event<'_>,
        time: Option<i64>,
        may_screen: bool,
        then: impl FnOnce(&ResolvedPolicy, &SeriesBlock, Judged) -> T,
    ) -> Option<T> {
        let key = series::key(self.key, &event.device_id, event.metric_name.as_deref());
        let guess = self.guesses.get(self.next).copied().unwrap_or(SlotHint::NONE);
        self.next += 1;
        let found = self.table.find_slot(key, guess);
        if self.policies.can_exclude() && self.policies.excludes(found.map(|slot| self.table.policy(slot)), key) {
            self.table.pass_by(key, offset, self.time.take());
            if !self.has_more {
                self.table.prune(offset + 1, self.bounds);
            }
            return None;
        }
        if found.is_none() && self.table.is_closed() {
            self.table.refuse(key, offset, self.time.take());
            if !self.has_more {
                self.table.prune(offset + 1, self.bounds);
            }
            return None;
        }
        let slot = found.unwrap_or_else(|| self.table.create(key, offset, self.bounds));
        let known = self.table.policy(slot);
        let (policy, number) = self.policies.of(known, key);
        if known == UNRESOLVED {
            self.table.set_policy(slot, number);
        }
        let (method, value) = (policy.method.as_ref(), event.metric_value);
        let block = self.table.block(slot);
        let is_learning = block.len() < policy.limits.min_samples;
        let judged = if policy.has_state {
            match self.table.judge_by_state(slot, method, value, time) {
                Some(figures) if !is_learning => Judged::Figures(figures),
                _ => Judged::Learning,
            }
        } else if is_learning {
            Judged::Learning
        } else if may_screen && method.certainly_normal(block, value) {
            Judged::CertainlyNormal
        } else {
            method.judge(block, &[], value, time).map_or(Judged::Learning, Judged::Figures)
        };
        let seen = then(policy, self.table.block(slot), judged);
        self.table.tick(slot, offset, self.time.take());
        self.table.push(slot, offset, event.metric_value, policy.limits.window);
        if !self.has_more {
            self.table.prune(offset + 1, self.bounds);
        }
        if found.is_none() {
            self.split = self.others.iter().find(|(_, table)| table.contains(key)).map(|(partition, _)| *partition);
        }
        Some(seen)
    }
}

/// Methods for tests that check changes against those of a worker.
#[cfg(test)]
impl Detector {
    /// Sets the policy that applies from now on.
    pub fn change(&mut self, policy: Policy) {
        let before = std::mem::replace(&mut self.settings.policy, policy);
        self.policies = PolicyTable::new(&self.settings.policy).expect("methods");
        self.tables.values_mut().for_each(|table| table.change(&before, &self.settings.policy));
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::anomaly::Severity;
    use crate::policy::PolicyOverride;

    fn detector(policy: Policy) -> Detector {
        Detector::new(DetectionSettings { policy, ..DetectionSettings::default() }).unwrap()
    }

    #[test]
    fn each_value_of_the_policy_decides_the_fingerprint_and_nothing_else_does() {
        let default = DetectionSettings::default;
        let device = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        let changed = [
            Policy { window: 99, ..Policy::default() },
            Policy { min_samples: 29, ..Policy::default() },
            Policy { method: "other".into(), ..Policy::default() },
            Policy { threshold: 3.5, ..Policy::default() },
            Policy { min_std_dev: 0.5, ..Policy::default() },
            Policy { min_relative_std_dev: 0.5, ..Policy::default() },
            Policy { overrides: vec![device("a")], ..Policy::default() },
        ];
        assert_eq!(Policy::default().values().len(), changed.len(), "a change of each");
        let order = [[device("a"), device("b")], [device("b"), device("a")]];
        let order = order.map(|overrides| Policy { overrides: overrides.into(), ..Policy::default() });
        let changed =
            [&changed[..], &order].concat().into_iter().map(|policy| DetectionSettings { policy, ..default() });
        let changed = changed.collect::<Vec<_>>();
        let prints = changed.iter().map(DetectionSettings::fingerprint).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(prints.len(), changed.len());
        assert!(!prints.contains(&default().fingerprint()));
        let other = DetectionSettings { context: 7, max_series: 7, idle_after: None, ..default() };
        assert_eq!(other.fingerprint(), default().fingerprint());
    }

    /// A default setting of a later version must not start a new epoch.
    #[test]
    fn defaults_are_not_part_of_the_fingerprint() {
        let print = |text: &str| Sha256::digest(text)[..6].to_vec();
        assert_eq!(DetectionSettings::default().fingerprint().to_vec(), print("{}"));
        let policy = Policy { threshold: 3.5, min_samples: 7, ..Policy::default() };
        let changed = DetectionSettings { policy, ..DetectionSettings::default() };
        assert_eq!(changed.fingerprint().to_vec(), print(r#"{"min_samples":7,"threshold":3.5}"#));
    }

    fn judge(detector: &mut Detector, source: &RecordId, value: f64, label: Option<&str>) -> Verdict {
        let event = Event { device_id: Cow::Borrowed("d"), metric_name: None, metric_value: value, timestamp: None };
        detector.within(source.partition, |judge| judge.judge(source, &event, None, || label.map(str::to_owned)))
    }

    fn source(partition: i32, offset: i64) -> RecordId {
        RecordId { topic: "t".into(), generation: 0, partition, offset, index: 0 }
    }

    #[test]
    fn a_value_never_votes_on_itself_and_the_first_judged_is_the_one_after_min_samples() {
        let mut detector = detector(Policy { min_samples: 3, ..Policy::default() });
        for (i, value) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            assert_eq!(judge(&mut detector, &source(0, i as i64), value, None), Verdict::Learning);
        }
        let Verdict::Anomalous(anomaly) = judge(&mut detector, &source(0, 3), 100.0, Some("spike")) else {
            panic!("100 after 1, 2, 3 is abnormal");
        };
        assert_eq!((anomaly.mean, anomaly.window_count, anomaly.severity), (Some(2.0), 3, Severity::Critical));
        assert_eq!(anomaly.window, [1.0, 2.0, 3.0]);
        assert_eq!(anomaly.label.as_deref(), Some("spike"));
        assert_eq!(judge(&mut detector, &source(0, 4), 100.0, None), Verdict::Normal);
    }

    #[test]
    fn after_a_rollback_the_same_events_get_the_same_verdicts() {
        let mut detector = detector(Policy { window: 10, min_samples: 5, ..Policy::default() });
        let value = |i: i64| (i as f64 * 0.7).sin() + if i % 17 == 0 { 9.0 } else { 0.0 };
        let run = |detector: &mut Detector, range: std::ops::Range<i64>| {
            range.map(|i| judge(detector, &source(0, i), value(i), None)).collect::<Vec<_>>()
        };
        run(&mut detector, 0..40);
        detector.commit();
        let first = run(&mut detector, 40..90);
        detector.rollback();
        assert_eq!(run(&mut detector, 40..90), first);
        assert!(first.iter().any(|v| matches!(v, Verdict::Anomalous(_))));
    }

    #[test]
    fn a_series_in_two_partitions_is_counted_once() {
        let mut detector = Detector::new(DetectionSettings::default()).unwrap();
        let event = Event { device_id: Cow::Borrowed("d"), metric_name: None, metric_value: 1.0, timestamp: None };
        let mut split = |partition| {
            detector.within(partition, |judge| {
                judge.judge(&source(partition, 0), &event, None, || None);
                judge.take_split()
            })
        };
        assert_eq!([0, 1, 0, 1].map(&mut split), [None, Some(0), None, None]);
    }

    #[test]
    fn each_series_has_the_method_and_the_limits_of_its_own_policy_and_an_excluded_one_has_no_window() {
        let on = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        let overrides = vec![
            PolicyOverride { threshold: Some(50.0), method: Some("ewma".into()), ..on("calm*") },
            PolicyOverride { min_samples: Some(4), window: Some(4), ..on("short") },
            PolicyOverride { enabled: Some(false), ..on("*-off") },
        ];
        let mut detector = detector(Policy { window: 20, min_samples: 8, overrides, ..Policy::default() });
        let judge = |detector: &mut Detector, offset: i64, device: &'static str, value: f64| {
            let event = Event { device_id: device.into(), metric_name: None, metric_value: value, timestamp: None };
            detector.within(0, |judge| {
                judge.approach([&event].into_iter());
                judge.judge(&source(0, offset), &event, None, || None)
            })
        };
        let devices = ["other", "calm", "short", "calm-off"];
        for offset in 0..10 {
            for device in devices {
                judge(&mut detector, offset, device, (offset % 3) as f64);
            }
        }
        let found = devices.map(|device| match judge(&mut detector, 10, device, 20.0) {
            Verdict::Anomalous(a) => format!("{} {:?} {}", a.method, a.threshold, a.window_count),
            other => format!("{other:?}"),
        });
        assert_eq!(found, ["sigma Some(3.0) 10", "Normal", "sigma Some(3.0) 4", "Excluded"]);
        let Verdict::Anomalous(far) = judge(&mut detector, 11, "calm", 1e6) else { panic!("that is far") };
        assert_eq!(
            (far.method.as_str(), far.threshold, far.evidence.contains_key("alpha")),
            ("ewma", Some(50.0), true)
        );
        assert_eq!(detector.series_of(0), 3);
    }
}
