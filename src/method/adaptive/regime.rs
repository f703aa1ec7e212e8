//! The lane `regime` of `adaptive`: on means of five minutes, how active the series is compared with its season, and how
//! much the histogram of its values has changed.
//!
//! ```text
//! S = z of the mean of the last 7 |mean residual from the season|
//! G = z of 2 x the log-likelihood ratio of the last 20 steps' histogram against that of all steps before
//! y = clip(S, 0, 8) + clip(G, 0, 8)
//! ```

use bytemuck::{Pod, Zeroable};

use crate::method::finite::finite;

/// Seconds of one step.
pub(super) const STEP_SECONDS: f64 = 300.0;
/// Steps before the lane has a distance.
const WARM_STEPS: u32 = 100;
/// Steps whose activity is averaged.
const ACTIVE: usize = 7;
/// Steps of the recent histogram.
const RECENT: usize = 20;
/// Bins of the histogram.
const SYMBOLS: usize = 10;

/// Slow mean and variance of a number.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct SlowMoments {
    mean: f64,
    variance: f64,
    count: f64,
}

impl SlowMoments {
    /// Returns the distance of `y` from the mean in deviations, 0 for the first 50 numbers; then learns `y`. After
    /// `memory` numbers the past weighs 1/e.
    fn judge(&mut self, y: f64, memory: f64) -> f64 {
        let z = match self.count >= 50.0 {
            true => finite((y - self.mean) / (self.variance.sqrt() + 1e-12 + 1e-3 * self.mean.abs())),
            false => 0.0,
        };
        self.count += 1.0;
        let rate = (1.0 / memory).max(1.0 / self.count);
        let distance = finite(y - self.mean);
        self.mean = finite(self.mean + rate * distance);
        self.variance = finite((1.0 - rate) * finite(self.variance + rate * distance * distance));
        z
    }
}

/// What the lane remembers of a series. It is all zeros before the first value.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RegimeState {
    /// Number of the current step since the epoch.
    slot: f64,
    sum: f64,
    sum_from_season: f64,
    level: f64,
    level_variance: f64,
    activity: SlowMoments,
    histogram: SlowMoments,
    /// Values of the current step.
    count: u32,
    /// Steps that have ended.
    steps: u32,
    active: [f32; ACTIVE],
    history: [f32; SYMBOLS],
    recent: [u8; RECENT],
    now: [u8; SYMBOLS],
    unused: [u8; 6],
}

impl RegimeState {
    /// Begins with the first value.
    pub(super) fn begin(&mut self) {
        self.slot = -1.0;
        self.history = [0.5; SYMBOLS];
    }

    /// Adds a value at `time` (seconds since the epoch); `gap` are the seconds since the value before. Calls `ended` with
    /// the distance of each step that ends: when the next value is expected in another one, or when a late value has
    /// come.
    pub(super) fn add(&mut self, value: f64, from_season: f64, time: f64, gap: f64, mut ended: impl FnMut(f64)) {
        let slot = (time / STEP_SECONDS).floor();
        if self.count > 0 && slot != self.slot {
            self.end_step().into_iter().for_each(&mut ended);
        }
        self.sum = finite(self.sum + value);
        self.sum_from_season = finite(self.sum_from_season + from_season);
        self.count += 1;
        self.slot = slot;
        if ((time + gap) / STEP_SECONDS).floor() != slot {
            self.end_step().into_iter().for_each(&mut ended);
        }
    }

    /// Ends a step and returns its distance; `None` while the lane warms up.
    fn end_step(&mut self) -> Option<f64> {
        let mean = self.sum / f64::from(self.count);
        let from_season = (self.sum_from_season / f64::from(self.count)).abs();
        (self.sum, self.sum_from_season, self.count) = (0.0, 0.0, 0);
        let step = self.steps as usize;
        self.active[step % ACTIVE] = (from_season as f32).min(f32::MAX);
        let averaged = self.active.iter().map(|&x| f64::from(x)).sum::<f64>() / (step + 1).min(ACTIVE) as f64;
        let activity = self.activity.judge(averaged, 3_000.0);
        self.remember(mean);
        self.steps += 1;
        if step < WARM_STEPS as usize {
            return None;
        }
        let histogram = self.histogram.judge(2.0 * self.likelihood_ratio(), 4_000.0);
        Some(activity.clamp(0.0, 8.0) + histogram.clamp(0.0, 8.0))
    }

    /// Puts the mean of a step into the recent histogram. The oldest step moves to the history.
    fn remember(&mut self, mean: f64) {
        let step = self.steps as usize;
        let deviation = self.level_variance.sqrt() + 1e-12;
        let symbol = match step {
            0 => 5,
            _ => (finite(mean - self.level) / deviation / 1.25 + 5.0).floor().clamp(0.0, 9.0) as u8,
        };
        let rate = (1.0f64 / 5_000.0).max(1.0 / (step as f64 + 1.0));
        let distance = finite(mean - self.level);
        self.level = finite(self.level + rate * distance);
        self.level_variance = finite((1.0 - rate) * finite(self.level_variance + rate * distance * distance));
        if step >= RECENT {
            let old = usize::from(self.recent[step % RECENT]);
            self.now[old] -= 1;
            self.history[old] += 1.0;
        }
        self.recent[step % RECENT] = symbol;
        self.now[usize::from(symbol)] += 1;
    }

    /// Returns the log-likelihood ratio of the recent histogram against the history.
    fn likelihood_ratio(&self) -> f64 {
        let total = self.history.iter().map(|&h| f64::from(h)).sum::<f64>();
        let recent = self.now.iter().zip(&self.history).filter(|(now, _)| **now > 0);
        recent
            .map(|(&now, &before)| {
                f64::from(now) * libm::log((f64::from(now) / RECENT as f64) / (f64::from(before) / total))
            })
            .sum()
    }
}
