//! The series of a table ordered by their newest records, to find the one that has been silent longest. The list is not
//! updated for each event. A series with a newer record is sorted again when it reaches the front. The list is built
//! only when a series may have to be evicted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::SeriesTable;

#[derive(Debug, Default)]
pub(super) struct RecencyList {
    /// Offset of the newest or an earlier record of each series, and the series' slot.
    places: Option<BinaryHeap<Reverse<(i64, u32)>>>,
    /// Lower limit of the times at which series were last touched, in seconds.
    floor: u32,
}

impl RecencyList {
    /// Notes that a series was touched at this second.
    pub(crate) fn lower(&mut self, touched: u32) {
        self.floor = self.floor.min(touched);
    }

    /// Adds a new series to the list.
    pub(crate) fn enter(&mut self, at: u32, last: i64) {
        if let Some(places) = &mut self.places {
            places.push(Reverse((last, at)));
        }
    }

    /// Removes the first series, which was found just now.
    pub(crate) fn leave(&mut self) {
        self.places.as_mut().and_then(BinaryHeap::pop);
    }

    /// Discards the list, so that it is built again when needed.
    pub(crate) fn forget(&mut self) {
        *self = RecencyList::default();
    }
}

impl SeriesTable {
    /// Returns false only if certainly no series is older than this second.
    pub(super) fn may_be_older(&mut self, than: u32) -> bool {
        if self.order.floor < than && self.order.places.is_none() {
            let touched = self.series.iter().flatten().map(|series| series.touched);
            self.order.floor = touched.min().unwrap_or(u32::MAX);
        }
        self.order.floor < than
    }

    /// Returns the series with the lowest newest offset. It is also the oldest by the partition's clock, which never
    /// runs backwards.
    pub(super) fn oldest(&mut self) -> Option<u32> {
        let SeriesTable { series, order, .. } = self;
        let places = order.places.get_or_insert_with(|| {
            let taken = series.iter().zip(0..).filter_map(|(series, at)| Some(Reverse((series.as_ref()?.last, at))));
            taken.collect()
        });
        while let Some(mut first) = places.peek_mut() {
            let Reverse((last, at)) = *first;
            match &series[at as usize] {
                Some(series) if series.last == last => {
                    order.floor = series.touched;
                    return Some(at);
                }
                Some(series) => *first = Reverse((series.last, at)),
                None => {
                    PeekMut::pop(first);
                }
            }
        }
        order.floor = u32::MAX;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SeriesLimits, SlotHint};
    use super::*;

    #[test]
    fn each_series_is_in_the_order_once_after_any_changes() {
        let bounds = SeriesLimits { max_series: 5, idle_after: None };
        let mut table = SeriesTable::default();
        for offset in 0..1_000 {
            let (slot, _) = table.slot(&(offset % 7).to_string(), SlotHint::NONE, offset, bounds);
            table.push(slot, offset, 1.0, 3);
            table.commit();
        }
        assert_eq!(table.len(), 5);
        assert_eq!(table.order.places.as_ref().map(BinaryHeap::len), Some(5));
    }
}
