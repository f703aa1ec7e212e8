//! The distance of a value from a mean in standard deviations, and its verdict. A value is abnormal if it is strictly
//! farther than the threshold: `|value - mean| > threshold x deviation`. The deviation is first raised to the floors.

use super::finite::finite;
use super::{Evidence, Judgement, Recorded};
use crate::limits::Limits;

/// Name in the evidence of the deviation that a floor raised.
const DEVIATION: &str = "deviation";

/// Judges a value by its distance from `mean`. The evidence includes the deviation if a floor raised it.
pub(super) fn judge(limits: &Limits, mean: f64, std_dev: f64, value: f64, evidence: Evidence) -> Judgement {
    let Limits { threshold, min_std_dev, min_relative_std_dev, .. } = *limits;
    let deviation = std_dev.max(min_std_dev).max(finite(min_relative_std_dev * mean.abs()));
    let mut judgement = by_deviation(threshold, mean, std_dev, deviation, value);
    judgement.evidence = evidence;
    if deviation.to_bits() != std_dev.to_bits()
        && let Some(free) = judgement.evidence.iter_mut().find(|number| number.is_none())
    {
        *free = Some((DEVIATION, deviation));
    }
    judgement
}

/// Judges a recorded value again by its mean and deviation. The record says which deviation a floor raised.
pub(super) fn repeated(recorded: &Recorded<'_>, mean: f64, std_dev: f64) -> Judgement {
    let deviation = recorded.evidence.get(DEVIATION).copied().unwrap_or(std_dev);
    by_deviation(recorded.threshold, mean, std_dev, deviation, recorded.value)
}

/// Judges by a deviation to which the floors are already applied. The evidence is empty.
fn by_deviation(threshold: f64, mean: f64, std_dev: f64, deviation: f64, value: f64) -> Judgement {
    let distance = value - mean;
    let abnormal = if distance.is_finite() {
        distance.abs() > threshold * deviation
    } else {
        // The distance is at most twice f64::MAX; a quarter of it fits.
        (value / 4.0 - mean / 4.0).abs() > threshold * (deviation / 4.0)
    };
    let z_score = match deviation {
        0.0 if value == mean => Some(0.0),
        0.0 => None,
        _ if distance.is_finite() => Some(finite(distance / deviation)),
        _ => Some(finite((value / 4.0 - mean / 4.0) / (deviation / 4.0))),
    };
    Judgement {
        mean: Some(mean),
        std_dev: Some(std_dev),
        z_score,
        score: z_score.map_or(f64::MAX, f64::abs),
        threshold,
        expected: mean,
        lower: finite(mean - threshold * deviation),
        upper: finite(mean + threshold * deviation),
        abnormal,
        evidence: Evidence::default(),
        reason: None,
        return_period_events: None,
        return_period_seconds: None,
        opens: None,
    }
}
