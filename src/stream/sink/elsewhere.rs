//! Watches the partitions of the topic that other members of the sink's group have. If such a member is the sink of
//! another database, or another program, their anomalies are not stored in this database.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::listed;
use crate::ledger::LedgerPosition;
use crate::stream::client::{AssignmentReading, GroupOwners, OwnerObserver, Positions};

/// Time without progress after which the end of a partition is requested.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Time for which anomalies must wait before they are reported. The group's session timeout is added: until then a
/// partition may belong to a sink that has died.
const REPORTED_WAIT: Duration = Duration::from_secs(30);
/// Time between two evaluations after which the earlier one is out of date, as after an outage of the database.
const STALE: Duration = Duration::from_secs(20);

/// The partitions of other members, and how long their offsets in the ledger have not moved.
#[derive(Default)]
pub(super) struct Elsewhere<'a> {
    observer: Option<Box<dyn OwnerObserver + 'a>>,
    idle: BTreeMap<i32, IdlePartition>,
    evaluated: Duration,
}

/// A partition of another member whose offset in the ledger does not move.
struct IdlePartition {
    /// Offset in the ledger; `None` if it has none.
    next: Option<i64>,
    /// Time since which the ledger has this offset.
    since: Duration,
    /// Time since which the topic has records after this offset.
    waits: Option<Duration>,
    /// Number of these records.
    records: i64,
}

impl<'a> Elsewhere<'a> {
    /// Starts to observe the group.
    pub(crate) fn observe(&mut self, observer: Box<dyn OwnerObserver + 'a>) {
        self.observer = Some(observer);
    }

    /// Returns the last known owners of the partitions.
    pub(crate) fn owners(&self) -> GroupOwners {
        self.observer.as_ref().map(|observer| observer.owners()).unwrap_or_default()
    }

    /// Returns the last observation of the whole assignment; `None` if the group is not observed.
    pub(crate) fn assignment(&self) -> Option<AssignmentReading> {
        self.observer.as_ref().map(|observer| observer.assignment())
    }

    /// Returns what other members keep from this database; `None` if nothing. `ours` are the sink's own partitions, `held`
    /// the ledger's offsets of all partitions.
    pub(crate) fn watch(
        &mut self,
        now: Duration,
        owners: &GroupOwners,
        ours: &Positions,
        held: &BTreeMap<i32, LedgerPosition>,
        (topic, session): (&str, Duration),
    ) -> Option<String> {
        if now.saturating_sub(self.evaluated) >= STALE {
            self.idle.clear();
        }
        self.evaluated = now;
        self.idle.retain(|partition, _| owners.owners.contains_key(partition) && !ours.contains_key(partition));
        for partition in owners.owners.keys().filter(|partition| !ours.contains_key(partition)) {
            let next = held.get(partition).map(|held| held.next);
            let idle = self.idle.entry(*partition).or_insert_with(|| IdlePartition::new(next, now));
            if idle.next != next {
                *idle = IdlePartition::new(next, now);
            } else if let Some((first, end)) = owners.bounds.get(partition) {
                idle.records = end - next.unwrap_or(*first).max(*first);
                if idle.records > 0 {
                    idle.waits.get_or_insert(now);
                } else {
                    *idle = IdlePartition::new(next, now);
                }
            }
        }
        if let Some(observer) = &self.observer {
            let idle = self.idle.iter().filter(|(_, idle)| now.saturating_sub(idle.since) >= IDLE_TIME);
            observer.request_bounds(idle.map(|(partition, _)| *partition).collect());
        }
        self.message(now, owners, topic, REPORTED_WAIT + session)
    }

