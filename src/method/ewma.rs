//! Exponentially weighted mean and variance: newer values weigh more, and no value is forgotten at once.
//!
//! ```text
//! n        = n + 1
//! alpha    = max(2 / (window + 1), 1 / n)
//! d        = value - mean
//! step     = alpha x d
//! mean     = mean + step
//! variance = (1 - alpha) x (variance + d x step)
//! ```
//! The recursion: T. Finch, "Incremental calculation of weighted mean and variance" (2009), section 9. `window` is the span, as
//! in pandas' `ewm`. While 1/n is greater, all values weigh the same, and the recursion is that of B. P. Welford
//! (Technometrics 4, 1962) for the population variance: the first value has no greater weight than others.
//!
//! A variance beyond the range of f64 stays at `f64::MAX`. Each operation is rounded once, in a fixed order. The state
//! therefore follows from the ordered values alone, bit for bit.

use super::distance::{self, repeated};
use super::finite::finite;
use super::recorded::{Recorded, Unrepeatable};
use super::{Evidence, Explanation, Judgement, Method, MethodDefinition, MomentsExplanation};
use crate::limits::Limits;
use crate::series_block::SeriesBlock;

pub(super) const DEFINITION: MethodDefinition = MethodDefinition {
    name: "ewma",
    create: |limits| Box::new(Ewma::new(limits.clone())),
    explanation: Explanation {
        moments: Some(MomentsExplanation {
            mean: "Exponentially weighted mean of all values before it",
            mean_formula: "mean + α × (x − mean), α = 2 / (window + 1)",
            std_dev: "Exponentially weighted standard deviation",
            std_dev_formula: "√((1 − α) × (variance + α × (x − mean)²))",
            is_of_window: false,
        }),
        repeated_from: "the method's state",
        reasons: &[],
    },
    repeat,
};

#[derive(Debug)]
struct Ewma {
    limits: Limits,
    alpha: f64,
}

impl Ewma {
    fn new(limits: Limits) -> Self {
        let alpha = 2.0 / (limits.window as f64 + 1.0);
        Ewma { limits, alpha }
    }
}

impl Method for Ewma {
    fn name(&self) -> &'static str {
        DEFINITION.name
    }

    fn version(&self) -> u32 {
        1
    }

    /// Returns 3: number of values, mean, variance.
    fn state_len(&self) -> usize {
        3
    }

    fn judge(&self, _block: &SeriesBlock, state: &[u64], value: f64, _time: Option<i64>) -> Option<Judgement> {
        let [count, mean, variance] = *bytemuck::cast_slice(state) else { return None };
        let mut evidence = Evidence::default();
        evidence[..3].copy_from_slice(&[("alpha", self.alpha), ("count", count), ("variance", variance)].map(Some));
        (count > 0.0).then(|| distance::judge(&self.limits, mean, variance.sqrt(), value, evidence))
    }

    fn update(&self, state: &mut [u64], value: f64, _time: Option<i64>) {
        let [count, mean, variance] = bytemuck::cast_slice_mut::<_, f64>(state) else { return };
        *count += 1.0;
        if *count == 1.0 {
            (*mean, *variance) = (value, 0.0);
            return;
        }
        let alpha = self.alpha.max(1.0 / *count);
        let distance = finite(value - *mean);
        let step = alpha * distance;
        *mean = finite(*mean + step);
        *variance = finite((1.0 - alpha) * (*variance + distance * step));
    }
}

/// Computes mean and deviation again from the state; the recorded mean belongs to it.
fn repeat(recorded: &Recorded<'_>) -> Result<Judgement, Unrepeatable> {
    let mean = recorded.mean.ok_or(Unrepeatable::NoEvidence)?;
    let variance = recorded.evidence.get("variance").ok_or(Unrepeatable::NoEvidence)?;
    Ok(repeated(recorded, mean, variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ewma(window: usize) -> Ewma {
        Ewma::new(Limits { window, ..Limits::default() })
    }

    fn words(method: &Ewma, values: &[f64]) -> [u64; 3] {
        let mut state = [0; 3];
        values.iter().for_each(|value| method.update(&mut state, *value, None));
        state
    }

    fn state(method: &Ewma, values: &[f64]) -> [f64; 3] {
        words(method, values).map(f64::from_bits)
    }

    /// Computes the weights by their definition: each value takes its share, and the earlier values have the rest.
    fn by_definition(values: &[f64], window: usize) -> (f64, f64) {
        let mut weights = Vec::<f64>::new();
        for n in 1..=values.len() {
            let alpha = (2.0 / (window as f64 + 1.0)).max(1.0 / n as f64);
            weights.iter_mut().for_each(|weight| *weight *= 1.0 - alpha);
            weights.push(alpha);
        }
        let sum = |of: &dyn Fn(f64) -> f64| values.iter().zip(&weights).map(|(x, w)| w * of(*x)).sum::<f64>();
        let mean = sum(&|x| x);
        (mean, sum(&|x| (x - mean).powi(2)))
    }

    proptest! {
        #[test]
        fn the_recursion_gives_the_weighted_mean_and_variance(
            values in prop::collection::vec(-1e3..1e3f64, 1..300), window in 2..120usize,
        ) {
            let [count, mean, variance] = state(&ewma(window), &values);
            let (expected_mean, expected_variance) = by_definition(&values, window);
            prop_assert_eq!(count, values.len() as f64);
            prop_assert!((mean - expected_mean).abs() < 1e-9, "{} {}", mean, expected_mean);
            prop_assert!((variance - expected_variance).abs() < 1e-6, "{} {}", variance, expected_variance);
        }

        #[test]
        fn no_values_make_a_figure_that_is_not_finite(
            values in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..100),
        ) {
            let method = ewma(10);
            let mut state = [0; 3];
            for value in values {
                if let Some(judged) = method.judge(&SeriesBlock::default(), &state, value, None) {
                    let all = [judged.score, judged.lower, judged.upper].map(Some);
                    let mut all = all.into_iter().chain([judged.mean, judged.std_dev]);
                    prop_assert!(all.all(|x| x.is_some_and(f64::is_finite)), "{:?}", judged);
                }
                method.update(&mut state, value, None);
                prop_assert!(state.iter().all(|x| f64::from_bits(*x).is_finite()), "{:?}", state);
            }
        }
    }

    #[test]
    fn few_values_weigh_the_same_and_equal_ones_have_no_deviation() {
        assert_eq!(state(&ewma(100), &[1.0, 3.0]), [2.0, 2.0, 1.0]);
        let method = ewma(10);
        let constant = words(&method, &[0.1; 50]);
        assert_eq!(constant.map(f64::from_bits), [50.0, 0.1, 0.0]);
        let judged = method.judge(&SeriesBlock::default(), &constant, 0.2, None).unwrap();
        assert_eq!((judged.abnormal, judged.z_score), (true, None));
    }
}
