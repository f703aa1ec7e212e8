//! Converts values to pixels, and finds round numbers between two values. It works at the limits of f64, where the
//! difference of two values is infinite.

/// A linear scale: `low` is at pixel `bottom`, `high` at pixel `top`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    bottom: f64,
    top: f64,
}

impl Scale {
    /// Creates a scale over all finite values, with a share of the range as margin on both sides.
    pub(crate) fn over(values: impl Iterator<Item = f64>, margin: f64, bottom: f64, top: f64) -> Scale {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|x| x.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // Equal values have no range, so it is widened.
        let pad = if low == high { (low.abs() * 0.01).max(f64::MIN_POSITIVE * 1e16) } else { 0.0 };
        let margin = (high / 4.0 - low / 4.0) * margin * 4.0 + pad;
        let end = |x: f64| x.clamp(f64::MIN, f64::MAX);
        Scale { low: end(low - margin), high: end(high + margin), bottom, top }
    }

    /// Returns the pixel of a value; values outside are placed at the edge.
    pub(crate) fn y(&self, value: f64) -> f64 {
        let share = (value / 4.0 - self.low / 4.0) / (self.high / 4.0 - self.low / 4.0);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 };
        self.bottom + (self.top - self.bottom) * share
    }

    /// Returns at most `most` round values inside the range, and the number of decimals that distinguishes them.
    pub(crate) fn ticks(&self, most: usize) -> (Vec<f64>, usize) {
        let range = self.high / 4.0 - self.low / 4.0;
        let rough = range * 4.0 / most.max(1) as f64;
        if !(rough.is_finite() && rough > 0.0) {
            return (Vec::new(), 0);
        }
        let power = 10f64.powf(rough.log10().floor());
        let fits = |step: &f64| (self.high / step).floor() - (self.low / step).ceil() < most as f64;
        let Some(step) = [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().map(|m| m * power).find(fits) else {
            return (Vec::new(), 0);
        };
        let first = (self.low / step).ceil();
        let ticks = (0..=most).map(|i| (first + i as f64) * step).take_while(|x| *x <= self.high);
        let decimals = (-step.log10()).ceil().clamp(0.0, 15.0) as usize;
        (ticks.map(|x| if x == 0.0 { 0.0 } else { x }).collect(), decimals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let scale = Scale::over([20.55, 24.64].into_iter(), 0.07, 300.0, 0.0);
        assert_eq!(scale.ticks(5), (vec![21.0, 22.0, 23.0, 24.0], 0));
        let scale = Scale::over([0.012, 0.0153].into_iter(), 0.0, 300.0, 0.0);
        let (ticks, decimals) = scale.ticks(5);
        assert_eq!((ticks.len(), decimals), (4, 3));
    }

    #[test]
    fn the_limits_of_f64_have_positions_too() {
        let scale = Scale::over([f64::MIN, 0.0, f64::MAX].into_iter(), 0.07, 300.0, 0.0);
        assert_eq!((scale.y(f64::MIN), scale.y(0.0), scale.y(f64::MAX)), (300.0, 150.0, 0.0));
        let flat = Scale::over([7.0].into_iter(), 0.07, 300.0, 0.0);
        assert!((flat.y(7.0) - 150.0).abs() < 1e-6);
        for x in [0.0, 5e-324, -1e308, 1e300] {
            let scale = Scale::over([x].into_iter(), 0.07, 300.0, 0.0);
            assert!(scale.y(x).is_finite() && scale.ticks(5).0.len() <= 6, "{x}");
        }
    }
}
