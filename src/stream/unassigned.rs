//! Finds partitions that the group assigns to no member, and decides when a member forces a rebalance.
//!
//! A static member that restarts gets its earlier partitions again, and the group does not assign again. So partitions
//! that were added to the topic meanwhile belong to no member. A rebalance assigns them, because the leader of the group
//! then reads the partitions of the topic again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::health::{Component, ConditionCode, ConditionSeverity, listed};
use crate::stream::client::AssignmentReading;

/// Time for which a partition must be unassigned before it is reported and a rebalance is forced. The leader of the
/// group notices added partitions within 5 s.
const UNASSIGNED_TIME: Duration = Duration::from_secs(7);
/// Number of observations that must agree.
const MIN_AGREEING_READINGS: u32 = 3;
/// Time between two observations after which they do not confirm each other.
const APART: Duration = Duration::from_secs(60);
/// Time after a rebalance after which partitions that are still unassigned degrade the component.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Time after which they do so without a rebalance.
const REPORT_TIME: Duration = Duration::from_secs(30);
/// Waits after each rebalance that did not help. After the last wait and one more rebalance there are no others.
const WAITS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];
/// Additional wait for each member before this one, so that only one member forces the rebalance.
const WAIT_PER_MEMBER: Duration = Duration::from_secs(15);
/// Number of members before this one that count at most.
const MOST_BEFORE: usize = 8;
/// Time after which an assignment that is not known is reported. A rebalance takes seconds.
const UNKNOWN: Duration = Duration::from_secs(60);
/// Time for which all partitions must be assigned before earlier rebalances no longer count.
const WELL: Duration = Duration::from_secs(600);
/// Time for which the topic must lack partitions that the group assigns. A broker that has just started may not know the
/// newest partitions.
pub(crate) const LACKING: Duration = Duration::from_secs(5);
/// Longest time to leave the group in order to join it with another client.
pub(crate) const LEAVE: Duration = Duration::from_secs(5);
/// Time between two evaluations.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);

/// Number of rebalances that did not assign all partitions. It outlives the clients of a member, so that a rebalance
/// that makes a new client necessary counts too.
#[derive(Debug, Clone, Default)]
pub(crate) struct VainRebalances(Arc<AtomicUsize>);

impl VainRebalances {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Names for the messages of [`UnassignedPartitions`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageNames<'a> {
    pub topic: &'a str,
    pub group: &'a str,
    /// What does not happen to the records, such as `judged`.
    pub done: &'a str,
}

/// The partitions that no member has, according to the observations so far.
#[derive(Debug, Default)]
pub(crate) struct UnassignedPartitions {
    rebalances: VainRebalances,
    evaluated: Option<Duration>,
    /// Number of the last observation.
    number: u64,
    /// Each unassigned partition: the time of the first observation, and their number.
    unassigned: BTreeMap<i32, (Duration, u32)>,
    place: Option<usize>,
    /// Time of the last observation with a known assignment; before the first one, the time of the first evaluation.
    known: Option<Duration>,
    /// Why the last observation has no assignment.
    cause: Option<String>,
    /// Time of the last rebalance that counts.
    rebalanced: Option<Duration>,
    is_rejoining: bool,
    /// Time since which all partitions are assigned.
    well: Option<Duration>,
}

impl UnassignedPartitions {
    /// Makes this member count rebalances together with its earlier clients.
    pub(crate) fn counting(&mut self, rebalances: VainRebalances) {
        self.rebalances = rebalances;
    }

    /// Returns whether an evaluation is due: once a second.
    pub(crate) fn is_evaluation_due(&self, now: Duration) -> bool {
        self.evaluated.is_none_or(|at| now.saturating_sub(at) >= EVALUATION_INTERVAL)
    }

    /// Notes the last observation of the group.
    pub(crate) fn note(&mut self, now: Duration, reading: AssignmentReading) {
        self.evaluated = Some(now);
        let known = *self.known.get_or_insert(now);
        if reading.number == self.number {
            return;
        }
        self.number = reading.number;
        let found = match reading.found {
            Ok(found) => found,
            // An error is not absence: what was known stays, and nothing is confirmed.
            Err(cause) => {
                self.cause = Some(cause);
                return;
            }
        };
        if now.saturating_sub(known) >= APART {
            self.unassigned.clear();
        }
        (self.cause, self.known, self.place) = (None, Some(now), found.place);
        self.unassigned.retain(|partition, _| found.unassigned.contains(partition));
        for partition in &found.unassigned {
            self.unassigned.entry(*partition).or_insert((now, 0)).1 += 1;
        }
        if !found.unassigned.is_empty() {
            self.well = None;
        } else if now.saturating_sub(*self.well.get_or_insert(now)) >= WELL {
            self.rebalances.reset();
        }
    }

