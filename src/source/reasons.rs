//! Counts the reasons of rejections: each reason once, with its count and its first position, in bounded memory.

use super::file::{BatchRow, LineCount};
use crate::event::{RejectReason, Rejection};

/// Maximum number of different reasons.
const MAX_REASONS: usize = 20;

/// Records that were rejected for the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Message of the first one.
    pub rejection: Rejection,
    /// Number of records, and line of the first one.
    pub seen: LineCount,
    /// Zero-based number of the first one.
    pub index: i64,
    /// What the rejections have in common.
    reason: RejectReason,
}

/// Counts of rejected records per reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReasonCounts {
    reasons: Vec<Reason>,
    others: LineCount,
}

impl ReasonCounts {
    /// Counts a record; returns whether its reason is new.
    pub(crate) fn add(&mut self, row: BatchRow<'_>, rejection: Rejection) -> bool {
        let reason = rejection.reason();
        if let Some(known) = self.reasons.iter_mut().find(|known| known.reason == reason) {
            known.seen.add(row.line);
            return false;
        }
        if self.reasons.len() == MAX_REASONS {
            self.others.add(row.line);
            return false;
        }
        self.reasons.push(Reason {
            rejection,
            seen: LineCount { count: 1, first: row.line },
            index: row.index,
            reason,
        });
        true
    }

    /// Returns the reasons in the order of their first records.
    pub(crate) fn all(&self) -> &[Reason] {
        &self.reasons
    }

    /// Returns the number of records with further reasons.
    pub(crate) fn others(&self) -> LineCount {
        self.others
    }

    /// Returns the number of rejected records.
    pub(crate) fn count(&self) -> u64 {
        self.reasons.iter().map(|reason| reason.seen.count).sum::<u64>() + self.others.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RejectClass;

    #[test]
    fn a_million_rows_with_the_same_fault_are_one_reason() {
        let mut reasons = ReasonCounts::default();
        for line in 0..1_000_000 {
            let message = format!("the value is not a number: \"x\\\"{line}\"");
            let class = RejectClass::MetricValue;
            let is_new =
                reasons.add(BatchRow { index: line, line: line as u64 + 2, bytes: b"" }, Rejection { class, message });
            assert_eq!(is_new, line == 0);
        }
        let [reason] = reasons.all() else { panic!("{reasons:?}") };
        assert_eq!((reason.seen, reason.index), (LineCount { count: 1_000_000, first: 2 }, 0));
        assert_eq!(reason.rejection.message, "the value is not a number: \"x\\\"0\"");
    }

    #[test]
    fn reasons_beyond_the_limit_are_counted_and_not_stored() {
        let mut reasons = ReasonCounts::default();
        let row = BatchRow { index: 0, line: 7, bytes: b"" };
        for i in 0..100 {
            let message = "x".repeat(i);
            reasons.add(row, Rejection { class: RejectClass::Json, message });
        }
        assert_eq!(
            (reasons.all().len(), reasons.others(), reasons.count()),
            (20, LineCount { count: 80, first: 7 }, 100)
        );
    }
}
