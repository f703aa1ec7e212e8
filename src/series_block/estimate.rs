//! A running estimate of a window's mean and standard deviation. It costs O(1) for each value and has an error bound
//! that holds at any offset.

use bytemuck::{Pod, Zeroable};

use super::Replaced;

/// Unit roundoff of the type f64.
const U: f64 = f64::EPSILON / 2.0;

/// Running sums about a centre, and the largest distance so far, which bounds their rounding error.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Estimate {
    centre: f64,
    /// Sum of the distances of the values from the centre.
    sum: f64,
    /// Sum of the squared distances from the centre.
    square: f64,
    /// Largest absolute distance that has entered either sum.
    reach: f64,
    /// Number of values in the sums.
    pub count: u32,
    /// Number of values that entered or left since the sums were last computed from the window.
    steps: u32,
}

/// Range of distances for which the estimate is valid. Outside it, squares overflow or lose bits, so the exact moments
/// decide.
const REACH: std::ops::Range<f64> = 1e-140..1e140;

impl Estimate {
    /// Computes the sums about the mean of the values, in O(n).
    pub(crate) fn of(values: &[f64]) -> Self {
        let Some(first) = values.first() else { return Estimate::default() };
        let mean = first + values.iter().map(|x| x - first).sum::<f64>() / values.len() as f64;
        let centre = if mean.is_finite() { mean } else { 0.0 };
        let mut fresh = Estimate { centre, ..Estimate::default() };
        values.iter().for_each(|x| fresh.enter(x - centre));
        Estimate { count: values.len() as u32, ..fresh }
    }

    fn enter(&mut self, d: f64) {
        self.sum += d;
        self.square += d * d;
        self.reach = self.reach.max(d.abs());
    }

    /// Adds one value and removes the one that it replaced, in O(1).
    pub(crate) fn slide(&mut self, entered: f64, replaced: Replaced) {
        self.enter(entered - self.centre);
        self.steps += 1;
        match replaced {
            Replaced::Nothing => self.count += 1,
            Replaced::Oldest(left) => {
                let d = left - self.centre;
                self.sum -= d;
                self.square -= d * d;
                self.steps += 1;
            }
        }
    }

    /// Returns whether the sums should be computed again in O(n), because of rounding errors or a stale reach.
    /// Amortised cost: O(1) for each value.
    pub(crate) fn is_due(&self) -> bool {
        self.steps >= self.count.max(2)
    }

    /// Returns whether a value is certainly normal; see [`SeriesBlock::certainly_within`](super::SeriesBlock::certainly_within).
    ///
    /// Bound: every distance has a relative error of at most `U`. Each of the `n + steps` additions adds at most `U`
    /// times the largest partial sum, which is at most `(n + 1) * reach` (or its square). The result is doubled to
    /// cover second-order terms.
    pub(crate) fn certainly_within(&self, value: f64, threshold: f64) -> bool {
        if self.count < 2 || !REACH.contains(&self.reach) {
            return false;
        }
        let n = f64::from(self.count);
        let additions = n + f64::from(self.steps);
        let sum_error = 2.0 * U * additions * (n + 1.0) * self.reach;
        let square_error = sum_error * self.reach * 2.0;
        let offset = self.sum / n;
        let offset_error = sum_error / n + 2.0 * U * offset.abs();
        let variance = self.square / n - offset * offset;
        let variance_error =
            square_error / n + (2.0 * offset.abs() + offset_error) * offset_error + 4.0 * U * self.square / n;
        let least = variance - variance_error;
        if least <= 0.0 {
            return false;
        }
        let d = value - self.centre;
        // The exact rule rounds its mean once: half a unit in the last place of the mean.
        let mean_rounding = 2.0 * U * (self.centre.abs() + offset.abs());
        let farthest = (d - offset).abs() + offset_error + mean_rounding + 4.0 * U * (d.abs() + offset.abs());
        farthest * (1.0 + 1e-9) < threshold * least.sqrt()
    }
}
