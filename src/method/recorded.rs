//! The numbers in the record of an anomaly from which a method repeats its arithmetic.

use std::collections::BTreeMap;

/// The part of an anomaly's record that its arithmetic needs.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Name of the method.
    pub method: &'a str,
    /// The most recent values before this one, oldest first.
    pub window: &'a [f64],
    /// Number of preceding values that the value was compared with.
    pub window_count: usize,
    /// Further numbers of the method.
    pub evidence: &'a BTreeMap<String, f64>,
    /// Mean in the record. `None` if the method has none.
    pub mean: Option<f64>,
    /// Threshold in the record.
    pub threshold: f64,
    /// The value that was judged.
    pub value: f64,
}

impl Recorded<'_> {
    /// Returns the window if the record contains all of it.
    pub(super) fn whole_window(&self) -> Result<&[f64], Unrepeatable> {
        if self.window.len() != self.window_count { Err(Unrepeatable::WindowTruncated) } else { Ok(self.window) }
    }
}

/// Reason why the arithmetic cannot be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrepeatable {
    /// The record has fewer values than the window had (`detector.context`).
    WindowTruncated,
    /// The record has no values.
    NoWindow,
    /// The record was written before records had evidence.
    NoEvidence,
    /// This program does not have the method.
    UnknownMethod,
}