    /// Returns the partitions that are certainly unassigned, and the time since which the first of them is.
    fn confirmed(&self, now: Duration) -> Option<(BTreeSet<i32>, Duration)> {
        let is_sure = |since: Duration, readings: u32| {
            readings >= MIN_AGREEING_READINGS && now.saturating_sub(since) >= UNASSIGNED_TIME
        };
        let sure = self.unassigned.iter().filter(|(_, (since, readings))| is_sure(*since, *readings));
        let since = sure.clone().map(|(_, (since, _))| *since).min()?;
        Some((sure.map(|(partition, _)| *partition).collect(), since))
    }

    /// Returns whether this member must force a rebalance now. It waits for the members before it, and after each
    /// rebalance that did not help.
    pub(crate) fn is_rebalance_due(&self, now: Duration) -> bool {
        let (Some((_, since)), Some(place), None) = (self.confirmed(now), self.place, &self.cause) else {
            return false;
        };
        let wait = match self.rebalances.get() {
            0 => Some(UNASSIGNED_TIME),
            vain => WAITS.get(vain - 1).copied(),
        };
        let since = since.max(self.rebalanced.unwrap_or_default());
        let turn = WAIT_PER_MEMBER * u32::try_from(place.min(MOST_BEFORE)).unwrap_or_default();
        wait.is_some_and(|wait| now.saturating_sub(since) >= wait + turn)
    }

    /// Returns whether this member may force one more rebalance.
    pub(crate) fn may_force(&self) -> bool {
        self.rebalances.get() <= WAITS.len()
    }

    /// Notes that this member forces a rebalance.
    pub(crate) fn note_forced(&mut self, now: Duration) {
        self.rebalances.add();
        (self.rebalanced, self.is_rejoining) = (Some(now), true);
    }

    /// Notes that the group has assigned partitions. If it was not this member's own rebalance, it counts like one: all
    /// members then wait together, so that their number does not matter.
    pub(crate) fn note_assigned(&mut self, now: Duration) {
        let is_own = std::mem::take(&mut self.is_rejoining);
        if !is_own && self.confirmed(now).is_some() {
            self.rebalances.add();
        }
        self.rebalanced = Some(now);
    }

    /// Updates the condition about partitions without a member, or about an assignment that is not known. An earlier
    /// condition stays until an observation finds that all partitions are assigned.
    pub(crate) fn report(&self, now: Duration, names: MessageNames<'_>, component: &Component) {
        let condition = self.condition(now, names);
        if condition.is_some() || (self.well.is_some() && self.unassigned.is_empty()) {
            component.set_condition(ConditionCode::Unassigned, condition);
        }
    }

