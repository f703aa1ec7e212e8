//! The return period of a distance: how many steps pass on average, in this series, until a distance is at least as large.
//! A threshold in deviations means something else for each series; a return period means the same for all.
//!
//! Distances above `u` form excursions. An excursion ends after more than 20 steps below `u`, or after 300 steps. Its peak
//! then enters the estimate:
//!
//! ```text
//! base  = log10((n0 + steps) / (n0 / 1000 + excursions))
//! score = base + log10(y / u) x (m0 + excursions) / (g0 x m0 + log_excess)     if y > u
//! score = base x y / u                                                         otherwise
//! ```
//! This is the estimator of B. M. Hill (Annals of Statistics 3, 1975) on declustered peaks (S. Coles, *An Introduction to
//! Statistical Modeling of Extreme Values*, 2001, chapters 4 and 5), shrunk towards a prior. Steps, excursions and excess
//! decay exponentially, so that a series may change.

use bytemuck::{Pod, Zeroable};

/// Steps below `u` after which an excursion ends.
const QUIET_STEPS: u32 = 20;
/// Steps after which an excursion ends in any case.
const LONGEST_EXCURSION: u32 = 300;
/// Maximum of ln(peak / u) that one excursion adds to the estimate.
const MAX_LOG_EXCESS: f64 = 3.0;
/// Excursions per step that the prior assumes.
const PRIOR_RATE: f64 = 1e-3;

/// Assumption about the tail before the series shows its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailPrior {
    /// Distance above which an excursion begins.
    pub u: f64,
    /// Steps that the assumed rate of excursions is worth.
    pub n0: f64,
    /// Excursions that the assumed mean excess is worth.
    pub m0: f64,
    /// Assumed mean of ln(peak / u).
    pub g0: f64,
}

/// DistanceTail of a series' distances. It is all zeros before the first distance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DistanceTail {
    steps: f64,
    excursions: f64,
    log_excess: f64,
    /// Peak of the current excursion; 0 outside of one.
    peak: f64,
    /// Steps since the distance was last above `u`.
    quiet: u32,
    /// Steps since the excursion began.
    age: u32,
}

impl DistanceTail {
    /// Returns log10 of the return period of the distance `y >= 0`, in steps.
    pub(super) fn score(&self, y: f64, prior: &TailPrior) -> f64 {
        let base = self.base(prior);
        if y > prior.u { base + libm::log10(y / prior.u) * self.slope(prior) } else { base * y.max(0.0) / prior.u }
    }

    /// Returns the distance whose [`score`](Self::score) is `score`.
    pub(super) fn distance(&self, score: f64, prior: &TailPrior) -> f64 {
        let base = self.base(prior);
        if score > base { prior.u * libm::exp10((score - base) / self.slope(prior)) } else { prior.u * score / base }
    }

    /// Returns log10 of the return period of `u`.
    fn base(&self, prior: &TailPrior) -> f64 {
        libm::log10((prior.n0 + self.steps) / (PRIOR_RATE * prior.n0 + self.excursions))
    }

    /// Returns the decades of return period for each decade of distance.
    fn slope(&self, prior: &TailPrior) -> f64 {
        (prior.m0 + self.excursions) / (prior.g0 * prior.m0 + self.log_excess)
    }

    /// Learns a distance. After `memory` steps the past weighs 1/e.
    pub(super) fn learn(&mut self, y: f64, prior: &TailPrior, memory: f64) {
        let keep = 1.0 - 1.0 / memory;
        self.steps = self.steps * keep + 1.0;
        self.excursions *= keep;
        self.log_excess *= keep;
        if y > prior.u {
            if self.peak == 0.0 {
                self.age = 0;
            }
            self.peak = self.peak.max(y);
            self.quiet = 0;
        } else if self.peak > 0.0 {
            self.quiet += 1;
        }
        if self.peak > 0.0 {
            self.age += 1;
            if self.quiet > QUIET_STEPS || self.age > LONGEST_EXCURSION {
                self.excursions += 1.0;
                self.log_excess += libm::log(self.peak / prior.u).min(MAX_LOG_EXCESS);
                self.peak = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: TailPrior = TailPrior { u: 3.0, n0: 3000.0, m0: 10.0, g0: 0.5 };

    #[test]
    fn a_larger_distance_is_rarer_and_each_distance_is_found_from_its_score() {
        let mut tail = DistanceTail::default();
        for step in 0..20_000_u32 {
            tail.learn(if step % 500 == 0 { 4.0 } else { 1.0 }, &PRIOR, 10_000.0);
        }
        let scores = [0.5, 1.0, 3.0, 3.5, 5.0, 20.0, 60.0].map(|y| tail.score(y, &PRIOR));
        assert!(scores.is_sorted(), "{scores:?}");
        for (y, score) in [0.5, 1.0, 3.0, 3.5, 5.0, 20.0, 60.0].into_iter().zip(scores) {
            assert!((tail.distance(score, &PRIOR) - y).abs() < 1e-9 * y);
        }
    }

    #[test]
    fn an_excursion_counts_once_by_its_peak_after_it_has_ended() {
        let mut tail = DistanceTail::default();
        let before = tail.score(6.0, &PRIOR);
        for y in [4.0, 6.0, 1.0, 5.0] {
            tail.learn(y, &PRIOR, 1e9);
        }
        assert_eq!(tail.excursions, 0.0);
        (0..=QUIET_STEPS).for_each(|_| tail.learn(0.0, &PRIOR, 1e9));
        assert!((tail.excursions - 1.0).abs() < 1e-6 && (tail.log_excess - libm::log(2.0)).abs() < 1e-6);
        assert!(tail.score(6.0, &PRIOR) < before, "it is less rare now");
    }

    #[test]
    fn an_excursion_that_does_not_end_is_counted_in_pieces() {
        let mut tail = DistanceTail::default();
        (0..3 * (LONGEST_EXCURSION + 1)).for_each(|_| tail.learn(10.0, &PRIOR, 1e9));
        assert!((tail.excursions - 3.0).abs() < 1e-3);
    }
}