    fn message(&self, now: Duration, owners: &GroupOwners, topic: &str, long: Duration) -> Option<String> {
        let mut places = Vec::new();
        if !owners.foreign.is_empty() {
            places.push(format!("not a sink, but in the group: {}", listed(&owners.foreign)));
        }
        let is_long = |idle: &IdlePartition| idle.waits.is_some_and(|since| now.saturating_sub(since) >= long);
        let waiting = self.idle.iter().filter(|(_, idle)| is_long(idle));
        let waiting = waiting.map(|(partition, idle)| {
            let owner = owners.owners.get(partition).map_or("?", String::as_str);
            format!(
                "{topic} [{partition}]: about {} records are not stored in this database; {owner} has the partition",
                idle.records
            )
        });
        let waiting = waiting.collect::<Vec<_>>();
        // Another sink of the same database that does not advance looks like one of another database.
        let advice = match waiting.is_empty() {
            true => "each database, and each other program, needs a consumer group of its own",
            false => {
                "if that member is a sink of this database, it stands still: see its own report. Otherwise each database, and \
                 each other program, needs a consumer group of its own"
            }
        };
        places.extend(waiting);
        (!places.is_empty()).then(|| format!("{}; {advice}", listed(&places)))
    }
}

impl IdlePartition {
    fn new(next: Option<i64>, since: Duration) -> Self {
        IdlePartition { next, since, waits: None, records: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(10);

    /// The group: this sink has partition 0, another one partition 1, whose topic ends at `end`.
    fn owners(end: i64) -> GroupOwners {
        let named = |partition| (partition, format!("{partition}-sink at /10.0.0.1"));
        GroupOwners { foreign: Vec::new(), owners: [named(0), named(1)].into(), bounds: [(1, (2, end))].into() }
    }

    fn held(next: Option<i64>) -> BTreeMap<i32, LedgerPosition> {
        next.map(|next| (1, LedgerPosition { next, topic_id: None })).into_iter().collect()
    }

    /// Evaluates every 5 s; returns the first second with a message.
    fn reported(seconds: u64, end: i64, next: impl Fn(u64) -> Option<i64>) -> Option<(u64, String)> {
        let (mut elsewhere, ours) = (Elsewhere::default(), Positions::from([(0, 7)]));
        (0..seconds).step_by(5).find_map(|second| {
            let now = Duration::from_secs(1_000 + second);
            let text = elsewhere.watch(now, &owners(end), &ours, &held(next(second)), ("t", SESSION));
            text.map(|text| (second, text))
        })
    }

    #[test]
    fn a_partition_whose_records_another_member_keeps_from_the_ledger_is_named_with_its_owner() {
        let (second, text) = reported(200, 9, |_| Some(4)).unwrap();
        assert_eq!(second, 40);
        assert!(
            text.contains("t [1]: about 5 records are not stored") && text.contains("1-sink at /10.0.0.1"),
            "{text}"
        );
        let (_, text) = reported(200, 9, |_| None).unwrap();
        assert!(text.contains("about 7 records"), "a partition that this database never had: {text}");
    }

    #[test]
    fn a_partition_that_another_sink_of_this_database_stores_is_not_reported() {
        assert_eq!(reported(500, 9, |_| Some(9)), None, "everything is stored");
        assert_eq!(reported(500, 2, |_| None), None, "there is nothing");
        assert_eq!(reported(500, 1_000, |second| Some(second as i64)), None, "the other one advances");
        assert_eq!(reported(500, 1_000, |second| Some(second as i64 / 40)), None, "slowly");
    }

    #[test]
    fn an_outage_of_the_database_restarts_the_time_and_a_foreign_member_is_named_at_once() {
        let (mut elsewhere, ours) = (Elsewhere::default(), Positions::new());
        let mut watch = |second: u64, owners: &GroupOwners| {
            elsewhere.watch(Duration::from_secs(second), owners, &ours, &held(Some(4)), ("t", SESSION))
        };
        assert_eq!(watch(1_000, &owners(9)), None);
        assert_eq!(watch(1_005, &owners(9)), None);
        assert_eq!(watch(1_600, &owners(9)), None, "the other sink had no database either");
        let text = watch(1_605, &GroupOwners { foreign: vec!["intruder at /10.0.0.2".into()], ..owners(9) }).unwrap();
        assert!(text.starts_with("not a sink, but in the group: intruder at /10.0.0.2; each database"), "{text}");
    }
}
