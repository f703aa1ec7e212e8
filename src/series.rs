//! All series of one partition: found by name, moved on by one value at a time, and taken back to the last committed
//! state when a transaction is aborted. Knows nothing of rules or Kafka.

use std::collections::HashMap;

use crate::window::{Replaced, Window};

/// The windows of one partition.
#[derive(Debug, Default)]
pub struct Table {
    /// Name to place in `windows`.
    index: HashMap<Box<str>, u32>,
    windows: Vec<Window>,
    /// What happened since the last commit, in order.
    trail: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Created(Box<str>),
    Pushed(u32, Replaced),
}

/// A series within its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// Joins the two names; U+0000 is in neither. Reuses `buffer`.
pub fn key<'b>(buffer: &'b mut String, device_id: &str, metric_name: Option<&str>) -> &'b str {
    buffer.clear();
    buffer.push_str(device_id);
    if let Some(metric) = metric_name {
        buffer.push('\0');
        buffer.push_str(metric);
    }
    buffer
}

impl Table {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// True before the first series.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Whether a series of that key is known.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// The series of that key, and whether it was made just now.
    pub fn slot(&mut self, key: &str) -> (Slot, bool) {
        if let Some(&at) = self.index.get(key) {
            return (Slot(at), false);
        }
        let at = self.windows.len() as u32;
        self.index.insert(key.into(), at);
        self.windows.push(Window::default());
        self.trail.push(Step::Created(key.into()));
        (Slot(at), true)
    }

    /// Its window.
    pub fn window(&self, slot: Slot) -> &Window {
        &self.windows[slot.0 as usize]
    }

    /// Appends a value to a series; see [`Window::push`].
    pub fn push(&mut self, slot: Slot, value: f64, capacity: usize) {
        let replaced = self.windows[slot.0 as usize].push(value, capacity);
        self.trail.push(Step::Pushed(slot.0, replaced));
    }

    /// What was done is final.
    pub fn commit(&mut self) {
        self.trail.clear();
    }

    /// Takes back everything since the last commit.
    pub fn rollback(&mut self) {
        while let Some(step) = self.trail.pop() {
            match step {
                Step::Pushed(at, replaced) => self.windows[at as usize].undo(replaced),
                Step::Created(key) => {
                    self.index.remove(&key);
                    self.windows.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_forgets_values_and_series_since_the_commit_and_nothing_else() {
        let mut table = Table::default();
        let feed = |table: &mut Table, key: &str, value: f64| {
            let (slot, _) = table.slot(key);
            table.push(slot, value, 3);
        };
        for value in [1.0, 2.0, 3.0, 4.0] {
            feed(&mut table, "a", value);
        }
        table.commit();
        for value in [5.0, 6.0, 7.0, 8.0] {
            feed(&mut table, "a", value);
            feed(&mut table, "b", value);
        }
        table.rollback();
        assert_eq!((table.len(), table.contains("b")), (1, false));
        let (slot, created) = table.slot("a");
        assert!(!created);
        assert_eq!(table.window(slot).newest(9), [2.0, 3.0, 4.0]);
    }

    #[test]
    fn an_absent_metric_and_an_empty_one_are_two_series() {
        let (mut one, mut two) = (String::new(), String::new());
        assert_ne!(key(&mut one, "d", None), key(&mut two, "d", Some("")));
    }
}
