//! States of methods as they were at the last commit. A state is copied when a transaction first changes it, and a
//! rollback restores it. A method without state copies nothing.

use super::undo::UndoStep;
use super::{DIRTY, STATE_SAVED, Series, SeriesTable, Slot};
use crate::method::{Judgement, Method};

/// Saved states in one block that is reused, so that no event allocates memory.
#[derive(Debug, Default)]
pub(super) struct SavedStates {
    /// The states one after the other, in the order of the slots.
    words: Vec<u64>,
    places: Vec<u32>,
}

impl SeriesTable {
    /// Judges a value by the method's state of a series and updates the state, before the value joins the window. `time`
    /// is that of the event, in milliseconds.
    pub fn judge_by_state(
        &mut self,
        slot: Slot,
        method: &dyn Method,
        value: f64,
        time: Option<i64>,
    ) -> Option<Judgement> {
        let series = self.touch_state(slot, method)?;
        method.judge_and_update(&mut series.block, value, time)
    }

    /// Updates the method's state of a series by a value without judging it.
    pub fn update_state(&mut self, slot: Slot, method: &dyn Method, value: f64, time: Option<i64>) {
        if let Some(series) = self.touch_state(slot, method) {
            method.update(series.block.state_mut(), value, time);
        }
    }

    /// Returns a series whose state may change: it belongs to this method, and a rollback can restore it.
    fn touch_state(&mut self, slot: Slot, method: &dyn Method) -> Option<&mut Series> {
        let SeriesTable { series, saved_states, trail, dirty_bytes, heap_bytes, .. } = self;
        let series = series.get_mut(slot.0 as usize)?.as_mut()?;
        if series.block.state().len() != method.state_len() {
            let before = series.block.bytes() as u64;
            begin(series, method, dirty_bytes);
            *heap_bytes = *heap_bytes + series.block.bytes() as u64 - before;
        }
        if !series.raise(STATE_SAVED) {
            saved_states.words.extend(series.block.state());
            saved_states.places.push(slot.0);
            trail.push(UndoStep::StateSaved);
        }
        Some(series)
    }

    /// Discards the saved states after a commit.
    pub(super) fn forget_saved_states(&mut self) {
        for at in self.saved_states.places.drain(..) {
            // A series that was evicted since then, or another one in its slot, has no saved state.
            if let Some(series) = &mut self.series[at as usize] {
                series.lower(STATE_SAVED);
            }
        }
        self.saved_states.words.clear();
    }

    /// Restores the state that was saved last.
    pub(super) fn put_back_state(&mut self) {
        let Some(at) = self.saved_states.places.pop() else { return };
        let Some(series) = &mut self.series[at as usize] else { return };
        let words = &mut self.saved_states.words;
        let start = words.len() - series.block.state().len();
        series.block.state_mut().copy_from_slice(&words[start..]);
        series.lower(STATE_SAVED);
        words.truncate(start);
    }
}

/// Starts the method's state at the first value of a series, or at the first one with another method.
fn begin(series: &mut Series, method: &dyn Method, dirty_bytes: &mut u64) {
    let before = series.snapshot_bytes();
    series.block.set_state(&method.state_from(&series.block));
    if series.has(DIRTY) {
        *dirty_bytes = *dirty_bytes + series.snapshot_bytes() - before;
    }
}