    fn condition(&self, now: Duration, names: MessageNames<'_>) -> Option<(ConditionSeverity, String)> {
        let MessageNames { topic, group, done } = names;
        let Some((partitions, since)) = self.confirmed(now) else {
            let is_unknown = self.known.is_some_and(|known| now.saturating_sub(known) >= UNKNOWN);
            return is_unknown.then(|| {
                let cause = self.cause.as_deref().unwrap_or("the cluster does not answer");
                let text =
                    format!("group {group}: it is not known whether each partition of {topic} has a member: {cause}");
                (ConditionSeverity::Notice, text)
            });
        };
        // An observation from before the rebalance says nothing about its outcome.
        let is_vain = self.rebalances.get() > 0
            && self.cause.is_none()
            && self.rebalanced.is_some_and(|at| now.saturating_sub(at) >= SETTLE_TIME);
        let is_long = is_vain || now.saturating_sub(since) >= REPORT_TIME;
        let severity = if is_long { ConditionSeverity::Degraded } else { ConditionSeverity::Notice };
        let (many, are) = if partitions.len() == 1 { ("", "is") } else { ("s", "are") };
        let places = partitions.iter().map(|partition| format!("[{partition}]")).collect::<Vec<_>>();
        let attempts = match self.rebalances.get() {
            0 => "A member will leave the group and join it again, so that the group assigns them".to_owned(),
            1 => "A rebalance has not assigned them yet".to_owned(),
            vain => format!("{vain} rebalances have not assigned them"),
        };
        let text = format!(
            "group {group}: {} partition{many} of {topic} {are} assigned to no member ({}), so that their records are not \
             {done}. {attempts}. If this lasts, stop all members of the group for longer than detector.session_timeout, then \
             start them",
            partitions.len(),
            listed(&places)
        );
        Some((severity, text))
    }
}

/// Describes partitions that the group assigns, but that the topic does not have; `None` if there are none. `count` is the
/// number of partitions of the topic.
pub(crate) fn describe_lacking(assigned: &[i32], count: i32, topic: &str, group: &str) -> Option<String> {
    let lacking = assigned.iter().filter(|partition| **partition >= count);
    let places = lacking.map(|partition| format!("[{partition}]")).collect::<Vec<_>>();
    (!places.is_empty()).then(|| {
        format!(
            "group {group} assigns partitions that {topic} does not have ({}), as after it was recreated with {count} \
             partitions. If this lasts, stop all members of the group for longer than detector.session_timeout, then start \
             them",
            listed(&places)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::GroupAssignment;

    const NAMES: MessageNames<'_> = MessageNames { topic: "raw", group: "g", done: "judged" };

    /// A member that evaluates each second.
    #[derive(Default)]
    struct Member {
        watch: UnassignedPartitions,
        now: u64,
    }

    impl Member {
        fn at(&self) -> Duration {
            Duration::from_secs(self.now)
        }

        /// Advances by this number of seconds. An observation each second finds this. Returns the seconds at which a
        /// rebalance was due, and forces each.
        fn observe(&mut self, seconds: u64, place: usize, unassigned: &[i32]) -> Vec<u64> {
            let found = GroupAssignment { unassigned: unassigned.iter().copied().collect(), place: Some(place) };
            self.find(seconds, &Ok(found))
        }

        fn find(&mut self, seconds: u64, found: &Result<GroupAssignment, String>) -> Vec<u64> {
            let mut forced = Vec::new();
            for _ in 0..seconds {
                self.now += 1;
                self.watch.note(self.at(), AssignmentReading { number: self.now, found: found.clone() });
                if self.watch.is_rebalance_due(self.at()) {
                    forced.push(self.now);
                    self.watch.note_forced(self.at());
                    self.watch.note_assigned(self.at());
                }
            }
            forced
        }

        fn condition(&self) -> Option<(ConditionSeverity, String)> {
            self.watch.condition(self.at(), NAMES)
        }
    }

    fn unknown() -> Result<GroupAssignment, String> {
        Err("the cluster did not describe group g: timed out".into())
    }

    #[test]
    fn partitions_without_a_member_are_named_and_the_first_member_forces_a_rebalance() {
        let mut member = Member::default();
        assert_eq!(member.observe(100, 0, &[]), [0; 0]);
        assert_eq!(member.observe(7, 0, &[3, 4, 5]), [0; 0]);
        assert_eq!(member.condition(), None, "the leader may notice them itself");
        assert_eq!(member.observe(1, 0, &[3, 4, 5]), [108]);
        let (severity, text) = member.condition().unwrap();
        assert_eq!(severity, ConditionSeverity::Notice, "{text}");
        assert!(text.contains("3 partitions of raw are assigned to no member ([3]; [4]; [5])"), "{text}");
        member.find(10, &unknown());
        assert_eq!(member.condition().unwrap().0, ConditionSeverity::Notice, "the group assigns them now");
        assert_eq!(member.observe(1, 0, &[3, 4, 5]), [0; 0]);
        let (severity, text) = member.condition().unwrap();
        assert_eq!(severity, ConditionSeverity::Degraded, "{text}");
        assert!(text.contains("A rebalance has not assigned them yet. If this lasts, stop all members"), "{text}");
        member.observe(1, 0, &[]);
        assert_eq!(member.condition(), None);
    }

    #[test]
    fn one_observation_confirms_nothing_and_neither_do_some_that_are_far_apart() {
        let mut member = Member::default();
        for _ in 0..100 {
            member.observe(1, 0, &[3]);
            member.observe(1, 0, &[]);
        }
        let read = |member: &mut Member| member.observe(1, 0, &[3]);
        read(&mut member);
        for _ in 0..10 {
            member.now += APART.as_secs();
            assert_eq!(read(&mut member), [0; 0]);
            assert_eq!(member.condition(), None);
        }
        // The same observation again and again.
        let found = Ok(GroupAssignment { unassigned: [3].into(), place: Some(0) });
        for second in 0..30 {
            let now = member.at() + Duration::from_secs(second);
            member.watch.note(now, AssignmentReading { number: member.now, found: found.clone() });
            assert!(!member.watch.is_rebalance_due(now) && member.watch.condition(now, NAMES).is_none());
        }
    }

    #[test]
    fn an_assignment_that_is_not_known_forces_nothing_and_is_reported_after_a_minute() {
        let mut member = Member::default();
        assert_eq!(member.find(60, &unknown()), [0; 0]);
        assert_eq!(member.condition(), None);
        member.find(1, &unknown());
        let (severity, text) = member.condition().unwrap();
        assert_eq!(severity, ConditionSeverity::Notice);
        assert!(text.contains("it is not known whether each partition of raw has a member: the cluster did"), "{text}");
        member.observe(1, 0, &[]);
        assert_eq!(member.condition(), None);
        // The last observation was an error: nothing is forced, and what was known stays reported.
        member.observe(10, 0, &[3]);
        assert_eq!(member.find(50, &unknown()), [0; 0]);
        assert!(member.condition().unwrap().1.contains("1 partition of raw is assigned to no member ([3])"));
        // An observer that no longer observes.
        let mut member = Member::default();
        member.observe(1, 0, &[]);
        member.now += UNKNOWN.as_secs();
        assert!(member.condition().unwrap().1.contains("not known"));
    }

    #[test]
    fn a_condition_stays_until_an_observation_finds_that_all_partitions_are_assigned() {
        let component = crate::health::Health::default().component("worker-0");
        let codes = || component.conditions().iter().map(|condition| condition.code).collect::<Vec<_>>();
        let mut member = Member::default();
        let report = |member: &mut Member, found: &Result<GroupAssignment, String>| {
            member.find(1, found);
            member.watch.report(member.at(), NAMES, &component);
            codes()
        };
        let some = Ok(GroupAssignment { unassigned: [3].into(), place: Some(1) });
        (0..7).for_each(|_| assert_eq!(report(&mut member, &some), []));
        assert_eq!(report(&mut member, &some), [ConditionCode::Unassigned]);
        // A new client has observed nothing yet.
        member.watch = UnassignedPartitions::default();
        for found in [&unknown(), &some, &unknown()] {
            assert_eq!(report(&mut member, found), [ConditionCode::Unassigned]);
        }
        assert_eq!(report(&mut member, &Ok(GroupAssignment::default())), []);
    }

    #[test]
    fn the_number_of_rebalances_is_bounded_with_longer_and_longer_waits_also_across_clients() {
        let (count, mut all) = (VainRebalances::default(), Vec::new());
        let mut member = Member::default();
        for _ in 0..20 {
            member.watch = UnassignedPartitions::default();
            member.watch.counting(count.clone());
            all.extend(member.observe(1_000, 0, &[3]));
        }
        assert_eq!(all[..3], [8, 68, 368]);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(member.condition().unwrap().1.contains("4 rebalances have not assigned them"));
        assert_eq!(member.observe(WELL.as_secs(), 0, &[]), [0; 0]);
        assert_eq!(member.observe(100, 0, &[3]), [0; 0], "it was well for a shorter time");
        assert_eq!(member.observe(WELL.as_secs() + 1, 0, &[]), [0; 0]);
        assert_eq!(member.observe(8, 0, &[3]).len(), 1);
    }

    #[test]
    fn a_member_waits_for_those_before_it_and_their_rebalances_count_as_its_own() {
        let mut second = Member::default();
        assert_eq!(second.observe(22, 1, &[3]), [0; 0]);
        assert_eq!(second.observe(1, 1, &[3]), [23], "the first one has not acted");
        let mut second = Member::default();
        second.observe(8, 1, &[3]);
        second.watch.note_assigned(second.at());
        assert_eq!(second.observe(74, 1, &[3]), [0; 0]);
        assert_eq!(second.observe(1, 1, &[3]), [83]);
        let mut outside = Member::default();
        assert_eq!(outside.find(1_000, &Ok(GroupAssignment { unassigned: [3].into(), place: None })), [0; 0]);
    }
}
