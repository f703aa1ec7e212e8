//! `|value - mean| > threshold x deviation`, strictly; the deviation is the window's, raised to the floors.

use super::{Judgement, Limits, Method};
use crate::window::Window;

pub(super) struct Sigma(pub Limits);

/// A quotient or bound beyond the range of f64 is reported as its end: JSON has no infinity.
fn finite(x: f64) -> f64 {
    x.clamp(f64::MIN, f64::MAX)
}

impl Method for Sigma {
    fn name(&self) -> &'static str {
        "sigma"
    }

    /// Sound for any floors, which only raise the deviation.
    fn certainly_normal(&self, window: &Window, value: f64) -> bool {
        window.certainly_within(value, self.0.threshold)
    }

    fn figures(&self, window: &Window, value: f64) -> Option<Judgement> {
        let Limits { threshold, min_std_dev, min_relative_std_dev } = self.0;
        let moments = window.moments()?;
        let (mean, std_dev) = (moments.mean, moments.std_dev);
        let deviation = std_dev.max(min_std_dev).max(finite(min_relative_std_dev * mean.abs()));
        let distance = value - mean;
        let abnormal = if distance.is_finite() {
            distance.abs() > threshold * deviation
        } else {
            // Twice f64::MAX apart at the most: a quarter of it fits.
            (value / 4.0 - mean / 4.0).abs() > threshold * (deviation / 4.0)
        };
        let z_score = match deviation {
            0.0 if value == mean => Some(0.0),
            0.0 => None,
            _ if distance.is_finite() => Some(finite(distance / deviation)),
            _ => Some(finite((value / 4.0 - mean / 4.0) / (deviation / 4.0))),
        };
        Some(Judgement {
            mean,
            std_dev,
            z_score,
            score: z_score.map_or(f64::MAX, f64::abs),
            lower: finite(mean - threshold * deviation),
            upper: finite(mean + threshold * deviation),
            abnormal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(values: &[f64], value: f64, floors: (f64, f64)) -> Judgement {
        let mut window = Window::default();
        values.iter().for_each(|x| {
            window.push(*x, 100);
        });
        let limits = Limits { threshold: 3.0, min_std_dev: floors.0, min_relative_std_dev: floors.1 };
        Sigma(limits).figures(&window, value).unwrap()
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
        assert_eq!((figures.std_dev, figures.z_score, figures.abnormal), (0.0, Some(2.0), false));
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
