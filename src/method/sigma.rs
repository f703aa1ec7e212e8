//! The method `sigma`: exact mean and population standard deviation of the window, without state.

use super::distance::{self, repeated};
use super::recorded::{Recorded, Unrepeatable};
use super::{Explanation, Judgement, Method, MethodDefinition, MomentsExplanation};
use crate::limits::Limits;
use crate::series_block::{SeriesBlock, moments};

pub(super) const DEFINITION: MethodDefinition = MethodDefinition {
    name: "sigma",
    create: |limits| Box::new(Sigma(limits.clone())),
    explanation: Explanation {
        moments: Some(MomentsExplanation {
            mean: "Mean of the values before it",
            mean_formula: "",
            std_dev: "Standard deviation (population)",
            std_dev_formula: "",
            is_of_window: true,
        }),
        repeated_from: "the window",
        reasons: &[],
    },
    repeat,
};

#[derive(Debug)]
struct Sigma(Limits);

impl Method for Sigma {
    fn name(&self) -> &'static str {
        DEFINITION.name
    }

    fn version(&self) -> u32 {
        1
    }

    /// Returns whether the window's estimate calls the value normal. This is right for any floors, because they only
    /// raise the deviation.
    fn certainly_normal(&self, block: &SeriesBlock, value: f64) -> bool {
        block.certainly_within(value, self.0.threshold)
    }

    fn judge(&self, block: &SeriesBlock, _state: &[u64], value: f64, _time: Option<i64>) -> Option<Judgement> {
        let moments = block.moments()?;
        Some(distance::judge(&self.0, moments.mean, moments.std_dev, value, Default::default()))
    }
}

/// Computes mean and deviation again from the values of the window.
fn repeat(recorded: &Recorded<'_>) -> Result<Judgement, Unrepeatable> {
    recorded.whole_window()?;
    let moments = moments(recorded.window.iter().copied()).ok_or(Unrepeatable::NoWindow)?;
    Ok(repeated(recorded, moments.mean, moments.std_dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(values: &[f64], value: f64, floors: (f64, f64)) -> Judgement {
        let mut window = SeriesBlock::default();
        values.iter().for_each(|x| {
            window.push(*x, 100);
        });
        let limits = Limits { min_std_dev: floors.0, min_relative_std_dev: floors.1, ..Limits::default() };
        Sigma(limits).judge(&window, &[], value, None).unwrap()
    }

    #[test]
    fn exactly_three_deviations_away_is_normal() {
        let window = [9.0, 11.0, 9.0, 11.0];
        assert!(!judge(&window, 13.0, (0.0, 0.0)).abnormal);
        assert!(judge(&window, 13.000_000_000_000_002, (0.0, 0.0)).abnormal);
        assert!(!judge(&window, 7.0, (0.0, 0.0)).abnormal);
        assert!(judge(&window, 6.999_999_999_999_999, (0.0, 0.0)).abnormal);
    }

    #[test]
    fn another_value_after_constants_is_abnormal_without_a_z_score() {
        let figures = judge(&[0.1; 100], 0.100_000_000_000_000_02, (0.0, 0.0));
        assert_eq!((figures.abnormal, figures.z_score, figures.score), (true, None, f64::MAX));
        let same = judge(&[0.1; 100], 0.1, (0.0, 0.0));
        assert_eq!((same.abnormal, same.z_score, same.score), (false, Some(0.0), 0.0));
    }

    #[test]
    fn floors_judge_but_the_raw_deviation_is_reported() {
        let figures = judge(&[10.0; 50], 12.0, (1.0, 0.0));
        assert_eq!((figures.std_dev, figures.z_score, figures.abnormal), (Some(0.0), Some(2.0), false));
        let relative = judge(&[10.0; 50], 12.0, (0.0, 0.05));
        assert_eq!((relative.z_score, relative.lower, relative.upper), (Some(4.0), 8.5, 11.5));
    }

    #[test]
    fn figures_stay_finite_at_the_ends_of_the_range() {
        let m = f64::MAX;
        let wide = judge(&[m, -m, m, -m], m, (0.0, 0.0));
        assert!(!wide.abnormal && wide.upper == m && wide.lower == -m);
        let far = judge(&[-m, -m, -m / 2.0, -m], m, (0.0, 0.0));
        assert!(far.abnormal && far.z_score.unwrap().is_finite());
        assert_eq!(judge(&[5e-324, 1.5e-323], 1e300, (0.0, 0.0)).z_score, Some(m));
    }
}
