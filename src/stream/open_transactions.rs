//! Watches for open transactions that delay the records behind them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::listed;

/// Time after which an open transaction is reported: the stable end does not move although there are records beyond it.
pub(crate) const HOLD: Duration = Duration::from_secs(5);

/// The stable ends of the partitions of one topic.
#[derive(Default)]
pub(crate) struct OpenTransactions {
    /// Stable end of a partition with records beyond it, and the time since which it has not moved.
    held: BTreeMap<i32, (i64, Duration)>,
}

impl OpenTransactions {
    /// Returns the places of transactions that have been open for `hold`. `ends` has the stable end of each partition,
    /// and its end including open transactions.
    pub(crate) fn watch(
        &mut self,
        topic: &str,
        now: Duration,
        hold: Duration,
        ends: impl Iterator<Item = (i32, (i64, i64))>,
    ) -> Option<String> {
        let beyond = ends.filter(|(_, (end, high))| high > end).collect::<BTreeMap<_, _>>();
        self.held.retain(|partition, _| beyond.contains_key(partition));
        let mut places = Vec::new();
        for (partition, (end, high)) in beyond {
            let (stood, since) = self.held.entry(partition).or_insert((end, now));
            if *stood != end {
                (*stood, *since) = (end, now);
            } else if now.saturating_sub(*since) >= hold {
                let count = high - end;
                places.push(format!(
                    "{topic} [{partition}]: an open transaction at offset {end} holds back {count} records"
                ));
            }
        }
        (!places.is_empty()).then(|| listed(&places))
    }
}
