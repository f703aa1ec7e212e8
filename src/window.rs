//! One series' rolling window: the last `capacity` values in the order of arrival, their exact moments,
//! and a running estimate that may only say "certainly normal".
//!
//! The moments are a pure function of the ordered values: two passes in double-double arithmetic, rounded
//! once at the end, so that no offset, restart or batch size can change a bit of them. Knows nothing of
//! devices, rules or Kafka.

mod exact;

pub use exact::{Moments, moments};

/// Unit roundoff of f64.
const U: f64 = f64::EPSILON / 2.0;

/// The last values of one series, oldest first. Grows with the values that it holds up to its capacity.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// A ring once it is full: `head` is the oldest value then.
    values: Vec<f64>,
    head: usize,
    estimate: Estimate,
}

/// What [`Window::push`] replaced; handing it to [`Window::undo`] restores the window exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Replaced {
    /// The window was still growing.
    Nothing,
    /// The oldest value left.
    Oldest(f64),
}

impl Window {
    /// Number of values held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True before the first value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values from the oldest to the newest, as the ring's two runs.
    pub fn runs(&self) -> (&[f64], &[f64]) {
        let (newer, older) = self.values.split_at(self.head);
        (older, newer)
    }

    /// The values from the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = f64> + Clone + '_ {
        let (older, newer) = self.runs();
        older.iter().chain(newer).copied()
    }

    /// The most recent `n` values, oldest first.
    pub fn newest(&self, n: usize) -> Vec<f64> {
        self.iter().skip(self.len().saturating_sub(n)).collect()
    }

    /// Exact mean and population standard deviation; `None` of an empty window.
    pub fn moments(&self) -> Option<Moments> {
        moments(self.iter())
    }

    /// Appends a finite value; the oldest one leaves when `capacity` values are held.
    pub fn push(&mut self, value: f64, capacity: usize) -> Replaced {
        debug_assert!(value.is_finite() && capacity > 0);
        let replaced = if self.values.len() < capacity {
            // A ring that has turned cannot grow in place: only a larger capacity after a restart comes here.
            self.values.rotate_left(self.head);
            self.head = 0;
            if self.values.len() == self.values.capacity() {
                let room = (self.values.len() * 2).max(4).min(capacity);
                self.values.reserve_exact(room - self.values.len());
            }
            self.values.push(value);
            Replaced::Nothing
        } else {
            let oldest = std::mem::replace(&mut self.values[self.head], value);
            self.head = (self.head + 1) % self.values.len();
            Replaced::Oldest(oldest)
        };
        self.estimate.slide(value, replaced);
        if self.estimate.is_due(self.values.len()) {
            self.estimate = Estimate::of(&self.values);
        }
        replaced
    }

    /// A window that holds these finite values, oldest first.
    pub fn of(values: Vec<f64>) -> Self {
        let estimate = Estimate::of(&values);
        Window { values, head: 0, estimate }
    }

    /// Keeps the newest `capacity` values; whether there were more.
    pub fn shrink(&mut self, capacity: usize) -> bool {
        let is_larger = self.values.len() > capacity;
        if is_larger {
            *self = Window::of(self.newest(capacity));
        }
        is_larger
    }

    /// Takes back the latest [`push`](Window::push) that has not been taken back yet.
    pub fn undo(&mut self, replaced: Replaced) {
        match replaced {
            Replaced::Nothing => {
                self.values.pop();
            }
            Replaced::Oldest(oldest) => {
                self.head = (self.head + self.values.len() - 1) % self.values.len();
                self.values[self.head] = oldest;
            }
        }
        self.estimate = Estimate::of(&self.values);
    }

    /// True only if `|value - mean| <= threshold x std_dev` holds for the exact moments, with room to spare.
    /// False says nothing: then the exact moments decide.
    pub fn certainly_within(&self, value: f64, threshold: f64) -> bool {
        self.estimate.certainly_within(value, threshold, self.values.len())
    }
}

/// Running sums about a centre, with the largest distance they have seen, which bounds their rounding error.
#[derive(Debug, Clone, Copy, Default)]
struct Estimate {
    centre: f64,
    /// Sum of the distances from the centre.
    sum: f64,
    /// Sum of their squares.
    square: f64,
    /// Largest absolute distance that has entered either sum.
    reach: f64,
    /// Values that entered or left since the sums were made afresh.
    steps: u32,
}

/// Beyond these distances squares overflow or lose bits: no estimate, the exact moments decide.
const REACH: std::ops::Range<f64> = 1e-140..1e140;

impl Estimate {
    /// Fresh sums about the newest mean; O(n).
    fn of(values: &[f64]) -> Self {
        let Some(first) = values.first() else { return Estimate::default() };
        let mean = first + values.iter().map(|x| x - first).sum::<f64>() / values.len() as f64;
        let centre = if mean.is_finite() { mean } else { 0.0 };
        let mut fresh = Estimate { centre, ..Estimate::default() };
        values.iter().for_each(|x| fresh.enter(x - centre));
        fresh
    }

    fn enter(&mut self, d: f64) {
        self.sum += d;
        self.square += d * d;
        self.reach = self.reach.max(d.abs());
    }

    /// Moves on by one value, in O(1).
    fn slide(&mut self, entered: f64, replaced: Replaced) {
        self.enter(entered - self.centre);
        self.steps += 1;
        if let Replaced::Oldest(left) = replaced {
            let d = left - self.centre;
            self.sum -= d;
            self.square -= d * d;
            self.steps += 1;
        }
    }

    /// True when rounding errors and a stale reach make fresh sums worth O(n): amortised O(1) for each value.
    fn is_due(&self, count: usize) -> bool {
        self.steps as usize >= count.max(2)
    }

    /// See [`Window::certainly_within`].
    ///
    /// Bound: every distance has a relative error of at most `U`; each of the `n + steps` additions adds at most `U` times
    /// the largest partial sum, which is at most `(n + 1) * reach` (or its square). Doubled against second-order terms.
    fn certainly_within(&self, value: f64, threshold: f64, count: usize) -> bool {
        if count < 2 || !REACH.contains(&self.reach) {
            return false;
        }
        let n = count as f64;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_restores_the_window_bit_for_bit() {
        let mut window = Window::default();
        let mut trail = Vec::new();
        for i in 0..250 {
            let before = window.iter().map(f64::to_bits).collect::<Vec<_>>();
            let replaced = window.push((i as f64).sin() * 1e9, 100);
            trail.push((before, replaced));
        }
        while let Some((before, replaced)) = trail.pop() {
            window.undo(replaced);
            assert_eq!(before, window.iter().map(f64::to_bits).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_larger_capacity_keeps_what_is_held_in_order() {
        let mut window = Window::default();
        (0..7).for_each(|i| {
            window.push(i as f64, 5);
        });
        window.push(7.0, 8);
        assert_eq!(window.iter().collect::<Vec<_>>(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn steady_noise_is_screened_even_far_from_zero() {
        for offset in [0.0, 1e9, -1e12] {
            let mut window = Window::default();
            let mut skipped = 0;
            for i in 0..10_000u32 {
                let x = offset + f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
                skipped += u32::from(window.certainly_within(x, 3.0));
                window.push(x, 100);
            }
            assert!(skipped > 9_500, "{skipped} of 10000 skipped at {offset}");
        }
    }
}
