//! The checkpoint of a partition: a record of `anomaly_state` with the offset from which the input must be replayed on
//! top of the snapshots. It also has everything that must be unchanged at a restart so that the snapshots are valid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::advice;
use super::live::LiveDigest;
use crate::anomaly::FIRST_GENERATION;
use crate::config::resolved::Settings;
use crate::detect::{Detector, hex};
use crate::event::{DECODING, Decoder, Fields};
use crate::method::{self, MethodId};
use crate::policy::{Policy, PolicyTable};
use crate::series::clock::{ClockSnapshot, PartitionClock, seconds};
use crate::series::snapshot::{self, DamagedRecord};
use crate::stream::client::{Fault, OutgoingRecord, OutputTopic, Remedy, TopicIdentity};
use crate::stream::progress::{OutcomeCounts, Progress};

/// Key of the checkpoint's record.
const KEY: &[u8] = b"f";

/// Content of the checkpoint's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub group: String,
    pub topic: String,
    pub topic_id: Option<String>,
    pub partitions: i32,
    /// Which topic of that name the windows are of. It is left out for the first one.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: i32,
    /// Start offset of the last completed sweep: every series that changed before has a snapshot.
    pub offset: i64,
    /// Time of the partition's clock at `offset` in milliseconds, for earlier versions.
    pub clock: Option<i64>,
    /// Complete state of the partition's clock at `offset`.
    #[serde(default)]
    pub time: Option<ClockSnapshot>,
    /// Number of records before `offset` that have an outcome, if known.
    #[serde(default)]
    pub passed: Option<u64>,
    /// Number and hash of the live keys of the partition when this was written. Older programs did not write it.
    #[serde(default)]
    pub live: Option<LiveDigest>,
    /// Committed offset when this was written; `counts` has the outcomes of the records before it.
    pub at: i64,
    pub counts: String,
    /// Settings and the offsets from which they applied, oldest first; the first epoch contains `offset`.
    pub epochs: Vec<Epoch>,
    /// Ranges of offsets in which records of unknown series were refused, oldest first. Only the last one may be open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalRange>,
}

/// Offsets in which records of unknown series were refused, because there was no memory for new series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusalRange {
    pub from: i64,
    /// First offset after the range; `None` while it lasts.
    pub to: Option<i64>,
}

/// Settings that apply from an offset on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    pub from: i64,
    /// Fingerprint of the policy.
    pub settings: String,
    /// Values of the policy that are not the default; see [`Policy::changed`].
    pub policy: BTreeMap<String, serde_json::Value>,
    /// Methods whose states the series have.
    pub methods: Vec<MethodId>,
    /// Sources of the fields: records that were rejected with them joined no window.
    pub fields: Fields,
    /// Version of the decoding; programs that did not write it decoded as version 0.
    #[serde(default)]
    pub decoding: u32,
}

impl Epoch {
    /// Creates an epoch with the current settings that starts at an offset.
    pub(crate) fn of(from: i64, detector: &Detector, fields: &Fields) -> Epoch {
        let (settings, policy) = (hex(&detector.fingerprint()), &detector.settings().policy);
        let versions = policy.methods().into_iter().filter_map(|name| Some((name, method::version_of(name)?)));
        let methods = versions.map(|(name, version)| MethodId { name: name.to_owned(), version }).collect();
        Epoch { from, settings, policy: policy.changed(), methods, fields: fields.clone(), decoding: DECODING }
    }

    /// Returns the policies of the epoch.
    ///
    /// # Errors
    /// Returns which of them this program does not know.
    pub(crate) fn policies(&self) -> Result<PolicyTable, String> {
        for MethodId { name, version } in &self.methods {
            let ours = match method::version_of(name) {
                Some(ours) if ours == *version => continue,
                Some(ours) => format!("this program has version {ours} of it"),
                None => "this program does not have that method".to_owned(),
            };
            return Err(format!("contains states of version {version} of method {name}, and {ours}"));
        }
        let policy = Policy::from_changed(&self.policy);
        let policy =
            policy.map_err(|e| format!("contains windows of settings that this program does not know: {e}"))?;
        PolicyTable::new(&policy)
            .ok_or_else(|| "contains states of a method that this program does not have".to_owned())
    }

