//! Keeps results within the range of f64.

/// Replaces a quotient or bound beyond the range of f64 by the end of the range, because JSON has no infinity.
pub(super) fn finite(x: f64) -> f64 {
    x.clamp(f64::MIN, f64::MAX)
}
