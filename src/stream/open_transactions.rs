//! Watches for open transactions that delay the records behind them.

use std::time::Duration;

use super::standstill::{StandingPartition, Standstill};
use crate::health::listed;

/// Time after which an open transaction is reported: the stable end does not move although there are records beyond it.
pub(crate) const MIN_OPEN_TIME: Duration = Duration::from_secs(5);

/// The stable ends of the partitions of one topic.
#[derive(Default)]
pub(crate) struct OpenTransactions(Standstill);

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
        let place = |standing: StandingPartition| {
            let StandingPartition { partition, offset: end, waiting: count, .. } = standing;
            format!("{topic} [{partition}]: an open transaction at offset {end} holds back {count} records")
        };
        let places = self.0.watch(now, hold, ends).into_iter().map(place).collect::<Vec<_>>();
        (!places.is_empty()).then(|| listed(&places))
    }
}