    /// Returns a decoder that works like the one of the epoch.
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::as_of(self.decoding, &self.fields)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // Serde passes a reference.
fn is_first(generation: &i32) -> bool {
    *generation == FIRST_GENERATION
}

impl Checkpoint {
    /// Reads a record of `anomaly_state`; `None` if it is not a checkpoint.
    pub(crate) fn read(key: &[u8], value: Option<&[u8]>) -> Option<Result<Checkpoint, DamagedRecord>> {
        let sealed = value.filter(|_| key == KEY)?;
        let body = snapshot::unseal(key, sealed);
        Some(body.and_then(|body| serde_json::from_slice(body).map_err(|_| DamagedRecord::Broken)))
    }

    /// Creates the checkpoint of a partition without snapshots: the windows are read back from as much of the input as
    /// the settings allow. `first` is the first offset that the input still has, and `at` the committed progress.
    pub(crate) fn begin(
        settings: &Settings,
        detector: &Detector,
        identity: &TopicIdentity,
        first: i64,
        at: &Progress,
    ) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            group: settings.detector.group.clone(),
            topic: settings.topics.raw_events.clone(),
            topic_id: identity.id.clone(),
            partitions: identity.partitions,
            generation: at.generation,
            offset: first.max(at.offset.saturating_sub(settings.detector.history)).min(at.offset),
            clock: None,
            time: None,
            passed: None,
            live: Some(LiveDigest::default()),
            at: at.offset,
            counts: at.counts.to_string(),
            epochs: Vec::new(),
            refusals: Vec::new(),
        };
        checkpoint.settle(Epoch::of(checkpoint.offset, detector, &settings.fields));
        checkpoint
    }

    /// Returns the progress that was committed when this was written; `None` if its counts cannot be read.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let counts = OutcomeCounts::parse(&self.counts)?;
        Some(Progress { offset: self.at, counts, last: None, generation: self.generation })
    }

    /// Returns whether the snapshots are of this group and of a topic with this name.
    pub(crate) fn has_names_of(&self, settings: &Settings) -> bool {
        self.group == settings.detector.group && self.topic == settings.topics.raw_events
    }

    /// Returns whether the topic has not been recreated since, as far as the ids are known.
    pub(crate) fn is_of(&self, identity: &TopicIdentity) -> bool {
        self.topic_id.as_ref().zip(identity.id.as_ref()).is_none_or(|(then, now)| then == now)
    }

    /// Returns the offset from which on a group can continue with the snapshots. `newest` is the greatest offset of one.
    pub(crate) fn least(&self, newest: i64) -> i64 {
        newest.max(self.offset).max(self.at)
    }

    /// Returns the checkpoint's record for the state topic.
    pub(crate) fn record(&self, partition: i32) -> OutgoingRecord {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let (key, value) = (Some(KEY.to_vec()), Some(snapshot::seal(KEY, &body)));
        OutgoingRecord { output: OutputTopic::State(partition), key, value, timestamp: None, headers: Vec::new() }
    }

    /// Returns whether records of unknown series are refused now.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusals.last().is_some_and(|range| range.to.is_none())
    }

    /// Returns whether a record of an unknown series was refused at this offset.
    pub(crate) fn refuses(&self, offset: i64) -> bool {
        self.refusals.iter().any(|range| range.from <= offset && range.to.is_none_or(|to| offset < to))
    }

    /// Returns the checkpoint with a change: from this offset on, records of unknown series are refused, or accepted.
    pub(crate) fn with_refusal(&self, offset: i64, is_refusing: bool) -> Checkpoint {
        let mut changed = self.clone();
        match changed.refusals.last_mut().filter(|range| range.to.is_none()) {
            Some(range) if !is_refusing => range.to = Some(offset),
            None if is_refusing => changed.refusals.push(RefusalRange { from: offset, to: None }),
            _ => {}
        }
        changed
    }

    /// Returns the partition's clock at `offset`.
    pub(crate) fn clock(&self) -> PartitionClock {
        let earlier = || ClockSnapshot::at(seconds(self.clock.unwrap_or_default()));
        PartitionClock::from(&self.time.clone().unwrap_or_else(earlier))
    }

    /// Returns the number of records with an outcome to replay up to this progress, and their first offset. `None` if
    /// it is unknown, or the counts were reset since.
    pub(crate) fn expected(&self, to: &Progress) -> Option<(i64, u64)> {
        let at_commit = || Some((self.at, OutcomeCounts::parse(&self.counts)?.found()));
        let (from, passed) = self.passed.map(|passed| (self.offset, passed)).or_else(at_commit)?;
        Some((from, to.counts.found().checked_sub(passed)?))
    }

    /// Returns the checkpoint of a later sweep.
    pub(crate) fn moved(&self, offset: i64, passed: u64, time: ClockSnapshot, progress: &Progress) -> Checkpoint {
        let current = self.epochs.iter().rposition(|epoch| epoch.from <= offset).unwrap_or(0);
        Checkpoint {
            offset,
            clock: Some(i64::from(time.elapsed) * 1_000),
            time: Some(time),
            passed: Some(passed),
            at: progress.offset,
            counts: progress.counts.to_string(),
            epochs: self.epochs[current..].to_vec(),
            refusals: self.refusals.iter().filter(|range| range.to.is_none_or(|to| to > offset)).copied().collect(),
            ..self.clone()
        }
    }

    /// Starts an epoch at its offset; returns whether its settings are new.
    pub(crate) fn settle(&mut self, epoch: Epoch) -> bool {
        let is_same = |last: &Epoch| Epoch { from: epoch.from, ..last.clone() } == epoch;
        let differs = !self.epochs.last().is_some_and(is_same);
        if differs {
            // Later epochs were never used.
            self.epochs.retain(|earlier| earlier.from < epoch.from);
            self.epochs.push(epoch);
        }
        differs
    }

    /// Returns the problem if this program does not know the policy or a method of an epoch.
    fn unknown(&self) -> Option<String> {
        self.epochs.iter().find_map(|epoch| epoch.policies().err())
    }

    /// Checks that the snapshots belong to this group and this topic, and account only for committed records. `newest`
    /// is the greatest offset of a snapshot. `committed` is the offset of the group, if it has one.
    ///
    /// # Errors
    /// Returns `Stop` with the remedy.
    pub(crate) fn fits(
        &self,
        settings: &Settings,
        partition: i32,
        identity: &TopicIdentity,
        newest: i64,
        committed: Option<i64>,
    ) -> Result<(), Fault> {
        let (state, topic, group) = (&settings.topics.state, &settings.topics.raw_events, &settings.detector.group);
        let advice = format!(
            "To begin with windows read back from the input, delete topic {state} and create it again with `anomaly topics`"
        );
        let stop = |why: String| Err(Fault::new(Remedy::Stop, why));
        if !self.has_names_of(settings) {
            return stop(format!(
                "{state} [{partition}] contains windows of group {} on {}, not of group {group} on {topic}: give each group a \
                 topics.state of its own",
                self.group, self.topic
            ));
        }
        if !self.is_of(identity) {
            let id = |id: &Option<String>| id.clone().unwrap_or_default();
            return stop(format!(
                "{topic} was recreated: the windows in {state} [{partition}] are of its predecessor (id {}, now {}). {}",
                id(&self.topic_id),
                id(&identity.id),
                advice::begin_again(settings)
            ));
        }
        if let Some(why) = self.unknown() {
            return stop(format!("{state} [{partition}] {why}. Start the program that wrote it. {advice}"));
        }
        let least = self.least(newest);
        match committed {
            None => stop(format!(
                "{state} [{partition}] contains windows as of offset {least}, but group {group} has no committed offset: it was \
                 deleted or has expired. {}",
                advice::accept(settings, partition, &format!("continues at offset {least}"))
            )),
            Some(offset) if offset < least => stop(format!(
                "group {group} has the committed offset {offset} of {topic} [{partition}]. The windows in {state} begin at the \
                 later offset {least}: the offsets of the group were moved back. {}",
                advice::accept(settings, partition, "judges the records from there on again")
            )),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Decoded;
    use crate::policy::UNRESOLVED;
    use crate::stream::client::ConsumedRecord;

    fn sigma(version: u32) -> MethodId {
        MethodId { name: "sigma".into(), version }
    }

    fn epoch(from: i64, settings: &str, window: usize, fields: &Fields) -> Epoch {
        let (policy, methods) = (Policy { window, ..Policy::default() }.changed(), vec![sigma(1)]);
        Epoch { from, settings: settings.into(), policy, methods, fields: fields.clone(), decoding: DECODING }
    }

    fn checkpoint(epochs: &[(i64, &str)]) -> Checkpoint {
        let epochs = epochs.iter().map(|(from, settings)| Epoch {
            from: *from,
            settings: (*settings).to_owned(),
            ..epoch(0, "", 100, &Fields::default())
        });
        Checkpoint {
            group: "g".into(),
            topic: "t".into(),
            topic_id: None,
            partitions: 4,
            generation: FIRST_GENERATION,
            offset: 10,
            clock: Some(5_000),
            time: None,
            passed: None,
            live: Some(LiveDigest { count: 3, hash: 7 }),
            at: 20,
            counts: String::new(),
            epochs: epochs.collect(),
            refusals: Vec::new(),
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_from_its_record_and_damage_is_detected() {
        let checkpoint = checkpoint(&[(0, "a")]);
        let record = checkpoint.record(2);
        let (key, mut value) = (record.key.unwrap(), record.value.unwrap());
        assert_eq!(Checkpoint::read(&key, Some(&value)), Some(Ok(checkpoint)));
        assert_eq!(Checkpoint::read(b"sdevice", Some(&value)), None);
        value[20] ^= 1;
        assert_eq!(Checkpoint::read(&key, Some(&value)), Some(Err(DamagedRecord::Broken)));
    }

    #[test]
    fn ranges_of_refusals_are_kept_until_the_checkpoint_has_passed_them() {
        let open = checkpoint(&[]).with_refusal(20, true);
        assert!(open.is_refusing() && open.refuses(20) && open.refuses(99) && !open.refuses(19));
        assert_eq!(open.with_refusal(25, true), open);
        let closed = open.with_refusal(30, false).with_refusal(40, true).with_refusal(50, false);
        assert_eq!(
            [19, 20, 29, 30, 40, 50].map(|offset| closed.refuses(offset)),
            [false, true, true, false, true, false]
        );
        let moved = |offset| closed.moved(offset, 0, ClockSnapshot::default(), &Progress::default()).refusals.len();
        assert_eq!([10, 29, 30, 49, 50].map(moved), [2, 2, 1, 1, 0]);
        let (key, value) = (closed.record(0).key.unwrap(), closed.record(0).value.unwrap());
        assert_eq!(Checkpoint::read(&key, Some(&value)), Some(Ok(closed)));
    }

    #[test]
    fn the_clock_of_a_checkpoint_of_an_earlier_version_continues_from_its_seconds() {
        assert_eq!(checkpoint(&[]).clock().elapsed(), 5);
    }

    #[test]
    fn epochs_are_kept_from_the_one_that_applies_at_the_checkpoint() {
        let checkpoint = checkpoint(&[(0, "a"), (30, "b"), (50, "c")]);
        let from = |offset| {
            checkpoint
                .moved(offset, 0, ClockSnapshot::default(), &Progress::default())
                .epochs
                .iter()
                .map(|e| e.from)
                .collect::<Vec<_>>()
        };
        assert_eq!((from(10), from(30), from(70)), (vec![0, 30, 50], vec![30, 50], vec![50]));
    }

    #[test]
    fn an_older_programs_epoch_reads_records_as_that_program_did() {
        let old = r#"{"from":0,"settings":"a","policy":{},"methods":[{"name":"sigma","version":1}],"fields":
            {"device":"$key","metric":"m","value":"v","time":"t"}}"#;
        let old = serde_json::from_str::<Epoch>(old).unwrap();
        assert_eq!(old.decoding, 0);
        let mut decoder = old.decoder();
        let mut read = |json: &'static str| {
            let record = ConsumedRecord {
                offset: 0,
                timestamp: None,
                key: Some(b"k"),
                value: Some(json.as_bytes()),
                headers: &(),
            };
            decoder.decode(&record.input()).ok().and_then(Decoded::into_first).map(|event| event.device_id.into_owned())
        };
        // Version 0 took `$key` as the name of a field, and rejected text as a number.
        assert_eq!(read(r#"{"$key":"d","v":1}"#).as_deref(), Some("d"));
        assert_eq!(read(r#"{"v":1}"#), None);
        assert_eq!(read(r#"{"$key":"d","v":"1"}"#), None);
        assert_eq!(read(r#"{"$key":"d","v":1,"t":"2026-11-23T17:00:00+0100"}"#), None);
        let mut checkpoint = checkpoint(&[(0, "a")]);
        checkpoint.epochs[0].decoding = 0;
        assert!(
            checkpoint.settle(epoch(40, "a", 100, &Fields::default())),
            "the new reading begins at an offset of its own"
        );
    }

    #[test]
    fn an_epoch_of_an_unknown_method_is_found_and_both_versions_are_named() {
        let why = |name: &str, version| {
            let mut checkpoint = checkpoint(&[(0, "a")]);
            checkpoint.epochs[0].methods = vec![sigma(1), MethodId { name: name.into(), version }];
            checkpoint.unknown()
        };
        assert_eq!(why("ewma", 1), None);
        let newer = why("ewma", 7).unwrap();
        assert_eq!(newer, "contains states of version 7 of method ewma, and this program has version 1 of it");
        let unknown = why("forest", 2).unwrap();
        assert!(
            unknown.ends_with("version 2 of method forest, and this program does not have that method"),
            "{unknown}"
        );
    }

    #[test]
    fn an_epoch_with_settings_of_a_newer_program_is_found_and_its_setting_is_named() {
        let mut checkpoint = checkpoint(&[(0, "a")]);
        checkpoint.epochs[0].policy.insert("season".into(), 7.into());
        let why = checkpoint.unknown().unwrap();
        assert!(
            why.starts_with("contains windows of settings that this program does not know: ") && why.contains("season")
        );
    }

    #[test]
    fn another_method_starts_an_epoch() {
        let mut checkpoint = checkpoint(&[(0, "a")]);
        let mut next = epoch(40, "a", 100, &Fields::default());
        next.methods = vec![sigma(2)];
        assert!(checkpoint.settle(next.clone()));
        assert!(!checkpoint.settle(Epoch { from: 50, ..next }));
    }

    #[test]
    fn settings_that_never_judged_leave_no_epoch() {
        let mut checkpoint = checkpoint(&[(0, "a")]);
        let (usual, other) = (Fields::default(), Fields { value: "data.v".into(), ..Fields::default() });
        assert!(!checkpoint.settle(epoch(40, "a", 100, &usual)));
        assert!(checkpoint.settle(epoch(40, "a", 100, &other)));
        assert!(checkpoint.settle(epoch(40, "b", 200, &usual)));
        assert!(checkpoint.settle(epoch(40, "c", 300, &usual)));
        let epochs =
            checkpoint.epochs.iter().map(|e| (e.from, e.policies().unwrap().of(UNRESOLVED, "").0.limits.window));
        assert_eq!(epochs.collect::<Vec<_>>(), [(0, 100), (40, 300)]);
    }
}
