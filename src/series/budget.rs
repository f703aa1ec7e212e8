//! Bounds the memory of all series of a process. Its workers share one budget. While it is nearly used up, new series
//! are refused. Beyond it, each worker evicts its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Percentage of the budget from which on new series are refused, and up to which they are accepted again. The windows
/// of the existing series may still grow.
const FULL_PERCENT: u64 = 90;
const FREE: u64 = 80;

/// Bytes that the series of a process may use.
#[derive(Debug)]
pub(crate) struct SeriesBudget {
    limit: u64,
    used: AtomicU64,
}

impl SeriesBudget {
    /// Creates a budget of this many bytes.
    pub(crate) fn new(limit: u64) -> Arc<SeriesBudget> {
        Arc::new(SeriesBudget { limit: limit.max(1), used: AtomicU64::new(0) })
    }
}

/// The part of one worker. Dropping it returns its bytes.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    /// `None` without a limit.
    budget: Option<Arc<SeriesBudget>>,
    own: u64,
}

impl BudgetShare {
    /// Creates the part of a worker without series.
    pub(crate) fn new(budget: Option<Arc<SeriesBudget>>) -> Self {
        BudgetShare { budget, own: 0 }
    }

    /// Returns whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.budget.is_some()
    }

    /// Sets the number of bytes that the worker uses now.
    pub(crate) fn note(&mut self, own: u64) {
        let before = std::mem::replace(&mut self.own, own);
        let Some(budget) = &self.budget else { return };
        // The sum is never negative, because each worker removes only what it has added.
        budget.used.fetch_add(own.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Returns the used bytes of the process, and the limit.
    pub(crate) fn level(&self) -> Option<(u64, u64)> {
        self.budget.as_ref().map(|budget| (budget.used.load(Ordering::Relaxed), budget.limit))
    }

    /// Returns whether new series are to be refused from now on; `is_refusing` says whether they are now.
    pub(crate) fn refuses(&self, is_refusing: bool) -> bool {
        let bound = if is_refusing { FREE } else { FULL_PERCENT };
        self.level().is_some_and(|(used, limit)| used > limit / 100 * bound)
    }

    /// Returns how many of these bytes may stay, if the process uses more than its limit.
    pub(crate) fn allowance(&self, bytes: u64) -> Option<u64> {
        let (used, limit) = self.level().filter(|(used, limit)| used > limit)?;
        Some((u128::from(bytes) * u128::from(limit) / u128::from(used)) as u64)
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.note(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_budget_and_each_evicts_in_proportion() {
        let budget = SeriesBudget::new(1_000);
        let [mut one, mut two] = [0, 1].map(|_| BudgetShare::new(Some(Arc::clone(&budget))));
        one.note(800);
        assert!(!one.refuses(false) && !two.refuses(true), "{:?}", one.level());
        two.note(101);
        assert!(one.refuses(false) && two.refuses(true) && one.allowance(800).is_none());
        two.note(50);
        assert!(!one.refuses(false) && one.refuses(true), "it is between the two levels");
        two.note(1_200);
        assert_eq!((one.allowance(800), two.allowance(1_200)), (Some(400), Some(600)));
        drop(two);
        assert_eq!(one.level(), Some((800, 1_000)));
        let mut free = BudgetShare::new(None);
        free.note(u64::MAX);
        assert!(!free.refuses(false) && free.allowance(7).is_none());
    }
}
